//! Where the agent keeps its objects, and the node on which it is measured.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use manx_lab::{Cluster, Fabric, Kubelet, Lab, Options, Topology, eventually, netns};

use crate::plugin::Plugin;
use crate::pods::Pods;

/// For what happens soon, on a machine that builds at the same time.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// For the pods with two addresses; the agent makes the pool of the others.
const IPV6_POOL: &str = "\
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata:
  name: bench-ipv6
spec:
  cidr: fd00:10:244::/112
";

/// What `MANX_DATASTORE` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Datastore {
    /// A directory of manifests.
    File,
    /// A real kube-apiserver with its etcd, both on this machine.
    Kubernetes,
}

impl fmt::Display for Datastore {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::File => "file",
            Self::Kubernetes => "kubernetes",
        })
    }
}

impl Datastore {
    /// A node with an agent that speaks no BGP, and pools of both families.
    pub(crate) fn cluster(self) -> Result<Cluster> {
        let env = [("CALICO_NETWORKING_BACKEND", "none")];
        let cluster = match self {
            Self::File => Cluster::start(one_node("bench")?, &env)?,
            Self::Kubernetes => {
                // The API server is on the host outside.
                let topology = Topology::founding().keeping(&["node1"]).fabric(Fabric::Router);
                let lab = Lab::up(Options::unique("bench", topology))?;
                // What it is asked it need not write down: that would be a part of its time.
                let options = manx_kubernetes::Options::new().api_server_arg("--audit-log-path=");
                let mut cluster = Cluster::on_control_plane(lab, options)?;
                cluster.start_agents(&["node1"], &env)?;
                cluster
            }
        };
        cluster.write_manifest("ippools", "bench-ipv6", IPV6_POOL)?;
        Ok(cluster)
    }
}

/// A lab of one node without a router.
pub(crate) fn one_node(name: &str) -> Result<Lab> {
    Lab::up(Options::unique(name, Topology::one_subnet(1)))
}

/// Attaches a pod and detaches it until that has gone well: the pools are known then, and a block is claimed.
pub(crate) fn warm_up(plugin: &Plugin<'_>, kubelet: Option<&Kubelet>, turn: &str) -> Result<()> {
    let pods = Pods::make(plugin.lab(), kubelet, turn, 1)?;
    eventually(SOON, &format!("{} to attach a pod", plugin.name()), || {
        let call =
            |verb| netns::within(&pods.node, || pods.all.iter().try_for_each(|pod| plugin.call(verb, pod)))?;
        let attached = call("ADD");
        call("DEL").and(attached)
    })?;
    pods.remove()
}
