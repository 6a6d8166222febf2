//! `usePodCidr` on Kubernetes: pods come and go by the Node's own network, whether the API server is there or not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{Cluster, Lab, Topology, eventually};
use serde_json::json;

use crate::support::{POOL, SOON, annotation, bare, peers, stored};

/// One call of the plugin with the network of podCIDRs.
fn cni(lab: &Lab, command: &str, node: &str, pod: &str) -> Result<Option<Ipv4Addr>> {
    let mut call = lab.cni_call(command, node, pod, "default")?;
    call.config["ipam"] = json!({"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]]});
    let result = lab.cni(&call)?.ok()?;
    let address = result["ips"][0]["address"].as_str().and_then(|text| text.split('/').next());
    Ok(address.and_then(|text| text.parse().ok()))
}

fn add(lab: &Lab, node: &str, pod: &str) -> Result<Ipv4Addr> {
    cni(lab, "ADD", node, pod)?.context("the result has no address")
}

/// A Pod that its node has been told of, but whose sandbox is still to come.
fn expect_pod(cluster: &Cluster, node: &str, pod: &str) {
    cluster.kubelet().unwrap().create(node, pod, "default").unwrap();
    cluster.lab().pod_namespace(pod).unwrap();
}

#[test]
fn pods_of_pod_cidrs_come_and_go_while_the_api_server_is_dead_and_agents_are_killed() {
    let mut cluster = bare(Topology::founding());
    let control_plane = cluster.control_plane().unwrap();
    let pool = POOL.replace("192.168.0.0/16", "10.244.0.0/16");
    control_plane.apply(&format!("{pool}---\n{}", peers(&cluster))).unwrap();
    for node in cluster.node_names() {
        let cidr = format!("10.244.{}.0/24", node.trim_start_matches("node"));
        let patch = json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}).to_string();
        control_plane.kubectl(&["patch", "node", &node, "-p", &patch]).unwrap();
    }
    let env = [("NO_DEFAULT_POOLS", "true"), ("USE_POD_CIDR", "true")];
    cluster.start_agents(&cluster.node_names(), &env).unwrap();
    let lab = Lab::open(cluster.lab().name()).unwrap();
    let mut pods = BTreeMap::new();
    for node in cluster.node_names() {
        let pod = node.replace("node", "pod");
        expect_pod(&cluster, &node, &pod);
        let address = eventually(SOON, "the pod to be attached", || add(&lab, &node, &pod)).unwrap();
        pods.insert(pod, address);
    }
    cluster.wait_converged().unwrap();
    for from in pods.keys() {
        pods.values().for_each(|to| lab.ping_once(from, *to).unwrap());
    }
    let stored = stored(&cluster).unwrap();
    assert!(stored.handles.is_empty() && stored.held().unwrap().is_empty(), "{:?}", stored.handles);
    let said = |pod: &str| {
        annotation(&cluster, &format!("/api/v1/namespaces/default/pods/{pod}"), "cni.projectcalico.org/podIP")
    };
    assert_eq!(said("pod1").unwrap(), format!("{}/32", pods["pod1"]));
    let in_use = "manx.projectcalico.org/pod-cidrs-in-use";
    assert_eq!(annotation(&cluster, "/api/v1/nodes/node1", in_use).unwrap(), "10.244.1.0/24");

    for pod in ["early", "late"] {
        expect_pod(&cluster, "node1", pod);
    }
    cluster.control_plane_mut().unwrap().kill().unwrap();
    pods.insert(
        "early".into(),
        eventually(SOON, "early to be attached", || add(&lab, "node1", "early")).unwrap(),
    );
    cluster.agent("node1").unwrap().kill().unwrap();
    cluster.agent("node1").unwrap().start_again().unwrap();
    pods.insert(
        "late".into(),
        eventually(SOON, "late to be attached", || add(&lab, "node1", "late")).unwrap(),
    );
    cni(&lab, "DEL", "node2", "pod2").unwrap();
    pods.remove("pod2");
    let distinct: std::collections::BTreeSet<_> = pods.values().collect();
    assert_eq!(distinct.len(), pods.len(), "{pods:?}");
    for pod in ["pod3", "pod4", "early", "late"] {
        pods.values().for_each(|to| lab.ping_once(pod, *to).unwrap());
    }

    cluster.control_plane_mut().unwrap().restart().unwrap();
    eventually(SOON, "the objects to be as the pods are", || {
        for pod in ["early", "pod1"] {
            let path = format!("/api/v1/namespaces/default/pods/{pod}");
            let said = annotation(&cluster, &path, "cni.projectcalico.org/podIP")?;
            ensure!(said == format!("{}/32", pods[pod]), "{pod}: {said}");
        }
        Ok(())
    })
    .unwrap();
}
