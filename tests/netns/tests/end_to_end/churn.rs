//! Many ADDs and DELs at once on two nodes that share the directory, with and without agents that are killed.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use manx_lab::{Cluster, Lab, Pod, Topology, eventually, netns};
use manx_netns::{Chance, Stored, at_once};

use crate::support::{NO_BGP, SOON, assert_routes_of, cluster, files_in};

const PODS: usize = 200;
/// In a run with kills: so many, after random numbers of calls.
const KILLS: usize = 12;

fn name(index: usize) -> String {
    format!("pod{index}")
}

fn node(index: usize) -> &'static str {
    ["node1", "node2"][index % 2]
}

/// The namespaces of all pods, made at once: making one is not what is tested.
fn make_namespaces(lab: &Lab) {
    at_once(PODS, |index| lab.pod_namespace(&name(index)).unwrap());
}

fn add(lab: &Lab, index: usize) -> Result<Pod> {
    lab.pod_attach(node(index), &name(index), "default")
}

fn del(lab: &Lab, index: usize) -> Result<()> {
    let call = lab.cni_call("DEL", node(index), &name(index), "default")?;
    lab.cni(&call)?.ok().map(drop)
}

/// Nothing is held, nothing is half done, no route and no device of a pod is left.
fn assert_nothing_is_left(cluster: &Cluster) {
    eventually(SOON, "everything to be given back", || {
        let stored = Stored::read(&cluster.datastore())?;
        stored.audit()?;
        stored.is_at_rest()?;
        for node in cluster.lab().nodes() {
            let spooled = files_in(&node.cni_spool());
            ensure!(spooled == 0, "{spooled} DELs are in the spool of {}", node.name());
            let pods = node.routes()?.into_iter().filter(|route| route.contains(" dev cali")).count();
            ensure!(pods == 0, "{pods} routes of pods are left on {}", node.name());
            ensure!(
                !node.exec(&["ip", "-br", "link"])?.contains("cali"),
                "links are left on {}",
                node.name()
            );
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn two_hundred_pods_come_and_go_at_once_and_no_address_is_given_twice_or_leaked() {
    let cluster = cluster(Topology::one_subnet(2), &[]);
    let lab = cluster.lab();
    make_namespaces(lab);
    let pods = at_once(PODS, |index| add(lab, index).unwrap());
    let addresses: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    assert_eq!(addresses.len(), PODS);
    let stored = Stored::read(&cluster.datastore()).unwrap();
    stored.audit().unwrap();
    assert_eq!(stored.held().unwrap().into_keys().collect::<BTreeSet<_>>(), addresses);
    // 100 addresses need two blocks of 64, and no node claims more than it needs.
    assert_eq!(
        stored.blocks.len(),
        4,
        "{:?}",
        stored.blocks.iter().map(|block| block.cidr).collect::<Vec<_>>()
    );
    cluster.wait_converged().unwrap();
    for node in cluster.node_names() {
        assert_routes_of(&cluster, &node, "Never");
    }
    // Mixed: half of them are replaced while the others go.
    at_once(PODS, |index| {
        del(lab, index).unwrap();
        if index % 4 < 2 {
            add(lab, index).unwrap();
        }
    });
    let stored = Stored::read(&cluster.datastore()).unwrap();
    stored.audit().unwrap();
    assert_eq!(stored.held().unwrap().len(), PODS / 2);
    at_once(PODS, |index| del(lab, index).unwrap());
    assert_nothing_is_left(&cluster);
}

#[test]
fn agents_that_are_killed_at_random_under_that_load_leak_nothing() {
    let mut chance = Chance::new("churn");
    let mut cluster = cluster(Topology::one_subnet(2), &[NO_BGP]);
    let lab = Lab::open(cluster.lab().name()).unwrap();
    make_namespaces(&lab);
    let (calls, working) = (AtomicUsize::new(0), AtomicUsize::new(1));
    let addresses = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let held = at_once(PODS, |index| {
                let live = one_life(&lab, index, &calls);
                calls.fetch_add(1, Ordering::Relaxed);
                live
            });
            working.store(0, Ordering::Relaxed);
            held
        });
        for _ in 0..KILLS {
            let until = calls.load(Ordering::Relaxed) + 1 + chance.below(PODS / KILLS);
            let reached = || calls.load(Ordering::Relaxed) >= until || working.load(Ordering::Relaxed) == 0;
            eventually(SOON, "some more calls", || reached().then_some(()).context("not yet")).unwrap();
            let victim = node(chance.below(2));
            cluster.agent(victim).unwrap().kill().unwrap();
            cluster.agent(victim).unwrap().start_again().unwrap();
        }
        work.join().unwrap()
    });
    for node in cluster.node_names() {
        cluster.wait_ready(&node).unwrap();
    }
    let living: Vec<Ipv4Addr> = addresses.into_iter().flatten().collect();
    assert_eq!(living.iter().collect::<BTreeSet<_>>().len(), living.len(), "an address is given twice");
    Stored::read(&cluster.datastore()).unwrap().audit().unwrap();
    // The runtime repeats the DELs of all sandboxes that it does not want.
    at_once(PODS, |index| eventually(SOON, "a DEL", || del(&lab, index)).unwrap());
    assert_nothing_is_left(&cluster);
}

/// A sandbox as the runtime handles it: an ADD that fails is followed by a DEL and tried again; every third pod goes
/// at once. The address of a pod that stays.
fn one_life(lab: &Lab, index: usize, calls: &AtomicUsize) -> Option<Ipv4Addr> {
    let pod = eventually(SOON, "an ADD", || {
        calls.fetch_add(1, Ordering::Relaxed);
        add(lab, index).inspect_err(|_| drop(del(lab, index)))
    })
    .unwrap();
    if index.is_multiple_of(3) {
        eventually(SOON, "a DEL", || del(lab, index)).unwrap();
        return None;
    }
    assert!(netns::exists(&lab.netns(&pod.name)));
    Some(pod.address)
}
