//! Pods, made before the clock starts and removed after it has stopped: their network namespaces, and on Kubernetes their
//! objects.

use std::path::PathBuf;

use anyhow::Result;
use manx_lab::{Kubelet, Lab, netns};

/// The node of every pod, and their Kubernetes namespace.
const NODE: &str = "node1";
const NAMESPACE: &str = "default";

/// A pod to attach.
pub(crate) struct Pod {
    /// Its name.
    pub(crate) name: String,
    /// `CNI_CONTAINERID`.
    pub(crate) container_id: String,
    /// `CNI_ARGS`; on Kubernetes with the uid of its object.
    pub(crate) args: String,
    /// Its namespace.
    pub(crate) netns: PathBuf,
    /// A number that no other pod of the turn has.
    pub(crate) index: u16,
}

/// The pods of one turn.
pub(crate) struct Pods<'a> {
    kubelet: Option<&'a Kubelet>,
    pub(crate) node: String,
    pub(crate) all: Vec<Pod>,
}

impl<'a> Pods<'a> {
    /// Makes `count` pods in `lab`, and by the hand of `kubelet` their objects. `turn` begins
    /// their names: lower-case letters, digits and dashes.
    pub(crate) fn make(lab: &Lab, kubelet: Option<&'a Kubelet>, turn: &str, count: usize) -> Result<Self> {
        let names: Vec<String> = (0..count).map(|index| format!("{turn}-{index}")).collect();
        netns::add(&names.iter().map(|name| lab.netns(name)).collect::<Vec<_>>())?;
        let mut all = Vec::new();
        for (index, name) in (0..).zip(names) {
            // As the loopback plugin leaves it.
            netns::ip_lines(&lab.netns(&name), &["link set lo up".to_owned()])?;
            if let Some(kubelet) = kubelet {
                kubelet.create(NODE, &name, NAMESPACE)?;
            }
            let call = lab.cni_call("ADD", NODE, &name, NAMESPACE)?;
            let (container_id, args, netns) = (call.container_id, call.args, call.netns);
            all.push(Pod { name, container_id, args, netns, index });
        }
        Ok(Self { kubelet, node: lab.netns(NODE), all })
    }

    /// Removes them; the kernel does it before the next turn and not during it.
    pub(crate) fn remove(self) -> Result<()> {
        let names = self.all.iter().filter_map(|pod| pod.netns.file_name()?.to_str());
        netns::remove(&names.collect::<Vec<_>>())?;
        let mut kubelet = self.kubelet.iter();
        kubelet
            .try_for_each(|kubelet| self.all.iter().try_for_each(|pod| kubelet.forget(&pod.name, NAMESPACE)))
    }
}
