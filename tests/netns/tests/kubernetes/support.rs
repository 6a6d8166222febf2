//! Clusters on Kubernetes as the tests raise them.

use std::time::Duration;

use manx_lab::{Cluster, Lab, Options, Topology};

/// For what must happen, but for which no promise of time is made.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The pool of most tests.
pub(crate) const POOL: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 192.168.0.0/16, blockSize: 26, ipipMode: Never, vxlanMode: Never, natOutgoing: false, nodeSelector: all()}
";

/// A control plane and registered nodes, without an agent.
pub(crate) fn bare(topology: Topology) -> Cluster {
    Cluster::on_kubernetes(Lab::up(Options::unique("k8s", topology)).unwrap()).unwrap()
}
