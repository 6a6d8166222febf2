//! What the agents' user may do, asked of the API server itself.

use manx_lab::Topology;

use crate::support::bare;

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
        println!("{verb} {resource} in {namespace}: {}", answer.trim());
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
