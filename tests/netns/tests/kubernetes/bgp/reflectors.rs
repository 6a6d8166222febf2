//! Route reflectors instead of the mesh, set up as Calico's documentation has it, and one of the two that dies.
//!
//! node1 and node2 reflect, the others are their clients. Either all are on one link, and the router there knows nothing
//! of pods: what a node has no route for is lost. Or the reflectors are in one of two subnets, and all nodes peer with the
//! ToR besides.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use manx_lab::{Cluster, Fabric, Lab, NodeSpec, Ping, Pod, RouteEvent, RouteMonitor, Topology, eventually};

use super::tor::wait_told;
use super::{apply, block, kubectl};
use crate::support::{POOL, SOON, assert_everybody_reaches_everybody, bare, peers};

const PACE: Duration = Duration::from_millis(20);
/// Enough answers after the last change to see a loss that it causes.
const AFTERWARDS: usize = 25;

const REFLECTORS: [&str; 2] = ["node1", "node2"];
const ONE: [&str; 2] = ["244.0.0.1", "244.0.0.1"];
const TWO: [&str; 2] = ["244.0.0.1", "244.0.0.2"];

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

fn one_link() -> Topology {
    let mut topology = Topology::founding().fabric(Fabric::Router);
    let subnet = topology.subnets[0];
    topology.subnets.truncate(1);
    topology.nodes = (1..=5)
        .zip(subnet.hosts().skip(94))
        .map(|(number, address)| NodeSpec::new(&format!("node{number}"), address))
        .collect();
    topology
}

/// Reflectors of these clusters, and a pod on every node but the last, which has no block yet.
fn reflected(topology: Topology, ids: [&str; 2]) -> Cluster {
    let with_tor = topology.fabric == Fabric::Bird;
    let mut cluster = bare(topology);
    apply(&cluster, &format!("{POOL}---{OBJECTS}"));
    if with_tor {
        apply(&cluster, &peers(&cluster));
    }
    for (node, id) in REFLECTORS.iter().zip(ids) {
        let annotation = format!("projectcalico.org/RouteReflectorClusterID={id}");
        kubectl(&cluster, &["annotate", "node", node, &annotation]);
        kubectl(&cluster, &["label", "node", node, "route-reflector=true"]);
    }
    let nodes = cluster.node_names();
    cluster.start_agents(&nodes, &[("NO_DEFAULT_POOLS", "true")]).unwrap();
    for node in &nodes[..nodes.len() - 1] {
        cluster.pod_add(node, &node.replace("node", "pod"), "default").unwrap();
    }
    wait_for_routes(&cluster, &nodes);
    cluster
}

/// Waits until these nodes have a route to every pod of the lab, and have all that they want to have.
fn wait_for_routes(cluster: &Cluster, nodes: &[String]) {
    let pods = cluster.lab().pods().unwrap();
    eventually(SOON, "every node to have a route to every pod", || {
        for node in nodes {
            let status = cluster.status(node)?;
            ensure!(status["inSync"] == true && status["inDesiredState"] == true, "{node}: {status}");
            for pod in &pods {
                let address = pod.address.to_string();
                let route = cluster.lab().exec(node, &["ip", "route", "get", "fibmatch", &address])?;
                ensure!(!route.starts_with("default"), "{node} has no route to {pod:?}: {status}");
            }
        }
        Ok(())
    })
    .unwrap();
}

/// Waits until pings arrive from every pod at every other, as far as they are `meant` to.
fn wait_until_all_are_reached(lab: &Lab, meant: impl Fn(&Pod, &Pod) -> bool) {
    eventually(SOON, "all pods to be reached", || {
        let pods = lab.pods()?;
        let pairs = pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to)));
        let mut pairs = pairs.filter(|(from, to)| meant(from, to));
        pairs.try_for_each(|(from, to)| lab.ping_once(&from.name, to.address))
    })
    .unwrap();
}

/// Pings between all kinds of nodes, and what becomes of the routes to blocks.
struct Watch {
    pings: Vec<(String, Ping)>,
    monitors: Vec<RouteMonitor>,
}

impl Watch {
    fn over(lab: &Lab) -> Watch {
        let pods = lab.pods().unwrap();
        let after = |by: usize| pods.iter().zip(pods.iter().cycle().skip(by));
        let ping = |(from, to): (&Pod, &Pod)| {
            (format!("{} to {}", from.name, to.name), lab.ping(&from.name, to.address, PACE).unwrap())
        };
        let monitors = pods.iter().map(|pod| lab.route_monitor(&pod.node).unwrap()).collect();
        Watch { pings: after(1).chain(after(2)).map(ping).collect(), monitors }
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

/// node1, a reflector, ends and comes back; meanwhile the last node claims its first block.
fn one_dies_and_comes_back(mut cluster: Cluster, what: &str, end: impl FnOnce(&mut Cluster)) {
    let lab = Lab::open(cluster.lab().name()).unwrap();
    let with_tor = lab.topology().fabric == Fabric::Bird;
    wait_until_all_are_reached(&lab, |_, _| true);
    let blocks = cluster.blocks().unwrap().into_keys().collect();
    let nodes = cluster.node_names();
    let last = nodes.last().unwrap();

    let watch = Watch::over(&lab);
    end(&mut cluster);
    assert_everybody_reaches_everybody(&cluster);
    cluster.pod_add(last, "new", "default").unwrap();
    wait_for_routes(&cluster, &nodes[1..]);
    // Nobody tells node1's kernel of a block that is new while its agent is away. Its default route leads to the router.
    let cannot = |from: &Pod, to: &Pod| !with_tor && from.node == "node1" && to.name == "new";
    wait_until_all_are_reached(&lab, |from, to| !cannot(from, to) && !cannot(to, from));

    cluster.agent("node1").unwrap().start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    wait_for_routes(&cluster, &nodes);
    assert_everybody_reaches_everybody(&cluster);
    if with_tor {
        lab.ping_once("outside", lab.pod("new").unwrap().address).unwrap();
    }
    watch.judge(what, &blocks);
}

fn kill(cluster: &mut Cluster) {
    cluster.agent("node1").unwrap().kill().unwrap();
}

#[test]
fn a_reflector_that_is_killed_costs_no_packet_and_the_other_of_its_cluster_spreads_what_is_new() {
    one_dies_and_comes_back(reflected(one_link(), ONE), "kill -9, one cluster", kill);
}

#[test]
fn a_reflector_that_is_killed_costs_no_packet_and_the_other_of_another_cluster_spreads_what_is_new() {
    one_dies_and_comes_back(reflected(one_link(), TWO), "kill -9, two clusters", kill);
}

#[test]
fn a_reflector_that_is_stopped_costs_no_packet_and_the_other_spreads_what_is_new() {
    one_dies_and_comes_back(reflected(one_link(), ONE), "SIGTERM, one cluster", |cluster| {
        cluster.agent("node1").unwrap().stop(SOON).unwrap();
    });
}

#[test]
fn reflectors_do_not_draw_to_themselves_what_the_tor_sends_to_nodes_and_one_that_is_killed_costs_no_packet() {
    let cluster = reflected(Topology::founding(), TWO);
    let lab = Lab::open(cluster.lab().name()).unwrap();
    wait_until_all_are_reached(&lab, |_, _| true);
    let far = block(&cluster, "node3", "192.168.");
    for reflector in REFLECTORS {
        wait_told(&lab, &far, reflector, &["BGP.med: 1\n"]);
    }
    one_dies_and_comes_back(cluster, "kill -9, with a ToR", kill);
}
