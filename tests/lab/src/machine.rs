//! A real node of Kubernetes: containerd, kubelet and kube-proxy in the namespace of a node of the lab, with folders,
//! mounts and a control group of its own.
//!
//! ```text
//!   namespace LAB-NODE ─┬─ sleep        holds the node's mount namespace (mounts)
//!                       ├─ containerd ── shims ── pods, each in its namespace, in /run/netns of the node
//!                       ├─ kubelet      cgroupRoot /manx-lab-LAB-NODE (cgroup)
//!                       └─ kube-proxy
//! ```
//!
//! Nothing of it is in this machine's own mount namespace but empty folders to mount upon, and what runs is found by the
//! node's network namespace or its control group: so a lab can be taken down by anybody, after a `kill -9` as well.

pub(crate) mod cgroup;
mod containerd;
mod kubelet;
mod mounts;
mod proxy;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use manx_kubernetes::{ControlPlane, Options};

use crate::{Lab, Process, netns};
use mounts::Mounts;

/// `loopback` is containerd's; the others are chained behind a network's, or are a network to compare with.
const PLUGINS: [&str; 5] = ["loopback", "portmap", "bandwidth", "ptp", "host-local"];

/// One node of Kubernetes. It ends with the value, unless it is [left](Machine::leave).
#[derive(Debug)]
pub struct Machine {
    name: String,
    cgroup: String,
    dir: PathBuf,
    // In the order in which they are to end.
    kubelet: Process,
    proxy: Process,
    containerd: Process,
    mounts: Mounts,
}

/// The users that nodes of these names ask as.
pub(crate) fn users(options: Options, lab: &Lab) -> Options {
    let options = options.user(proxy::USER, &[]);
    lab.nodes().fold(options, |options, node| options.user(&kubelet::user(node.name()), &["system:nodes"]))
}

impl Machine {
    /// Starts a node, with these images. It has registered itself some seconds later.
    pub(crate) fn start(
        lab: &Lab,
        name: &str,
        control_plane: &ControlPlane,
        images: &[PathBuf],
    ) -> Result<Machine> {
        let node = lab.node(name)?;
        let cgroup = cgroup::name(lab.name(), name);
        cgroup::make(&cgroup).with_context(|| format!("making the control group {cgroup}"))?;
        plugins(&node.dir().join("opt-cni/bin"))?;
        let mounts = Mounts::make(&node)?;
        let containerd = containerd::start(&node, &mounts)?;
        for image in images {
            containerd::import(&mounts, image)
                .with_context(|| format!("giving {} to {name}", image.display()))?;
        }
        let kubelet = kubelet::start(&node, &mounts, control_plane, &cgroup)?;
        let proxy = proxy::start(&node, &mounts, control_plane)?;
        Ok(Machine { name: name.to_owned(), cgroup, dir: node.dir(), kubelet, proxy, containerd, mounts })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kubelet: kill it, start it again.
    pub fn kubelet(&mut self) -> &mut Process {
        &mut self.kubelet
    }

    /// Its container runtime, without which its pods live on.
    pub fn containerd(&mut self) -> &mut Process {
        &mut self.containerd
    }

    /// Waits until containerd answers, after it was started again.
    pub fn wait_for_containerd(&self) -> Result<()> {
        containerd::wait(&self.name, &self.mounts)
    }

    /// Gives it the images of an OCI archive.
    pub fn import(&self, archive: &Path) -> Result<()> {
        containerd::import(&self.mounts, archive)
    }

    /// Where a file or folder of the node lies that only it has, for instance `/etc/cni/net.d`; nowhere in the lab if the
    /// node shares it with the machine.
    pub fn own(&self, path: &str) -> Option<PathBuf> {
        mounts::own(&self.dir, path)
    }

    /// Runs a command with the node's mounts; its standard output.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        self.mounts.run(program, args)
    }

    /// The processes of a pod that runs on it, by the pod's uid.
    pub fn pod_processes(&self, uid: &str) -> Vec<u32> {
        cgroup::pod(&self.cgroup, uid)
    }

    /// Switches it off, as if its power had failed, and cleans its disk.
    pub(crate) fn remove(self, lab: &Lab) -> Result<()> {
        let namespace = lab.netns(&self.name);
        let (name, cgroup, dir) = (self.name.clone(), self.cgroup.clone(), self.dir.clone());
        drop(self);
        netns::kill_all(&[&namespace]).with_context(|| format!("switching off {name}"))?;
        cgroup::remove(&cgroup)?;
        mounts::clean(&dir)
    }

    pub(crate) fn leave(self) {
        for process in [self.kubelet, self.proxy, self.containerd] {
            process.leave();
        }
        self.mounts.leave();
    }
}

/// The plugins that a node has before any network is installed, as Kubernetes' own package `kubernetes-cni` brings them;
/// here they are Debian's.
fn plugins(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for name in PLUGINS {
        let source = Path::new("/usr/lib/cni").join(name);
        fs::copy(&source, folder.join(name)).with_context(|| {
            format!("cannot copy {} (Debian package containernetworking-plugins)", source.display())
        })?;
    }
    Ok(())
}
