//! The API server is away: killed, or frozen with all its connections. Nothing that is connected notices.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use manx_lab::{Cluster, Lab, Ping, Pod, RouteEvent, RouteMonitor, eventually};

use manx_netns::at_once;

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

/// The addresses that a node holds back of a block of 64.
const RESERVE: usize = 8;

/// A Pod that the agent of a node has been told of, as its memory on disk says, but whose sandbox is still to come.
fn expect_pods(cluster: &Cluster, node: &str, pods: &[String]) {
    for pod in pods {
        cluster.kubelet().unwrap().create(node, pod, "default").unwrap();
        cluster.lab().pod_namespace(pod).unwrap();
    }
    let remembered = cluster.lab().node(node).unwrap().dir().join("remembered");
    eventually(SOON, "the agent to be told of the pods", || {
        // Two files, written by turns.
        let known: String = ["pods.node.0.json", "pods.node.1.json"]
            .iter()
            .filter_map(|file| std::fs::read_to_string(remembered.join(file)).ok())
            .collect();
        let unknown: Vec<_> = pods.iter().filter(|pod| !known.contains(&format!("{pod:?}"))).collect();
        ensure!(unknown.is_empty(), "{node} does not know {unknown:?}");
        Ok(())
    })
    .unwrap();
}

/// Waits until every node holds back what it should.
fn await_reserves(cluster: &Cluster) {
    eventually(SOON, "every node to hold addresses back", || {
        let stored = stored(cluster)?;
        for node in cluster.node_names() {
            let handle =
                stored.handles.iter().find(|handle| handle.handle_id == format!("manx-reserve-{node}"));
            let held: u32 = handle.with_context(|| format!("{node} has no reserve"))?.block.values().sum();
            ensure!(held as usize == RESERVE, "{node} holds {held} back");
        }
        stored.audit()
    })
    .unwrap();
}

/// ADD for a sandbox of a pod, the `nth` one; the code of the plugin's error.
fn add(lab: &Lab, node: &str, pod: &str, nth: usize) -> std::result::Result<Pod, u64> {
    let mut call = lab.cni_call("ADD", node, pod, "default").unwrap();
    call.container_id += &format!("-{nth}");
    let reply = lab.cni(&call).unwrap();
    println!("ADD {pod}: {:?} {}", reply.exit, reply.json);
    if let Some(code) = reply.error_code() {
        return Err(code);
    }
    let result = reply.ok().unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").parse().unwrap();
    let container_id = call.container_id;
    let (name, namespace, node) = (pod.to_owned(), "default".to_owned(), node.to_owned());
    let pod = Pod { name, namespace, node, container_id, address, result };
    let file = lab.dir().join(format!("pods/{}.json", pod.name));
    std::fs::write(file, serde_json::to_vec_pretty(&pod).unwrap()).unwrap();
    Ok(pod)
}

/// DEL for the sandbox that a pod has, which is always answered.
fn del(lab: &Lab, pod: &str) {
    let known = lab.pod(pod).unwrap();
    let mut call = lab.cni_call("DEL", &known.node, pod, "default").unwrap();
    call.container_id = known.container_id;
    lab.cni(&call).unwrap().ok().unwrap();
    std::fs::remove_file(lab.dir().join(format!("pods/{pod}.json"))).unwrap();
}

/// Takes a pod away without a word to the API server.
fn end(lab: &Lab, pod: &str) {
    del(lab, pod);
    manx_lab::netns::remove(&[lab.netns(pod)]).unwrap();
}

/// What came about while the API server was away is in IPAM and in the Pods, and nothing else is.
fn assert_all_is_made_up_for(cluster: &mut Cluster) {
    for node in cluster.node_names() {
        cluster.wait_ready(&node).unwrap();
    }
    cluster.wait_converged().unwrap();
    eventually(SOON * 2, "IPAM and annotations to be as the pods are", || {
        let stored = stored(cluster)?;
        stored.audit()?;
        let mut held = stored.held()?;
        for pod in cluster.lab().pods()? {
            let handle = held.remove(&pod.address);
            let expected = format!("k8s-pod-network.{}", pod.container_id);
            ensure!(handle == Some(expected), "{}, of {}, is held by {handle:?}", pod.address, pod.name);
            says(cluster, &pod)?;
        }
        ensure!(held.is_empty(), "held in vain: {held:?}");
        Ok(())
    })
    .unwrap();
    for node in cluster.node_names() {
        let problems = cluster.status(&node).unwrap()["problems"].to_string();
        assert!(!problems.contains("addresses: "), "{problems}");
    }
    await_reserves(cluster);
    assert_routes(cluster, "Never");
    assert_everybody_reaches_everybody(cluster);
}

fn says(cluster: &Cluster, pod: &Pod) -> Result<()> {
    let path = format!("/api/v1/namespaces/default/pods/{}", pod.name);
    let said = annotation(cluster, &path, "cni.projectcalico.org/podIP")?;
    ensure!(said == format!("{}/32", pod.address), "{} is said to have {said}", pod.name);
    let said = annotation(cluster, &path, "cni.projectcalico.org/containerID")?;
    ensure!(said == pod.container_id, "{} is said to be {said}", pod.name);
    Ok(())
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}{number}")).collect()
}

#[test]
fn while_the_api_server_is_dead_all_forwards_pods_come_and_go_and_agents_may_be_started_again() {
    let mut cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    let mut late = names("late", RESERVE + 2);
    expect_pods(&cluster, "node1", &late);
    let last = late.pop().unwrap();
    expect_pods(&cluster, "node3", &["after".to_owned()]);
    await_reserves(&cluster);
    let watch = Watch::over(&lab);
    cluster.control_plane_mut().unwrap().kill().unwrap();

    // As many as are held back, all at once; then one more when one of them has gone.
    let answers = at_once(late.len(), |index| (index, add(&lab, "node1", &late[index], 1)));
    let refused = answers.iter().filter_map(|(index, answer)| Some((*index, *answer.as_ref().err()?)));
    let refused: Vec<(usize, u64)> = refused.collect();
    let [(waits, 11)] = refused[..] else { panic!("{refused:?}") };
    let (waits, goes) = (&late[waits], &late[(waits + 1) % late.len()]);
    end(&lab, goes);
    add(&lab, "node1", waits, 1).unwrap();
    assert_everybody_reaches_everybody(&cluster);

    // A pod gets another sandbox, as after a restart of its runtime.
    del(&lab, "pod2");
    manx_lab::netns::remove(&[lab.netns("pod2")]).unwrap();
    lab.pod_namespace("pod2").unwrap();
    add(&lab, "node2", "pod2", 2).unwrap();

    // Agents that start meanwhile know as much as those before them.
    for node in ["node1", "node3"] {
        cluster.agent(node).unwrap().kill().unwrap();
        cluster.agent(node).unwrap().start_again().unwrap();
        cluster.wait_ready(node).unwrap();
    }
    assert_eq!(add(&lab, "node1", &last, 1).unwrap_err(), 11, "what pods have is not given again");
    add(&lab, "node3", "after", 1).unwrap();
    assert_everybody_reaches_everybody(&cluster);

    cluster.control_plane_mut().unwrap().restart().unwrap();
    cluster.kubelet().unwrap().forget(goes, "default").unwrap();
    assert_all_is_made_up_for(&mut cluster);
    watch.judge("the API server was dead");
}

#[test]
fn while_the_api_server_is_frozen_all_forwards_and_every_call_is_answered_in_time() {
    let mut cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    expect_pods(&cluster, "node1", &names("late", 2));
    await_reserves(&cluster);
    let watch = Watch::over(&lab);
    cluster.control_plane().unwrap().pause().unwrap();

    let begin = Instant::now();
    add(&lab, "node1", "late1", 1).unwrap();
    end(&lab, "pod2");
    // What kubelet gives a sandbox is two minutes and more.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    let begin = Instant::now();
    add(&lab, "node1", "late2", 1).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "it is known by now: {:?}", begin.elapsed());
    assert_everybody_reaches_everybody(&cluster);

    cluster.control_plane().unwrap().resume().unwrap();
    cluster.kubelet().unwrap().forget("pod2", "default").unwrap();
    assert_all_is_made_up_for(&mut cluster);
    watch.judge("the API server was frozen");
}
