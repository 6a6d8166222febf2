//! Everything that may happen to a cluster without a single packet lost between the pods that stay: agents come and go,
//! the mode is switched, the datastore is away for a while, connections are reset, other pods and nodes come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use manx_datastore::testing::{Faults as StoreFaults, Random};
use tokio::time::Instant;

use crate::chaos::COLLECTED;
use crate::cluster::Cluster;
use crate::machine::{Faults, Ipip};

const NODES: u8 = 4;
const MODES: [&str; 3] = ["Always", "CrossSubnet", "Never"];
/// A node whose agent or datastore is away gets both back after this long, give or take one pause: peers keep its routes
/// for two minutes, and take packets by the tunnel for one after it was switched off.
const AWAY: Duration = Duration::from_secs(25);
/// Then it is left in peace for this long, or two absences would be one.
const REST: Duration = Duration::from_secs(10);

/// A history under way.
pub struct Gentle {
    /// The cluster.
    pub cluster: Cluster,
    /// What happened, for people.
    pub log: Vec<String>,
    random: Random,
    away: BTreeMap<String, Instant>,
    resting: BTreeMap<String, Instant>,
    guests: Vec<(String, String)>,
    named: u32,
}

impl Gentle {
    /// A cluster at rest with two pods on each node, which from now on are guarded.
    pub async fn new(seed: u64) -> Self {
        let mut random = Random::new(seed.wrapping_mul(0xda94_2042_e4dd_58b5));
        let mode = MODES[random.below(3)];
        let mut cluster = Cluster::new(seed, mode);
        for number in 1..=NODES {
            cluster.add_node(number).await;
            if random.chance(8) {
                cluster
                    .net
                    .foreign(&format!("n{number}"), "no ipip", |machine| machine.ipip = Ipip::Unsupported);
            }
            cluster.start(&format!("n{number}"));
        }
        cluster.run_pods(2).await;
        cluster.quiet().await;
        cluster.guard();
        let log = vec![format!("begins with {mode}")];
        let (away, resting, guests) = Default::default();
        Self { cluster, log, random, away, resting, guests, named: 0 }
    }

    /// Lets `events` things happen, then waits for quiet.
    pub async fn run(&mut self, events: usize) {
        for _ in 0..events {
            self.mend(AWAY);
            let event = self.event().await;
            self.log.push(event);
            let longest = [1, 100, 2000, 15_000][self.random.below(4)];
            let pause = self.random.below(longest);
            tokio::time::sleep(Duration::from_millis(pause as u64)).await;
        }
        self.mend(Duration::ZERO);
        for (name, node) in &self.cluster.nodes {
            node.store.set_faults(StoreFaults::default());
            self.cluster.net.foreign(name, "no more faults", |machine| machine.faults = Faults::default());
        }
        // An agent that was killed while it owed a DEL may have left a handle that holds nothing.
        tokio::time::sleep(COLLECTED).await;
        self.cluster.quiet().await;
    }

    /// Brings back what has been away for `long`.
    fn mend(&mut self, long: Duration) {
        let due = self.away.extract_if(.., |_, since| since.elapsed() >= long);
        for name in due.map(|(name, _)| name).collect::<Vec<_>>() {
            if let Some(node) = self.cluster.nodes.get(&name) {
                node.store.up();
            }
            self.cluster.start(&name);
            self.resting.insert(name.clone(), Instant::now());
            self.log.push(format!("{name} has its agent and its datastore again"));
        }
        self.resting.retain(|_, since| since.elapsed() < REST);
    }

    /// Takes something away from a node, unless it rests.
    async fn take_away(&mut self, node: String) -> String {
        if self.resting.contains_key(&node) {
            return "nothing".to_owned();
        }
        self.away.entry(node.clone()).or_insert_with(Instant::now);
        match self.random.below(4) {
            0 | 1 => {
                self.cluster.kill(&node).await;
                format!("kill -9 of {node}")
            }
            2 => {
                self.cluster.stop(&node).await;
                format!("SIGTERM for {node}")
            }
            _ => {
                self.cluster.nodes[&node].store.down();
                format!("the datastore is away for {node}")
            }
        }
    }

    async fn event(&mut self) -> String {
        let names = self.cluster.names();
        let node = names[self.random.below(names.len())].clone();
        match self.random.below(100) {
            0..20 => self.guest(node),
            20..50 => self.take_away(node).await,
            50..68 => {
                self.cluster.start(&node);
                format!("start of {node}")
            }
            68..78 => {
                let mode = MODES[self.random.below(3)];
                self.cluster.set_mode(mode).await;
                format!("the mode becomes {mode}")
            }
            78..84 => {
                let other = names[self.random.below(names.len())].clone();
                self.cluster.network.reset(&node, &other);
                format!("connections of {node} and {other} are reset")
            }
            84..90 => {
                let faults = StoreFaults { before: 5, after: 5, conflict: 5, delay: 50 };
                self.cluster.nodes[&node].store.set_faults(faults);
                format!("the datastore fails now and then for {node}")
            }
            90..95 => {
                let faults = Faults { read: 10, write: 10 };
                self.cluster.net.foreign(&node, "fails", |machine| machine.faults = faults);
                format!("the kernel of {node} fails now and then")
            }
            _ => self.move_node().await,
        }
    }

    /// A pod that comes, or one that goes; none of these is guarded.
    fn guest(&mut self, node: String) -> String {
        if self.guests.len() < 6 && self.random.chance(60) {
            self.named += 1;
            let pod = format!("guest{}", self.named);
            self.cluster.nodes[&node].kubelet.run(&pod);
            self.guests.push((node.clone(), pod.clone()));
            return format!("{pod} is to run on {node}");
        }
        if self.guests.is_empty() {
            return "nothing".to_owned();
        }
        let (node, pod) = self.guests.swap_remove(self.random.below(self.guests.len()));
        self.cluster.nodes[&node].kubelet.end(&pod);
        format!("{pod} on {node} is to end")
    }

    /// One more node comes, and stays.
    async fn move_node(&mut self) -> String {
        let number = 1 + NODES;
        let name = format!("n{number}");
        if self.cluster.nodes.contains_key(&name) {
            return "nothing".to_owned();
        }
        self.cluster.add_node(number).await;
        self.cluster.start(&name);
        format!("{name} is added")
    }
}
