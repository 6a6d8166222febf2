//! What real agents ask of a real API server: at their start, for a pod, for many at once, and for other nodes' pods.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::ensure;
use manx_bench_api::figures::{block_writes, watches};
use manx_bench_api::{Bgp, Fleet, Place, SOON};
use manx_ground::eventually;
use manx_kubernetes::{Mark, Requests};

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
        assert!((1..=12).contains(&watches(&asked)), "{asked}");
        // The agent's own books, which the other figures are taken from, say the same.
        assert_eq!(fleet.node(size).unwrap().traffic().total(), asked.count() as u64, "{asked}");
    }
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
