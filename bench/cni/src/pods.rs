//! Network namespaces for pods, made before the clock starts and removed after it has stopped.

use std::path::PathBuf;

use anyhow::Result;
use manx_lab::{Lab, netns};

/// A pod to attach.
pub(crate) struct Pod {
    /// Its name, and the container's id.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) netns: PathBuf,
    /// A number that no other pod of the run has.
    pub(crate) index: u16,
}

/// The pods of one turn.
pub(crate) struct Pods {
    pub(crate) node: String,
    pub(crate) all: Vec<Pod>,
}

impl Pods {
    /// Makes `count` namespaces in `lab`.
    pub(crate) fn make(lab: &Lab, turn: &str, count: usize) -> Result<Self> {
        let pod = |index: u16| {
            let name = format!("{turn}-{index}");
            Pod { netns: netns::path(&lab.netns(&name)), name, index }
        };
        let all: Vec<Pod> = (0..u16::try_from(count)?).map(pod).collect();
        netns::add(&all.iter().map(|pod| lab.netns(&pod.name)).collect::<Vec<_>>())?;
        // As the loopback plugin leaves them.
        for pod in &all {
            netns::ip_lines(&lab.netns(&pod.name), &["link set lo up".to_owned()])?;
        }
        Ok(Self { node: lab.netns("node1"), all })
    }

    /// Removes the namespaces; the kernel does it before the next turn and not during it.
    pub(crate) fn remove(self) -> Result<()> {
        let names = self.all.iter().filter_map(|pod| pod.netns.file_name()?.to_str());
        netns::remove(&names.collect::<Vec<_>>())
    }
}
