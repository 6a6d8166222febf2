//! A whole Kubernetes in a lab: its control plane on the host outside, and real nodes, with nothing in /etc/cni/net.d.
//! What becomes of it is up to who installs a network: by Helm, with the chart and the image of this tree, or another.
//!
//! A cluster of two nodes is up in some 10 s and takes 1.2 GiB.

mod install;
mod pods;
mod ptp;
mod web;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_kubernetes::{ControlPlane, Options};
use serde_json::Value;

use crate::topology::OUTSIDE_HOST;
use crate::{Lab, Machine, eventually, get, kubernetes_image, machine};

pub use install::NAMESPACE as AGENTS;
pub use pods::KubePod;
pub use web::{HOST_PORT, PORT, Reached, SERVICE};

/// The address of the service of DNS, in the range of services (10.96.0.0/16).
pub const DNS_SERVICE: &str = "10.96.0.10";
/// The addresses of pods, as kubeadm is told them (`--pod-network-cidr`): the pool's.
pub const POD_NET: &str = "192.168.0.0/16";
/// As an administrator installs it, or kubeadm.
const COREDNS: &str = include_str!("kube_cluster/coredns.yaml");
/// What every node has.
const IMAGES: [&str; 3] = ["pause", "busybox", "coredns"];
/// How long a node may take to register itself, and pods to start, on a machine that builds at the same time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A control plane and real nodes. All of it ends with the value, unless it is [kept](KubeCluster::keep).
#[derive(Debug)]
pub struct KubeCluster {
    // In the order in which they are to end.
    machines: BTreeMap<String, Machine>,
    control_plane: ControlPlane,
    images: Vec<PathBuf>,
    lab: Lab,
}

impl KubeCluster {
    /// Raises a cluster of these nodes of the lab; it may have others, which are added later. Beside what every node has
    /// it gets the images of these archives. DNS is installed and, without a network, waits for it as the nodes do.
    pub fn start(lab: Lab, nodes: &[&str], images: &[PathBuf]) -> Result<KubeCluster> {
        ensure!(lab.topology().outside, "Kubernetes needs the host outside, on which it runs");
        let options = Options::new()
            .namespace(&lab.netns("outside"), OUTSIDE_HOST.into())
            .outliving(lab.dir().join("kubernetes"))
            .whole();
        let own: Vec<PathBuf> = IMAGES.iter().map(|name| kubernetes_image(name)).collect::<Result<_>>()?;
        let images = own.into_iter().chain(images.iter().cloned()).collect();
        let control_plane = ControlPlane::start(machine::users(options, &lab))?;
        let mut cluster = KubeCluster { machines: BTreeMap::new(), control_plane, images, lab };
        let machines: Result<Vec<Machine>> = std::thread::scope(|scope| {
            let cluster = &cluster;
            let starting: Vec<_> =
                nodes.iter().map(|node| scope.spawn(move || cluster.machine_of(node))).collect();
            let ended = starting.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended.map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        cluster.machines =
            machines?.into_iter().map(|machine| (machine.name().to_owned(), machine)).collect();
        nodes.iter().try_for_each(|node| cluster.wait_for_registration(node))?;
        cluster.control_plane.apply(COREDNS)?;
        Ok(cluster)
    }

    /// Adds a node of the lab to the cluster; it has registered itself when this returns.
    pub fn add_node(&mut self, node: &str) -> Result<()> {
        ensure!(!self.machines.contains_key(node), "{node} is in the cluster already");
        let machine = self.machine_of(node)?;
        self.machines.insert(node.to_owned(), machine);
        self.wait_for_registration(node)
    }

    /// Switches a node off, cleans its disk and deletes its object, as an administrator does after `kubectl drain`.
    pub fn remove_node(&mut self, node: &str) -> Result<()> {
        let machine = self.machines.remove(node).with_context(|| format!("{node} is not in the cluster"))?;
        machine.remove(&self.lab)?;
        self.kubectl(&["delete", "node", node]).map(drop)
    }

    /// A node.
    pub fn machine(&self, node: &str) -> Result<&Machine> {
        self.machines.get(node).with_context(|| format!("{node} is not in the cluster"))
    }

    /// A node, for what is to be done to it.
    pub fn machine_mut(&mut self, node: &str) -> Result<&mut Machine> {
        self.machines.get_mut(node).with_context(|| format!("{node} is not in the cluster"))
    }

    /// All nodes of the cluster, by name.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values()
    }

    /// The lab below.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Runs the real kubectl as `admin`; its standard output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.control_plane.kubectl(args)
    }

    /// An object, or a list of them, as the API server has it.
    pub fn object(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.control_plane.get(path)?)?)
    }

    /// Waits until every node is Ready.
    pub fn wait_ready(&self) -> Result<()> {
        eventually(PATIENCE, "every node to be Ready", || {
            for name in self.machines.keys() {
                let node = self.object(&format!("/api/v1/nodes/{name}"))?;
                let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
                let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
                let ready = ready.with_context(|| format!("{name} says nothing of it"))?;
                ensure!(ready["status"] == "True", "{name}: {}", ready["message"]);
            }
            Ok(())
        })
    }

    /// Waits until a Deployment or DaemonSet (`deployment/web`) has all its pods, of its newest version.
    pub fn wait_rolled_out(&self, namespace: &str, what: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", (PATIENCE * crate::slowness()).as_secs());
        self.kubectl(&["-n", namespace, "rollout", "status", what, &timeout]).map(drop)
    }

    /// Leaves everything up after this process has ended.
    pub fn keep(self) -> Result<()> {
        self.machines.into_values().for_each(Machine::leave);
        self.control_plane.leave()?;
        self.lab.keep()
    }

    fn machine_of(&self, node: &str) -> Result<Machine> {
        Machine::start(&self.lab, node, &self.control_plane, &self.images)
    }

    fn wait_for_registration(&self, node: &str) -> Result<()> {
        eventually(PATIENCE, &format!("{node} to register itself"), || {
            self.object(&format!("/api/v1/nodes/{node}")).map(drop)
        })
    }
}
