//! What the agents' user may do, asked of the API server itself.

use manx_lab::{Topology, eventually};

use crate::support::{SOON, bare, peers};

#[test]
fn nothing_that_an_agent_asks_for_is_refused() {
    let mut cluster = bare(Topology::founding().keeping(&["node1", "node3"]));
    let mark = cluster.control_plane().unwrap().audit().mark().unwrap();
    // A BGP session with a password, an object that is wrong, and a pool that the agents are to make.
    let objects = format!("{}---\n{PASSWORD}---\n{WRONG}", peers(&cluster));
    cluster.control_plane().unwrap().apply(&objects).unwrap();
    cluster.start_agents(&["node1", "node3"], &[("CALICO_IPV4POOL_IPIP", "Never")]).unwrap();
    cluster.pod_add("node1", "cat", "default").unwrap();
    let events = || cluster.control_plane()?.kubectl(&["get", "events", "-A"]);
    eventually(SOON, "an event about the wrong object", || {
        let events = events()?;
        anyhow::ensure!(events.contains("bgppeer/wrong"), "{events}");
        Ok(())
    })
    .unwrap();
    cluster.pod_del("cat").unwrap();
    let requests = cluster.control_plane().unwrap().audit().since(mark).unwrap();
    let of_agents = requests.filter(|request| request.user.starts_with("manx-"));
    println!("{:#?}", of_agents.table());
    let refused = of_agents.filter(|request| request.code == Some(403));
    assert_eq!(refused.count(), 0, "{refused:#?}");
    // What they did ask for, so that nothing was refused in vain.
    for (verb, resource) in [("watch", "secrets"), ("patch", "pods/status"), ("patch", "nodes/status")] {
        assert!(of_agents.count_of(verb, resource) > 0, "no {verb} of {resource}");
    }
}

const PASSWORD: &str = "
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: signed}
spec:
  node: node1
  peerIP: 10.99.0.77
  asNumber: 65077
  password: {secretKeyRef: {name: bgp, key: signed}}
";
const WRONG: &str = "
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: wrong}
spec: {nodeSelector: 'has(', peerIP: 10.99.0.78, asNumber: 65078}
";

#[test]
fn an_agent_may_do_what_it_does_and_can_change_no_workload_node_or_secret() {
    let cluster = bare(Topology::founding().keeping(&["node1"]));
    let control_plane = cluster.control_plane().unwrap();
    let agent = |verb: &str, resource: &str, namespace: &str| {
        let (whole, part) =
            resource.split_once("/status").map_or((resource, ""), |(whole, _)| (whole, "status"));
        let part = format!("--subresource={part}");
        let question =
            ["auth", "can-i", verb, whole, &part, "-n", namespace, "--as=manx-node1", "--as-group=manx"];
        // kubectl ends with 1 when the answer is no, and so says it in an error.
        let answer = control_plane.kubectl(&question).unwrap_or_else(|error| format!("{error:#}"));
        answer.trim() == "yes"
    };
    for (verb, resource, namespace) in [
        ("watch", "pods", "default"),
        ("patch", "pods/status", "default"),
        ("patch", "nodes/status", "default"),
        ("update", "ipamblocks.crd.projectcalico.org", "default"),
        ("get", "leases.coordination.k8s.io/manx-leader", "kube-system"),
        ("list", "secrets", "kube-system"),
    ] {
        assert!(agent(verb, resource, namespace), "it cannot {verb} {resource} in {namespace}");
    }
    for (verb, resource, namespace) in [
        ("patch", "pods", "default"),
        ("delete", "pods", "default"),
        ("create", "pods", "kube-system"),
        ("patch", "nodes", "default"),
        ("delete", "nodes", "default"),
        ("list", "secrets", "default"),
        ("update", "secrets", "kube-system"),
        ("delete", "ippools.crd.projectcalico.org", "default"),
        ("update", "bgppeers.crd.projectcalico.org", "default"),
        ("create", "customresourcedefinitions.apiextensions.k8s.io", "default"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", "default"),
    ] {
        assert!(!agent(verb, resource, namespace), "it can {verb} {resource} in {namespace}");
    }
}
