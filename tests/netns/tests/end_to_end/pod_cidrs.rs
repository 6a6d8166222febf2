//! `usePodCidr`: pods that have their addresses from the Node's own network, without IPAM.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use manx_lab::{Cluster, Topology, eventually};
use manx_netns::Stored;
use serde_json::{Value, json};

use crate::support::{SOON, assert_problem, cluster, cni, files_in};

/// Every node has 10.244.N.0/24 of the pool 10.244.0.0/16.
const POOL: (&str, &str) = ("CALICO_IPV4POOL_CIDR", "10.244.0.0/16");
const USED: (&str, &str) = ("USE_POD_CIDR", "true");

fn pod_cidr(node: &str) -> String {
    format!("10.244.{}.0/24", node.trim_start_matches("node"))
}

/// What kube-controller-manager says on Kubernetes.
fn set_pod_cidrs(cluster: &Cluster) {
    for node in cluster.node_names() {
        let cidr = pod_cidr(&node);
        let manifest = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\nspec: {{podCIDR: {cidr}, podCIDRs: [{cidr}]}}\n"
        );
        cluster.write_manifest("nodes", &node, &manifest).unwrap();
    }
}

fn use_pod_cidr(call: &mut manx_lab::Cni) {
    call.config["ipam"] = json!({"type": "host-local", "subnet": "usePodCidr"});
}

/// Attaches a pod with an address of its node's podCIDR.
fn add(cluster: &Cluster, node: &str, pod: &str) -> Result<Ipv4Addr> {
    let lab = cluster.lab();
    lab.pod_namespace(pod)?;
    let result = cni(lab, "ADD", node, pod, use_pod_cidr).ok()?;
    let address = result["ips"][0]["address"].as_str().and_then(|text| text.split('/').next());
    Ok(address.unwrap_or_default().parse()?)
}

fn published(cluster: &Cluster, node: &str) -> Result<Value> {
    let manifest = std::fs::read_to_string(cluster.datastore().join(format!("nodes/{node}.yaml")))?;
    let said = manifest.lines().find(|line| line.contains("manx.projectcalico.org/pod-cidrs-in-use"));
    Ok(said.map_or(Value::Null, |line| line.trim().into()))
}

/// Waits until a node has, or has not, the blackhole of its podCIDR.
fn wait_blackhole(cluster: &Cluster, node: &str, wanted: bool) {
    let blackhole = format!("blackhole {}", pod_cidr(node));
    eventually(SOON, &format!("{blackhole} on {node}: {wanted}"), || {
        let routes = cluster.lab().routes(node)?;
        let there = routes.iter().any(|route| route.starts_with(&blackhole) && route.contains("proto 77"));
        ensure!(there == wanted, "{routes:#?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn pods_have_addresses_of_their_nodes_network_and_an_agent_that_was_killed_knows_who_has_which() {
    let mut cluster = cluster(Topology::founding(), &[POOL, USED]);
    cluster.peer_with_tor().unwrap();
    set_pod_cidrs(&cluster);
    let mut pods = Vec::new();
    for node in cluster.node_names() {
        let pod = node.replace("node", "pod");
        let address = eventually(SOON, "the podCIDR to be known", || {
            manx_lab::netns::remove(&[cluster.lab().netns(&pod)])?;
            add(&cluster, &node, &pod)
        })
        .unwrap();
        assert!(
            pod_cidr(&node).starts_with(&format!("10.244.{}.", address.octets()[2])),
            "{node}: {address}"
        );
        pods.push((pod, address));
    }
    for node in cluster.node_names() {
        wait_blackhole(&cluster, &node, true);
    }
    cluster.wait_converged().unwrap();
    let everybody_reaches_everybody = |pods: &[(String, Ipv4Addr)]| {
        for (from, _) in pods {
            pods.iter().for_each(|(_, to)| cluster_ping(&cluster, from, *to));
        }
    };
    everybody_reaches_everybody(&pods);
    // Nothing is stored about pods, and a repeated ADD gives the same.
    let stored = Stored::read(&cluster.datastore()).unwrap();
    assert_eq!((files_in(&cluster.datastore().join("ipamblocks")), stored.held().unwrap().len()), (0, 0));
    let again = cni(cluster.lab(), "ADD", "node1", "pod1", use_pod_cidr).ok().unwrap();
    assert_eq!(again["ips"][0]["address"], format!("{}/32", pods[0].1));

    cluster.agent("node1").unwrap().kill().unwrap();
    // What the kernel forgot of the route, the link still knows.
    let route = pods[0].1.to_string();
    cluster.lab().exec("node1", &["ip", "route", "del", &route]).unwrap();
    cluster.agent("node1").unwrap().start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    for number in 5..=8 {
        let pod = format!("pod{number}");
        pods.push((pod.clone(), add(&cluster, "node1", &pod).unwrap()));
    }
    let addresses: BTreeSet<Ipv4Addr> = pods.iter().map(|(_, address)| *address).collect();
    assert_eq!(addresses.len(), pods.len(), "{pods:?}");
    cluster.wait_converged().unwrap();
    for (pod, address) in &pods {
        cluster_ping(&cluster, "pod3", *address);
        cluster_ping(&cluster, pod, pods[1].1);
    }

    // DEL needs no more than the handle.
    for (pod, _) in pods.iter().filter(|(pod, _)| pod != "pod2" && pod != "pod3" && pod != "pod4") {
        cni(cluster.lab(), "DEL", "node1", pod, use_pod_cidr).ok().unwrap();
    }
    let links = cluster.lab().exec("node1", &["ip", "-br", "link"]).unwrap();
    assert!(!links.contains("cali"), "{links}");
}

fn cluster_ping(cluster: &Cluster, from: &str, to: Ipv4Addr) {
    cluster.lab().ping_once(from, to).unwrap();
}

#[test]
fn a_node_goes_over_to_its_own_network_and_back_with_its_pods_and_leaves_nothing_behind() {
    let mut cluster = cluster(Topology::one_subnet(2), &[POOL]);
    set_pod_cidrs(&cluster);
    let old = cluster.lab().pod_add("node1", "old", "default").unwrap();
    let far = cluster.lab().pod_add("node2", "far", "default").unwrap();

    let program = cluster.agent_program("node1", &[POOL, USED]).unwrap();
    let agent = cluster.agent("node1").unwrap();
    agent.kill().unwrap();
    agent.set_program(program);
    agent.start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    wait_blackhole(&cluster, "node1", true);
    let new = add(&cluster, "node1", "new").unwrap();
    eventually(SOON, "the node to say what it uses", || {
        ensure!(published(&cluster, "node1")?.to_string().contains("10.244.1.0/24"), "not yet");
        Ok(())
    })
    .unwrap();
    cluster.wait_converged().unwrap();
    for (from, to) in [("far", old.address), ("far", new), ("new", old.address), ("old", far.address)] {
        cluster_ping(&cluster, from, to);
    }

    let program = cluster.agent_program("node1", &[POOL]).unwrap();
    let agent = cluster.agent("node1").unwrap();
    agent.kill().unwrap();
    agent.set_program(program);
    agent.start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    // Its network is the node's while a pod lives there.
    wait_blackhole(&cluster, "node1", true);
    cluster.wait_converged().unwrap();
    cluster_ping(&cluster, "far", new);
    cni(cluster.lab(), "DEL", "node1", "new", use_pod_cidr).ok().unwrap();
    wait_blackhole(&cluster, "node1", false);
    eventually(SOON, "the node to say nothing any more", || {
        ensure!(published(&cluster, "node1")?.is_null(), "{}", published(&cluster, "node1")?);
        Ok(())
    })
    .unwrap();
    cluster_ping(&cluster, "far", old.address);
    Stored::read(&cluster.datastore()).unwrap().audit().unwrap();
}

#[test]
fn ipip_the_tunnel_has_the_address_after_the_networks_own_and_ipam_holds_none_for_it() {
    let always = ("CALICO_IPV4POOL_IPIP", "Always");
    let cluster = cluster(Topology::one_subnet(2), &[POOL, USED, always]);
    set_pod_cidrs(&cluster);
    let attach = |node: &str, pod: &str| {
        eventually(SOON, "the podCIDR to be known", || {
            manx_lab::netns::remove(&[cluster.lab().netns(pod)])?;
            add(&cluster, node, pod)
        })
        .unwrap()
    };
    let (_, two) = (attach("node1", "pod1"), attach("node2", "pod2"));
    for (node, other) in [("node1", "node2"), ("node2", "node1")] {
        let tunnel = pod_cidr(node).replace(".0/24", ".1/32");
        let route = pod_cidr(other);
        eventually(SOON, &format!("the tunnel of {node}"), || {
            let device = cluster.lab().exec(node, &["ip", "-o", "addr", "show", "tunl0"])?;
            ensure!(device.contains(&tunnel), "{device}");
            let routes = cluster.lab().routes(node)?;
            ensure!(
                routes.iter().any(|it| it.starts_with(&route) && it.contains("dev tunl0")),
                "{routes:#?}"
            );
            Ok(())
        })
        .unwrap();
    }
    cluster_ping(&cluster, "pod1", two);
    assert!(Stored::read(&cluster.datastore()).unwrap().held().unwrap().is_empty());
}

#[test]
fn a_node_without_a_network_of_its_own_says_so_and_its_pods_wait() {
    let cluster = cluster(Topology::one_subnet(1), &[POOL, USED]);
    assert_problem(&cluster, "node1", &["spec.podCIDRs", "node1"]);
    cluster.lab().pod_namespace("pod").unwrap();
    let reply = cni(cluster.lab(), "ADD", "node1", "pod", use_pod_cidr);
    assert_eq!(reply.error_code(), Some(11), "{reply:?}");
    assert!(reply.json["details"].as_str().unwrap().contains("spec.podCIDRs"), "{reply:?}");
}
