//! Where the agents of a cluster keep their objects: a directory of manifests, or a real API server in the lab.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use manx_kubernetes::{ControlPlane, Options};

use crate::kubernetes;
use crate::{Lab, Node};

/// The objects of a cluster.
#[derive(Debug)]
pub(crate) enum Store {
    /// A directory, `datastore` in that of the lab.
    Directory(PathBuf),
    /// A control plane on the host `outside`.
    Kubernetes(Box<ControlPlane>),
}

impl Store {
    /// The directory of a lab; the first agent makes it.
    pub(crate) fn directory(lab: &Lab) -> Store {
        Store::Directory(lab.dir().join("datastore"))
    }

    /// A control plane with our kinds, the agents' rights, and every node registered.
    pub(crate) fn kubernetes(lab: &Lab, options: Options) -> Result<Store> {
        kubernetes::start(lab, options).map(Box::new).map(Store::Kubernetes)
    }

    /// What the agent of a node is told about it.
    pub(crate) fn agent_env(&self, node: &Node<'_>) -> Result<Vec<(&'static str, OsString)>> {
        Ok(match self {
            Store::Directory(directory) => {
                vec![("MANX_DATASTORE", format!("file:{}", directory.display()).into())]
            }
            Store::Kubernetes(control_plane) => {
                let kubeconfig = control_plane.kubeconfig(&kubernetes::user(node.name()))?;
                vec![("MANX_DATASTORE", "kubernetes".into()), ("KUBECONFIG", kubeconfig.into())]
            }
        })
    }

    /// Stores one object as a person does it: with an editor in one step, or with kubectl. `kind` is the folder, for
    /// instance `bgppeers`.
    pub(crate) fn apply(&self, kind: &str, name: &str, manifest: &str) -> Result<()> {
        match self {
            Store::Directory(directory) => write(directory, kind, name, manifest),
            Store::Kubernetes(control_plane) => control_plane.apply(manifest).map(drop),
        }
    }

    /// Whether an object is there.
    pub(crate) fn has(&self, kind: &str, name: &str) -> bool {
        match self {
            Store::Directory(directory) => directory.join(format!("{kind}/{name}.yaml")).exists(),
            Store::Kubernetes(control_plane) => control_plane.get(&kubernetes::path(kind, name)).is_ok(),
        }
    }

    /// Changes `spec.ipipMode` of a pool.
    pub(crate) fn set_mode(&self, pool: &str, mode: &str) -> Result<()> {
        match self {
            Store::Directory(directory) => {
                let file = directory.join(format!("ippools/{pool}.yaml"));
                let text =
                    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let change = |line: &str| match line.split_once("ipipMode:") {
                    Some((indent, _)) => format!("{indent}ipipMode: {mode}\n"),
                    None => format!("{line}\n"),
                };
                write(directory, "ippools", pool, &text.lines().map(change).collect::<String>())
            }
            Store::Kubernetes(control_plane) => {
                let patch = format!("{{\"spec\":{{\"ipipMode\":\"{mode}\"}}}}");
                control_plane.kubectl(&["patch", "ippool", pool, "--type=merge", "-p", &patch]).map(drop)
            }
        }
    }

    /// The control plane.
    pub(crate) fn control_plane(&self) -> Result<&ControlPlane> {
        match self {
            Store::Kubernetes(control_plane) => Ok(control_plane),
            Store::Directory(directory) => bail!("the datastore is the directory {}", directory.display()),
        }
    }

    /// The control plane, for what is to be done to it.
    pub(crate) fn control_plane_mut(&mut self) -> Result<&mut ControlPlane> {
        match self {
            Store::Kubernetes(control_plane) => Ok(control_plane),
            Store::Directory(directory) => bail!("the datastore is the directory {}", directory.display()),
        }
    }

    /// Leaves it running after this process has ended.
    pub(crate) fn leave(self) -> Result<()> {
        match self {
            Store::Directory(_) => Ok(()),
            Store::Kubernetes(control_plane) => control_plane.leave(),
        }
    }
}

/// In one step, so that no agent reads half of it.
fn write(directory: &Path, kind: &str, name: &str, text: &str) -> Result<()> {
    let folder = directory.join(kind);
    let unfinished = directory.with_file_name(format!("{kind}-{name}.new"));
    fs::create_dir_all(&folder)?;
    fs::write(&unfinished, text)?;
    let file = folder.join(format!("{name}.yaml"));
    fs::rename(&unfinished, &file).with_context(|| format!("cannot write {}", file.display()))
}
