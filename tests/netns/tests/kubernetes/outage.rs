//! The API server is away: killed, or frozen with all its connections. Nothing that is connected notices.

use std::time::Duration;

use anyhow::ensure;
use manx_lab::{Cluster, Lab, Ping, RouteEvent, RouteMonitor, eventually};

use crate::support::{SOON, annotation, assert_everybody_reaches_everybody, assert_routes, founding, stored};

const PACE: Duration = Duration::from_millis(20);
/// Enough answers after the last change to see a loss that it causes.
const AFTERWARDS: usize = 25;

/// Pings of pods that stay, and what happens to the routes of blocks on all nodes and on the ToR.
struct Watch {
    pings: Vec<Ping>,
    monitors: Vec<RouteMonitor>,
}

impl Watch {
    fn over(lab: &Lab) -> Watch {
        let address = |pod: &str| lab.pod(pod).unwrap().address;
        let pings = [("pod1", "pod3"), ("pod3", "pod4"), ("outside", "pod3")]
            .map(|(from, to)| lab.ping(from, address(to), PACE).unwrap());
        let monitors = ["node1", "node3", "node4", "tor"].map(|place| lab.route_monitor(place).unwrap());
        Watch { pings: pings.into(), monitors: monitors.into() }
    }

    /// Fails if a packet was lost or the route of a block was deleted or written again.
    fn judge(self, what: &str) {
        for ping in self.pings {
            ping.wait_for_more(SOON, AFTERWARDS).unwrap();
            let report = ping.stop().unwrap();
            assert!(report.lost.is_empty(), "{what}: lost {:?} of {}", report.lost, report.sent);
        }
        for monitor in self.monitors {
            let of_block = |event: &RouteEvent| event.route.contains("/26");
            let events: Vec<_> = monitor.stop().unwrap().into_iter().filter(of_block).collect();
            assert!(events.is_empty(), "{what}: {events:#?}");
        }
    }
}

/// One call of the plugin: its error code, `None` for success.
fn cni(lab: &Lab, command: &str, node: &str, pod: &str) -> Option<u64> {
    let reply = lab.cni(&lab.cni_call(command, node, pod, "default").unwrap()).unwrap();
    println!("{command} {pod}: {:?} {}", reply.exit, reply.json);
    match reply.exit {
        Some(0) => None,
        _ => Some(reply.error_code().unwrap()),
    }
}

/// A Pod that node1 has been told of, but whose sandbox is still to come.
fn expect_pod(cluster: &Cluster, pod: &str) {
    cluster.kubelet().unwrap().create("node1", pod, "default").unwrap();
    cluster.lab().pod_namespace(pod).unwrap();
}

/// What was asked for while the API server was away has come about: `early` is attached, pod2 is gone.
fn assert_all_is_made_up_for(cluster: &mut Cluster) {
    for node in cluster.node_names() {
        cluster.wait_ready(&node).unwrap();
    }
    cluster.wait_converged().unwrap();
    let early = cluster.lab().pod("early").unwrap();
    eventually(SOON, "IPAM and annotations to be as the pods are", || {
        let stored = stored(cluster)?;
        stored.audit()?;
        let held = stored.held()?;
        ensure!(held.len() == 4 && held.contains_key(&early.address), "{held:?}");
        let path = "/api/v1/namespaces/default/pods/early";
        let said = annotation(cluster, path, "cni.projectcalico.org/podIP")?;
        ensure!(said == format!("{}/32", early.address), "early is said to have {said}");
        Ok(())
    })
    .unwrap();
    assert_routes(cluster, "Never");
    assert_everybody_reaches_everybody(cluster);
}

/// Takes pod2 away without a word to the API server.
fn delete_pod2(lab: &Lab) {
    assert_eq!(cni(lab, "DEL", "node2", "pod2"), None, "a DEL is always answered");
    manx_lab::netns::remove(&[lab.netns("pod2")]).unwrap();
    std::fs::remove_file(lab.dir().join("pods/pod2.json")).unwrap();
}

#[test]
fn while_the_api_server_is_dead_all_forwards_pods_come_and_go_and_an_agent_may_be_started_again() {
    let mut cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    expect_pod(&cluster, "early");
    expect_pod(&cluster, "unready");
    let watch = Watch::over(&lab);
    cluster.control_plane_mut().unwrap().kill().unwrap();

    // From a block that the node has, or later: kubelet tries again.
    let code = cni(&lab, "ADD", "node1", "early");
    assert!([None, Some(11)].contains(&code), "{code:?}");
    delete_pod2(&lab);
    cluster.agent("node3").unwrap().kill().unwrap();
    cluster.agent("node3").unwrap().start_again().unwrap();
    eventually(SOON, "the new agent to answer", || cluster.status("node3").map(drop)).unwrap();
    // It does not know which addresses are free.
    assert_eq!(cni(&lab, "ADD", "node3", "unready"), Some(11));
    for pod in ["pod1", "pod4"] {
        lab.ping_once(pod, lab.pod("pod3").unwrap().address).unwrap();
    }

    cluster.control_plane_mut().unwrap().restart().unwrap();
    cluster.kubelet().unwrap().forget("pod2", "default").unwrap();
    eventually(SOON, "the pod to be attached", || lab.pod_attach("node1", "early", "default")).unwrap();
    assert_all_is_made_up_for(&mut cluster);
    watch.judge("the API server was dead");
}

#[test]
fn while_the_api_server_is_frozen_all_forwards_and_every_call_is_answered_in_time() {
    let mut cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    expect_pod(&cluster, "early");
    let watch = Watch::over(&lab);
    cluster.control_plane().unwrap().pause().unwrap();

    let begin = std::time::Instant::now();
    let code = cni(&lab, "ADD", "node1", "early");
    assert!([None, Some(11)].contains(&code), "{code:?}");
    delete_pod2(&lab);
    // What kubelet gives a sandbox is two minutes and more.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());

    cluster.control_plane().unwrap().resume().unwrap();
    cluster.kubelet().unwrap().forget("pod2", "default").unwrap();
    eventually(SOON, "the pod to be attached", || lab.pod_attach("node1", "early", "default")).unwrap();
    assert_all_is_made_up_for(&mut cluster);
    watch.judge("the API server was frozen");
}
