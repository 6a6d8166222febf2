//! Agents and routers that end, in every way, under a ping: no packet lost, no route deleted or written again.

use std::time::Duration;

use anyhow::ensure;
use manx_lab::{Cluster, Ping, RouteEvent, RouteMonitor, eventually};

use crate::support::{SOON, assert_routes, founding};

const PACE: Duration = Duration::from_millis(10);
/// Enough answers after the last change to see a loss that it causes.
const AFTERWARDS: usize = 50;

/// Pings within a subnet, between subnets, and from the host outside; and monitors of a node and of the ToR.
struct Watch {
    pings: Vec<Ping>,
    monitors: Vec<RouteMonitor>,
}

impl Watch {
    fn over(cluster: &Cluster) -> Watch {
        let lab = cluster.lab();
        let address = |pod: &str| lab.pod(pod).unwrap().address;
        let paths = [("pod1", "pod2"), ("pod1", "pod3"), ("pod4", "pod1"), ("outside", "pod1")];
        let pings = paths.map(|(from, to)| lab.ping(from, address(to), PACE).unwrap());
        let monitors = ["node1", "node2", "node3", "tor"].map(|place| lab.route_monitor(place).unwrap());
        Watch { pings: pings.into(), monitors: monitors.into() }
    }

    /// Ends, and fails if a packet was lost or a route that somebody needs was deleted or written again.
    fn judge(self, what: &str) {
        for ping in &self.pings {
            ping.wait_for_more(SOON, AFTERWARDS).unwrap();
        }
        let mut sent = 0;
        for ping in self.pings {
            let report = ping.stop().unwrap();
            assert!(report.lost.is_empty(), "{what}: lost {:?} of {}", report.lost, report.sent);
            sent += report.sent;
        }
        println!("{what}: {sent} pings, none lost");
        for monitor in self.monitors {
            let of_bgp =
                |event: &RouteEvent| event.route.contains("proto 77") || event.route.contains("proto bird");
            let events: Vec<_> = monitor.stop().unwrap().into_iter().filter(of_bgp).collect();
            assert!(events.is_empty(), "{what}: {events:#?}");
        }
    }
}

fn wait_session(cluster: &Cluster, node: &str, established: bool) {
    eventually(SOON, &format!("BIRD's session with {node}"), || {
        let state = cluster.lab().bird_session(node)?;
        ensure!((state == "Established") == established, "{node}: {state}");
        Ok(())
    })
    .unwrap();
}

fn wait_back(cluster: &mut Cluster, nodes: &[String]) {
    for node in nodes {
        cluster.wait_ready(node).unwrap();
        wait_session(cluster, node, true);
    }
    cluster.wait_converged().unwrap();
}

#[test]
fn an_agent_may_be_killed_stopped_and_started_again_alone_or_all_at_once_and_so_may_the_router() {
    let mut cluster = founding("Never");
    assert_routes(&cluster, "Never");
    let all = cluster.node_names();

    let watch = Watch::over(&cluster);
    cluster.agent("node1").unwrap().kill().unwrap();
    wait_session(&cluster, "node1", false);
    cluster.agent("node1").unwrap().start_again().unwrap();
    wait_back(&mut cluster, &all[..1]);
    watch.judge("kill -9 of one agent and its restart");

    let watch = Watch::over(&cluster);
    cluster.agent("node3").unwrap().stop(SOON).unwrap();
    wait_session(&cluster, "node3", false);
    cluster.agent("node3").unwrap().start_again().unwrap();
    wait_back(&mut cluster, &all[2..3]);
    watch.judge("SIGTERM of one agent and its restart");

    let watch = Watch::over(&cluster);
    for node in &all {
        cluster.agent(node).unwrap().kill().unwrap();
    }
    for node in &all {
        wait_session(&cluster, node, false);
        cluster.agent(node).unwrap().start_again().unwrap();
    }
    wait_back(&mut cluster, &all);
    watch.judge("kill -9 of all agents and their restart");

    let watch = Watch::over(&cluster);
    let bird = cluster.lab_mut().bird_process().unwrap();
    bird.kill().unwrap();
    // -R: BIRD keeps what it finds in its kernel until its peers have told it everything (bird(8)).
    bird.set_program(bird.program().clone().arg("-R"));
    bird.start_again().unwrap();
    wait_back(&mut cluster, &all);
    watch.judge("kill -9 of the ToR's BIRD and its restart");
    assert_routes(&cluster, "Never");
}
