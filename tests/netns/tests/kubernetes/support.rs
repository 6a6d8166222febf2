//! Clusters on Kubernetes as the tests raise them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{Cluster, Lab, Options, Topology, eventually};
use manx_netns::{Stored, expected_routes};
use serde_json::Value;

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

/// The founding cluster in `mode`: kubectl has applied the pool and the peers, and one pod `podN` is on every `nodeN`.
pub(crate) fn founding(mode: &str) -> Cluster {
    let mut cluster = bare(Topology::founding());
    let objects =
        format!("{}---\n{}", POOL.replace("ipipMode: Never", &format!("ipipMode: {mode}")), peers(&cluster));
    cluster.control_plane().unwrap().apply(&objects).unwrap();
    cluster.start_agents(&cluster.node_names(), &[("NO_DEFAULT_POOLS", "true")]).unwrap();
    for node in cluster.node_names() {
        cluster.pod_add(&node, &node.replace("node", "pod"), "default").unwrap();
    }
    cluster.wait_mode(mode).unwrap();
    cluster.wait_converged().unwrap();
    cluster
}

/// The ToR as a peer of every node.
pub(crate) fn peers(cluster: &Cluster) -> String {
    cluster.tor_peers().unwrap()
}

/// Waits until `ip route` on every node is exactly the expected table.
pub(crate) fn assert_routes(cluster: &Cluster, mode: &str) {
    for node in cluster.node_names() {
        eventually(SOON, &format!("the routes of {node} in mode {mode}"), || {
            let expected = expected_routes(cluster, &node, mode)?;
            let found = cluster.lab().routes(&node)?.into_iter().collect();
            ensure!(expected == found, "expected {expected:#?}, found {found:#?}");
            Ok(())
        })
        .unwrap();
    }
}

/// Pings from every pod of the lab to every other.
pub(crate) fn assert_everybody_reaches_everybody(cluster: &Cluster) {
    let pods = cluster.lab().pods().unwrap();
    for from in &pods {
        for to in &pods {
            cluster.lab().ping_once(&from.name, to.address).unwrap();
        }
    }
}

/// What IPAM has stored.
pub(crate) fn stored(cluster: &Cluster) -> Result<Stored> {
    Stored::in_kubernetes(cluster.control_plane()?)
}

/// One object as JSON: `/api/v1/nodes/node1`, say.
pub(crate) fn object(cluster: &Cluster, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.control_plane()?.get(path)?)?)
}

/// An annotation of an object; one that is missing is an error.
pub(crate) fn annotation(cluster: &Cluster, path: &str, key: &str) -> Result<String> {
    let object = object(cluster, path)?;
    let found = object["metadata"]["annotations"][key].as_str();
    found.map(str::to_owned).with_context(|| format!("{path} has no {key}: {}", object["metadata"]))
}
