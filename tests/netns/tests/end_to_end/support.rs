//! Clusters as the tests raise them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use manx_lab::{Cluster, CniReply, Lab, Options, Topology, eventually};
use manx_netns::expected_routes;
use serde_json::Value;

/// For what must happen, but for which no promise of time is made.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The host behind the ToR.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 10);
/// Pods show their own addresses outside, as where routers know the way to them.
pub(crate) const NO_NAT: (&str, &str) = ("CALICO_IPV4POOL_NAT_OUTGOING", "false");
/// The agent alone: nodes are not connected by it.
pub(crate) const NO_BGP: (&str, &str) = ("CALICO_NETWORKING_BACKEND", "none");

/// A cluster with an agent on every node.
pub(crate) fn cluster(topology: Topology, env: &[(&str, &str)]) -> Cluster {
    Cluster::start(Lab::up(Options::unique("e2e", topology)).unwrap(), env).unwrap()
}

/// The founding cluster in `mode`, without NAT, with BIRD, one pod `podN` on every `nodeN`, and everybody knowing every route.
pub(crate) fn founding(mode: &str) -> Cluster {
    let cluster = cluster(Topology::founding(), &[("CALICO_IPV4POOL_IPIP", mode), NO_NAT]);
    cluster.peer_with_tor().unwrap();
    for node in cluster.node_names() {
        cluster.lab().pod_add(&node, &node.replace("node", "pod"), "default").unwrap();
    }
    cluster.wait_mode(mode).unwrap();
    cluster.wait_converged().unwrap();
    cluster
}

/// Waits until `ip route` on every node is exactly the expected table: all lines, nothing else.
pub(crate) fn assert_routes(cluster: &Cluster, mode: &str) {
    for node in cluster.node_names() {
        assert_routes_of(cluster, &node, mode);
    }
}

/// The same of one node.
pub(crate) fn assert_routes_of(cluster: &Cluster, node: &str, mode: &str) {
    eventually(SOON, &format!("the routes of {node} in mode {mode}"), || {
        let expected = expected_routes(cluster, node, mode)?;
        let found: BTreeSet<String> = cluster.lab().routes(node)?.into_iter().collect();
        let missing: Vec<_> = expected.difference(&found).collect();
        let strange: Vec<_> = found.difference(&expected).collect();
        ensure!(
            missing.is_empty() && strange.is_empty(),
            "missing: {missing:#?}, not expected: {strange:#?}"
        );
        Ok(())
    })
    .unwrap();
}

/// Waits until a problem that contains all `words` is in the status of a node.
pub(crate) fn assert_problem(cluster: &Cluster, node: &str, words: &[&str]) {
    eventually(SOON, &format!("a problem on {node} that says {words:?}"), || {
        let problems = problems(cluster, node)?;
        let said = problems.iter().any(|problem| words.iter().all(|word| problem.contains(word)));
        ensure!(said, "the problems are {problems:#?}");
        Ok(())
    })
    .unwrap();
}

/// What a node complains about.
pub(crate) fn problems(cluster: &Cluster, node: &str) -> Result<Vec<String>> {
    let status = cluster.status(node)?;
    let problems = status["problems"].as_array().into_iter().flatten();
    Ok(problems.filter_map(Value::as_str).map(str::to_owned).collect())
}

/// One call of the plugin, changed by `change`.
pub(crate) fn cni(
    lab: &Lab,
    command: &str,
    node: &str,
    pod: &str,
    change: impl FnOnce(&mut manx_lab::Cni),
) -> CniReply {
    let mut call = lab.cni_call(command, node, pod, "default").unwrap();
    change(&mut call);
    lab.cni(&call).unwrap()
}

/// How many files are in a directory; a missing one has none.
pub(crate) fn files_in(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, |entries| entries.flatten().count())
}
