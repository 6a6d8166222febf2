//! What real agents ask of a real API server: at their start, for a pod, for many at once, and for other nodes' pods.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::ensure;
use manx_bench_api::figures::{block_writes, watches};
use manx_bench_api::{Bgp, Fleet, Place, SOON};
use manx_ground::eventually;
use manx_kubernetes::{Mark, Requests};

/// The node that leads watches policies, too: the first.
const OF_LEADER: usize = 1;

/// Fleets of these sizes; the last node is the one that is looked at.
const SIZES: [usize; 2] = [1, 10];

/// A fleet whose agents run, all but the last.
fn all_but_the_last(size: usize) -> Fleet {
    let mut fleet = Fleet::start(size, Bgp::Mesh).unwrap();
    fleet.run(1..size, Place::Far).unwrap();
    fleet
}

fn running(size: usize) -> Fleet {
    let mut fleet = all_but_the_last(size);
    fleet.run([size], Place::Near).unwrap();
    fleet
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}{number}")).collect()
}

fn mark(fleet: &Fleet) -> Mark {
    fleet.control_plane().audit().mark().unwrap()
}

/// What a node asks for because of `what`.
fn asked_for(fleet: &Fleet, number: usize, what: impl FnOnce()) -> Requests {
    let node = fleet.node(number).unwrap();
    node.await_quiet().unwrap();
    let mark = mark(fleet);
    what();
    node.await_quiet().unwrap();
    fleet.asked(number, mark).unwrap()
}

#[test]
fn a_node_starts_with_thirty_calls_and_twelve_watches_at_most() {
    for size in SIZES {
        let mut fleet = all_but_the_last(size);
        let mark = mark(&fleet);
        fleet.run([size], Place::Near).unwrap();
        let asked = fleet.asked(size, mark).unwrap();
        println!("start of node {size}: {} calls\n{asked}", asked.count());
        assert!(asked.count() <= 30, "{asked}");
        let of_policies = asked.count_of("watch", "networkpolicies");
        assert_eq!(of_policies, if size == 1 { OF_LEADER } else { 0 }, "{asked}");
        assert!((1..=12).contains(&(watches(&asked) - of_policies)), "{asked}");
        // The agent's own books, which the other figures are taken from, say the same.
        assert_eq!(fleet.node(size).unwrap().traffic().total(), asked.count() as u64, "{asked}");
    }
}

/// Everything for which a node watches more than usual.
const ALL_AT_ONCE: &str = "
apiVersion: v1
kind: Secret
metadata: {name: bgp, namespace: kube-system}
stringData: {password: hunter2}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPFilter
metadata: {name: tor}
spec: {importV4: [{action: Accept}]}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPPeer
metadata: {name: tor}
spec:
  peerIP: 10.254.0.1
  asNumber: 65000
  filters: [tor]
  password: {secretKeyRef: {name: bgp, key: password}}
---
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceClusterIPs: [{cidr: 0.0.0.0/0}]}
";

/// A service of which it matters where its pods are.
const LOCAL: &str = "
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}
";

#[test]
fn a_node_with_filters_passwords_and_services_has_four_more_watches_at_most_and_hears_of_pods_only_if_it_must()
 {
    let mut fleet = Fleet::start(1, Bgp::Mesh).unwrap();
    fleet.control_plane().apply(ALL_AT_ONCE).unwrap();
    let begin = mark(&fleet);
    fleet.run([1], Place::Near).unwrap();
    let asked = fleet.asked(1, begin).unwrap();
    println!("{} calls\n{asked}", asked.count());
    for kind in ["bgpfilters", "secrets", "services"] {
        assert_eq!(asked.count_of("watch", kind), 1, "{kind}: {asked}");
    }
    let begun = (watches(&asked), asked.count_of("watch", "endpointslices"));
    assert_eq!(begun, (12 + OF_LEADER + 3, 0), "{asked}");

    fleet.control_plane().apply(LOCAL).unwrap();
    eventually(SOON, "the node to ask where pods are", || {
        let asked = fleet.asked(1, begin)?;
        ensure!(asked.count_of("watch", "endpointslices") == 1, "{asked}");
        Ok(())
    })
    .unwrap();
    fleet.await_quiet().unwrap();
    assert_eq!(watches(&fleet.asked(1, begin).unwrap()), 12 + OF_LEADER + 4);
}

#[test]
fn a_pod_comes_with_four_calls_and_goes_with_three_at_most() {
    for size in SIZES {
        let fleet = running(size);
        let pods = names("pod", 3);
        fleet.schedule(size, &pods).unwrap();
        // The first one claims a block, for many to come.
        fleet.add(size, &pods[..1]).unwrap();
        for pod in pods[1..].chunks(1) {
            let added = asked_for(&fleet, size, || fleet.add(size, pod).unwrap());
            println!("ADD, {size} nodes:\n{added}");
            assert!(added.count() <= 4 && block_writes(&added) == 1, "{added}");
        }
        for pod in pods.chunks(1) {
            let deleted = asked_for(&fleet, size, || fleet.del(size, pod).unwrap());
            println!("DEL, {size} nodes:\n{deleted}");
            assert!(deleted.count() <= 3 && block_writes(&deleted) == 1, "{deleted}");
        }
    }
}

#[test]
fn thirty_two_pods_at_once_share_writes_of_their_block() {
    for size in SIZES {
        let fleet = running(size);
        let pods = names("pod", 33);
        fleet.schedule(size, &pods).unwrap();
        fleet.add(size, &pods[..1]).unwrap();
        let added = asked_for(&fleet, size, || fleet.add(size, &pods[1..]).unwrap());
        println!("32 ADDs at once, {size} nodes:\n{added}");
        assert!(added.count() as f64 <= 2.2 * 32.0, "{added}");
        assert!((1..32).contains(&block_writes(&added)), "{added}");
        let deleted = asked_for(&fleet, size, || fleet.del(size, &pods[1..]).unwrap());
        println!("32 DELs at once, {size} nodes:\n{deleted}");
        assert!(deleted.count() <= 3 * 32 && (1..32).contains(&block_writes(&deleted)), "{deleted}");
    }
}

#[test]
fn a_pod_that_comes_or_goes_on_one_node_is_nothing_to_any_other() {
    let fleet = running(10);
    let others = || fleet.nodes().iter().filter(|(number, _)| **number != 10).map(|(_, node)| node);
    fleet.await_quiet().unwrap();
    let (mark, news): (_, Vec<u64>) = (mark(&fleet), others().map(manx_bench_api::Node::news).collect());

    let pods = names("pod", 8);
    fleet.schedule(10, &pods).unwrap();
    fleet.add(10, &pods).unwrap();
    fleet.del(10, &pods).unwrap();
    fleet.forget(&pods).unwrap();
    fleet.await_quiet().unwrap();
    for number in 1..10 {
        let asked = fleet.asked(number, mark).unwrap();
        assert_eq!(asked.count(), 0, "node {number}: {asked}");
    }
    assert_eq!(others().map(manx_bench_api::Node::news).collect::<Vec<_>>(), news);

    // What does concern them is noticed.
    fleet.heartbeat(10, 1).unwrap();
    eventually(SOON, "every node to hear of another", || {
        let now: Vec<u64> = others().map(manx_bench_api::Node::news).collect();
        ensure!(now.iter().zip(&news).all(|(now, before)| now > before), "{now:?}, and {news:?} before");
        Ok(())
    })
    .unwrap();
}
