//! Three nodes that bring 600 pods at once, out of two pools that have hardly more addresses, while the API server turns
//! requests away (429), others write the same objects (409), and agents are killed.
//!
//! Both are real: the requests of the agents are given a priority of their own with five seats and no queue, and before
//! every ADD a block or a handle is written by somebody else.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use manx_kubernetes::Client;
use manx_lab::{Cluster, Kubelet, Lab, Topology, eventually};
use manx_netns::{Chance, Stored, at_once};
use serde_json::{Value, json};

use crate::support::{SOON, bare, stored};

const NODES: [&str; 3] = ["node1", "node2", "node3"];
const PODS: usize = 600;
/// So many, after random numbers of calls.
const KILLS: usize = 12;
/// 640 addresses in ten blocks.
const POOLS: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: large}
spec: {cidr: 10.1.0.0/23, blockSize: 26, ipipMode: Never, nodeSelector: all()}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: little}
spec: {cidr: 10.2.0.0/25, blockSize: 26, ipipMode: Never, nodeSelector: all()}
";
/// Two shares of some 250, which are 600 requests at a time: five, and the sixth is turned away.
const FEW_SEATS: &str = "
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: few-seats}
spec:
  type: Limited
  limited:
    nominalConcurrencyShares: 2
    lendablePercent: 0
    borrowingLimitPercent: 0
    limitResponse: {type: Reject}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: agents}
spec:
  matchingPrecedence: 100
  priorityLevelConfiguration: {name: few-seats}
  rules:
  - subjects: [{kind: Group, group: {name: manx}}]
    resourceRules:
    - {verbs: ['*'], apiGroups: ['*'], resources: ['*'], clusterScope: true, namespaces: ['*']}
";

/// Somebody who writes the objects of IPAM, and changes nothing of what they say.
struct Meddler {
    api: Client,
    chance: Mutex<Chance>,
}

impl Meddler {
    fn meddle(&self) -> Result<()> {
        let kind = "/apis/crd.projectcalico.org/v1/ipamblocks";
        let list: Value = serde_json::from_str(&self.api.get(kind)?)?;
        let blocks = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if blocks.is_empty() {
            return Ok(());
        }
        let number = self.chance.lock().unwrap().below(1_000_000);
        let name = blocks[number % blocks.len()]["metadata"]["name"].as_str().unwrap();
        let patch = json!({"metadata": {"annotations": {"meddler": number.to_string()}}});
        // A block that is gone by now is none.
        self.api.ask("PATCH", &format!("{kind}/{name}"), &patch.to_string()).map(drop)
    }
}

/// What all threads have.
struct Load {
    lab: Lab,
    kubelet: Kubelet,
    meddler: Meddler,
    calls: AtomicUsize,
}

impl Load {
    /// A pod as kubelet and runtime handle it: an ADD that fails is followed by a DEL and tried again; every third pod
    /// goes at once. The address of a pod that stays.
    fn one_life(&self, index: usize) -> Option<Ipv4Addr> {
        let (node, name) = (NODES[index % NODES.len()], format!("pod{index}"));
        self.kubelet.create(node, &name, "default").unwrap();
        let pod = eventually(SOON * 4, "an ADD", || {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.meddler.meddle()?;
            self.kubelet.start(node, &name, "default").inspect_err(|_| drop(self.del(index)))
        })
        .unwrap();
        if (index / NODES.len()).is_multiple_of(3) {
            self.remove(index);
            return None;
        }
        Some(pod.address)
    }

    /// The runtime repeats a DEL until it succeeds; then kubelet removes the object.
    fn remove(&self, index: usize) {
        eventually(SOON * 2, "a DEL", || self.del(index)).unwrap();
        self.kubelet.forget(&format!("pod{index}"), "default").unwrap();
    }

    fn del(&self, index: usize) -> Result<()> {
        let call = self.lab.cni_call("DEL", NODES[index % NODES.len()], &format!("pod{index}"), "default")?;
        self.lab.cni(&call)?.ok().map(drop)
    }
}

/// Kills agents at random moments while `work` runs.
fn with_kills<T: Send>(cluster: &mut Cluster, load: &Load, work: impl FnOnce() -> T + Send) -> T {
    let mut chance = Chance::new("kills");
    let working = AtomicUsize::new(1);
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let result = work();
            working.store(0, Ordering::Relaxed);
            result
        });
        for _ in 0..KILLS {
            let until = load.calls.load(Ordering::Relaxed) + 1 + chance.below(PODS / KILLS);
            let reached =
                || load.calls.load(Ordering::Relaxed) >= until || working.load(Ordering::Relaxed) == 0;
            eventually(SOON * 4, "some more calls", || reached().then_some(()).context("not yet")).unwrap();
            let victim = NODES[chance.below(NODES.len())];
            cluster.agent(victim).unwrap().kill().unwrap();
            cluster.agent(victim).unwrap().start_again().unwrap();
        }
        work.join().unwrap()
    })
}

fn assert_audit(cluster: &Cluster, what: &str, wanted: impl Fn(&Stored) -> Result<()>) {
    eventually(SOON * 2, what, || {
        let stored = stored(cluster)?;
        stored.audit()?;
        wanted(&stored)
    })
    .unwrap();
}

#[test]
fn no_address_is_given_twice_or_leaked_while_requests_are_turned_away_and_agents_are_killed() {
    let mut cluster = bare(Topology::founding().keeping(&NODES));
    let control_plane = cluster.control_plane().unwrap();
    control_plane.apply(&format!("{POOLS}---\n{FEW_SEATS}")).unwrap();
    let mark = control_plane.audit().mark().unwrap();
    let meddler = Meddler { api: control_plane.client(), chance: Mutex::new(Chance::new("meddler")) };
    let env = [("NO_DEFAULT_POOLS", "true"), ("CALICO_NETWORKING_BACKEND", "none")];
    cluster.start_agents(&NODES, &env).unwrap();
    let lab = Lab::open(cluster.lab().name()).unwrap();
    let load = Load { lab, kubelet: cluster.kubelet().unwrap(), meddler, calls: AtomicUsize::new(0) };
    at_once(PODS, |index| load.lab.pod_namespace(&format!("pod{index}")).unwrap());

    let begin = Instant::now();
    let addresses = with_kills(&mut cluster, &load, || at_once(PODS, |index| load.one_life(index)));
    let living: Vec<Ipv4Addr> = addresses.into_iter().flatten().collect();
    let distinct: BTreeSet<Ipv4Addr> = living.iter().copied().collect();
    assert_eq!(distinct.len(), living.len(), "an address is given twice");
    assert!(living.len() > PODS / 2, "{} pods live", living.len());
    for node in NODES {
        cluster.wait_ready(node).unwrap();
    }
    assert_audit(&cluster, "IPAM to hold what pods have", |stored| {
        let held: BTreeSet<Ipv4Addr> = stored.held()?.into_keys().collect();
        ensure!(held == distinct, "held in vain: {:?}", held.difference(&distinct));
        Ok(())
    });

    let added = begin.elapsed();
    at_once(PODS, |index| load.remove(index));
    assert_audit(&cluster, "everything to be given back", |stored| {
        stored.is_at_rest()?;
        Ok(())
    });
    let requests = cluster.control_plane().unwrap().audit().since(mark).unwrap();
    let of_agents = |code: u16| {
        requests.filter(|request| request.user.starts_with("manx-") && request.code == Some(code)).count()
    };
    let (conflicts, turned_away) = (of_agents(409), of_agents(429));
    let (calls, all) = (load.calls.load(Ordering::Relaxed), begin.elapsed());
    println!(
        "{PODS} pods in {added:.1?} by {calls} ADDs, gone after {all:.1?}: {conflicts} conflicts, {turned_away} turned away"
    );
    assert!(conflicts > 0 && turned_away > 0, "{conflicts} conflicts, {turned_away} turned away");
}
