//! Route reflectors instead of the mesh, set up as Calico's documentation has it, and one of the two that dies.
//!
//! Five nodes on one link: node1 and node2 reflect, the others are their clients. The router between them knows nothing
//! of pods: what a node has no route for is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use manx_lab::{Cluster, Fabric, Lab, NodeSpec, Ping, Pod, RouteEvent, RouteMonitor, Topology, eventually};

use super::{apply, kubectl};
use crate::support::{POOL, SOON, bare};

const PACE: Duration = Duration::from_millis(20);
/// Enough answers after the last change to see a loss that it causes.
const AFTERWARDS: usize = 25;

const REFLECTORS: [&str; 2] = ["node1", "node2"];

const OBJECTS: &str = "
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: peer-with-route-reflectors}
spec: {nodeSelector: all(), peerSelector: route-reflector == 'true'}
";

fn topology() -> Topology {
    let mut topology = Topology::founding().fabric(Fabric::Router);
    let subnet = topology.subnets[0];
    topology.subnets.truncate(1);
    topology.nodes = (1..=5)
        .zip(subnet.hosts().skip(94))
        .map(|(number, address)| NodeSpec::new(&format!("node{number}"), address))
        .collect();
    topology
}

/// Reflectors of these clusters, and a pod on every node but node5, which has no block yet.
fn reflected(ids: [&str; 2]) -> Cluster {
    let mut cluster = bare(topology());
    apply(&cluster, &format!("{POOL}---{OBJECTS}"));
    for (node, id) in REFLECTORS.iter().zip(ids) {
        kubectl(
            &cluster,
            &["annotate", "node", node, &format!("projectcalico.org/RouteReflectorClusterID={id}")],
        );
        kubectl(&cluster, &["label", "node", node, "route-reflector=true"]);
    }
    cluster.start_agents(&cluster.node_names(), &[("NO_DEFAULT_POOLS", "true")]).unwrap();
    for node in ["node1", "node2", "node3", "node4"] {
        cluster.pod_add(node, &node.replace("node", "pod"), "default").unwrap();
    }
    wait_for_routes(&cluster, &cluster.node_names());
    cluster
}

/// Waits until these nodes have a route to every block of the lab's pods.
fn wait_for_routes(cluster: &Cluster, nodes: &[String]) {
    let pods = cluster.lab().pods().unwrap();
    eventually(SOON, "every node to have a route to every pod", || {
        for node in nodes {
            let status = cluster.status(node)?;
            ensure!(status["inSync"] == true && status["inDesiredState"] == true, "{node}: {status}");
            for pod in &pods {
                let route = cluster.lab().exec(node, &["ip", "route", "get", &pod.address.to_string()])?;
                ensure!(pod.node == *node || !route.contains("via 172.171.5.1 "), "{node} to {pod:?}: {route}");
            }
        }
        Ok(())
    })
    .unwrap();
}

/// Pings from every pod to every other, but not between those that `except` says.
fn assert_reached(lab: &Lab, except: impl Fn(&Pod, &Pod) -> bool) {
    let pods = lab.pods().unwrap();
    for (from, to) in pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))) {
        if !except(from, to) {
            lab.ping_once(&from.name, to.address).unwrap();
        }
    }
}

/// Pings between all kinds of nodes, and what becomes of the routes to blocks.
struct Watch {
    pings: Vec<(String, Ping)>,
    monitors: Vec<RouteMonitor>,
}

impl Watch {
    fn over(lab: &Lab) -> Watch {
        let paths = [("pod1", "pod2"), ("pod1", "pod3"), ("pod4", "pod1"), ("pod2", "pod4"), ("pod3", "pod4")];
        let ping = |(from, to)| {
            let address = lab.pod(to).unwrap().address;
            (format!("{from} to {to}"), lab.ping(from, address, PACE).unwrap())
        };
        let monitors = ["node1", "node2", "node3", "node4"].map(|node| lab.route_monitor(node).unwrap());
        Watch { pings: paths.map(ping).into(), monitors: monitors.into() }
    }

    /// Fails if a packet was lost, or a route to one of these blocks deleted or written again.
    fn judge(self, what: &str, blocks: &BTreeSet<String>) {
        for (path, ping) in self.pings {
            ping.wait_for_more(SOON, AFTERWARDS).with_context(|| format!("{what}: {path}")).unwrap();
            let report = ping.stop().unwrap();
            assert!(report.lost.is_empty(), "{what}, {path}: lost {:?} of {}", report.lost, report.sent);
        }
        for monitor in self.monitors {
            let of_block = |event: &RouteEvent| blocks.iter().any(|block| event.route.contains(block));
            let events: Vec<_> = monitor.stop().unwrap().into_iter().filter(of_block).collect();
            assert!(events.is_empty(), "{what}: {events:#?}");
        }
    }
}

/// node1, a reflector, ends and comes back; meanwhile node5 claims its first block.
fn one_dies_and_comes_back(ids: [&str; 2], what: &str, end: impl FnOnce(&mut Cluster)) {
    let mut cluster = reflected(ids);
    let lab = Lab::open(cluster.lab().name()).unwrap();
    assert_reached(&lab, |_, _| false);
    let blocks = cluster.blocks().unwrap().into_keys().collect();
    let living: Vec<String> = cluster.node_names().into_iter().filter(|node| node != "node1").collect();

    let watch = Watch::over(&lab);
    end(&mut cluster);
    assert_reached(&lab, |_, _| false);
    cluster.pod_add("node5", "pod5", "default").unwrap();
    wait_for_routes(&cluster, &living);
    // Nobody tells node1's kernel of a block that is new while its agent is away.
    let between = |from: &Pod, to: &Pod| from.node == "node1" && to.node == "node5";
    assert_reached(&lab, |from, to| between(from, to) || between(to, from));

    cluster.agent("node1").unwrap().start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    wait_for_routes(&cluster, &cluster.node_names());
    assert_reached(&lab, |_, _| false);
    watch.judge(what, &blocks);
}

#[test]
fn a_reflector_that_is_killed_costs_no_packet_and_the_other_of_its_cluster_spreads_what_is_new() {
    one_dies_and_comes_back(["244.0.0.1", "244.0.0.1"], "kill -9, one cluster", |cluster| {
        cluster.agent("node1").unwrap().kill().unwrap();
    });
}

#[test]
fn a_reflector_that_is_killed_costs_no_packet_and_the_other_of_another_cluster_spreads_what_is_new() {
    one_dies_and_comes_back(["244.0.0.1", "244.0.0.2"], "kill -9, two clusters", |cluster| {
        cluster.agent("node1").unwrap().kill().unwrap();
    });
}

#[test]
fn a_reflector_that_is_stopped_costs_no_packet_and_the_other_spreads_what_is_new() {
    one_dies_and_comes_back(["244.0.0.1", "244.0.0.1"], "SIGTERM, one cluster", |cluster| {
        cluster.agent("node1").unwrap().stop(SOON).unwrap();
    });
}
