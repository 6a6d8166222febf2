//! A cluster in bad luck: a random schedule of everything that can happen, then peace.

use std::time::Duration;

use ipnet::IpNet;
use manx_datastore::testing::{Faults as StoreFaults, Random};
use manx_felix::{Hop, Ownership, Protocol, Route, RouteKey, TUNNEL_DEVICE, Target};

use crate::cluster::{Cluster, add_default_route};
use crate::machine::{Faults, Ipip, Machine, STATIC};

/// After this long somebody leads, and has collected what was left behind: a Lease, a look, a grace and another look.
pub(crate) const COLLECTED: Duration = Duration::from_secs(45 * 60);
/// Nodes at the start; one more may come and go.
const NODES: u8 = 4;
/// Pods that may run at once.
const PODS: usize = 14;
/// Calico's modes, each.
const MODES: [&str; 3] = ["Always", "CrossSubnet", "Never"];

/// A schedule under way.
pub struct Chaos {
    /// The cluster that suffers it.
    pub cluster: Cluster,
    /// What happened, for people.
    pub log: Vec<String>,
    random: Random,
    pods: Vec<(String, String)>,
    named: u32,
}

impl Chaos {
    /// A cluster that has just been started.
    pub async fn new(seed: u64) -> Self {
        let mut random = Random::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let mode = MODES[random.below(3)];
        let mut cluster = Cluster::with_nodes(seed, mode, NODES).await;
        if random.chance(15) {
            let name = format!("n{}", 1 + random.below(usize::from(NODES)));
            cluster.net.foreign(&name, "this kernel has no ipip", |machine| machine.ipip = Ipip::Unsupported);
        }
        cluster.environment.insert("MANX_CONFIG_REVISION".into(), "1".into());
        Self { cluster, log: vec![format!("begins with {mode}")], random, pods: Vec::new(), named: 0 }
    }

    /// Lets `events` things happen, then restores peace and waits for quiet.
    pub async fn run(&mut self, events: usize) {
        for _ in 0..events {
            let event = self.event().await;
            self.log.push(event);
            let pause = match self.random.below(4) {
                0 => 0,
                1 => self.random.below(1000),
                2 => self.random.below(20_000),
                _ => self.random.below(100_000),
            };
            tokio::time::sleep(Duration::from_millis(pause as u64)).await;
        }
        self.peace().await;
        // What crashes left behind is collected after its grace, when somebody leads.
        tokio::time::sleep(COLLECTED).await;
        self.cluster.quiet().await;
    }

    fn node(&mut self) -> String {
        let names = self.cluster.names();
        names[self.random.below(names.len())].clone()
    }

    async fn event(&mut self) -> String {
        let node = self.node();
        match self.random.below(100) {
            0..20 => self.run_pod(node),
            20..25 => self.renew_pod(),
            25..36 => self.end_pod(),
            36..43 => {
                self.cluster.kill(&node).await;
                format!("kill -9 of {node}")
            }
            43..48 => {
                self.cluster.stop(&node).await;
                format!("SIGTERM for {node}")
            }
            48..60 => {
                self.cluster.start(&node);
                format!("start of {node}")
            }
            60..66 => self.part(&node),
            66..74 => self.disturb_store(&node),
            74..79 => {
                let mode = MODES[self.random.below(3)];
                self.cluster.set_mode(mode).await;
                format!("the mode becomes {mode}")
            }
            79..83 => self.disturb_kernel(&node),
            83..97 => self.intrude(&node),
            _ => self.move_node().await,
        }
    }

    fn run_pod(&mut self, node: String) -> String {
        if self.pods.len() == PODS {
            return self.end_pod();
        }
        self.named += 1;
        let pod = format!("p{}", self.named);
        self.cluster.nodes[&node].kubelet.run(&pod);
        self.pods.push((node.clone(), pod.clone()));
        format!("{pod} is to run on {node}")
    }

    fn end_pod(&mut self) -> String {
        if self.pods.is_empty() {
            return "nothing".to_owned();
        }
        let (node, pod) = self.pods.swap_remove(self.random.below(self.pods.len()));
        if let Some(node) = self.cluster.nodes.get(&node) {
            node.kubelet.end(&pod);
        }
        format!("{pod} on {node} is to end")
    }

    fn renew_pod(&mut self) -> String {
        if self.pods.is_empty() {
            return "nothing".to_owned();
        }
        let (node, pod) = &self.pods[self.random.below(self.pods.len())];
        if let Some(node) = self.cluster.nodes.get(node) {
            node.kubelet.renew(pod);
        }
        format!("{pod} on {node} gets a new sandbox")
    }

    fn part(&mut self, node: &str) -> String {
        let other = self.node();
        match self.random.below(3) {
            0 => {
                self.cluster.network.part(node, &other);
                format!("nothing gets through between {node} and {other}")
            }
            1 => {
                self.cluster.network.reset(node, &other);
                format!("connections of {node} and {other} are reset")
            }
            _ => {
                self.cluster.network.heal();
                "everything gets through".to_owned()
            }
        }
    }

    fn disturb_store(&mut self, node: &str) -> String {
        let store = &self.cluster.nodes[node].store;
        match self.random.below(5) {
            0 => {
                store.down();
                format!("the datastore is away for {node}")
            }
            1 => {
                self.cluster.nodes.values().for_each(|node| node.store.down());
                "the datastore is away".to_owned()
            }
            2 => {
                store.set_faults(StoreFaults { before: 10, after: 10, conflict: 10, delay: 50 });
                format!("the datastore fails now and then for {node}")
            }
            _ => {
                self.cluster.nodes.values().for_each(|node| node.store.up());
                "the datastore is back".to_owned()
            }
        }
    }

    fn disturb_kernel(&mut self, node: &str) -> String {
        let faults = match self.random.chance(50) {
            true => Faults { read: 10, write: 15 },
            false => Faults::default(),
        };
        self.cluster.net.foreign(node, format!("fails as {faults:?}"), |machine| machine.faults = faults);
        format!("the kernel of {node} fails as {faults:?}")
    }

    /// Somebody else changes the kernel.
    fn intrude(&mut self, node: &str) -> String {
        let subnet = self.cluster.nodes[node].address.addr().octets()[2];
        let nth = self.random.below(20);
        let net = self.cluster.net.clone();
        let what = match self.random.below(9) {
            0 | 1 => "a route of ours is deleted",
            2 => "a route of ours is taken over",
            3 => "eth0 flaps",
            4 => "tunl0 is set down",
            5 => "tunl0 loses its addresses",
            6 => "our table of nftables is deleted",
            7 => "our table of nftables is altered",
            _ => "eth0 gets another address",
        };
        net.foreign(node, what, |machine| match what {
            "a route of ours is deleted" => delete_route(machine, nth),
            "a route of ours is taken over" => take_over(machine, nth),
            "eth0 flaps" => {
                if let Some(index) = machine.device("eth0").map(|device| device.link.index) {
                    machine.set_up(index, false);
                    machine.set_up(index, true);
                    add_default_route(machine, subnet);
                }
            }
            "tunl0 is set down" => {
                if let Some(index) = machine.device(TUNNEL_DEVICE).map(|device| device.link.index) {
                    machine.set_up(index, false);
                }
            }
            "tunl0 loses its addresses" => {
                if let Some(link) = machine.device(TUNNEL_DEVICE).map(|device| device.link.clone()) {
                    link.addresses.iter().for_each(|address| machine.delete_address(link.index, *address));
                }
            }
            "our table of nftables is deleted" => machine.ruleset = None,
            "our table of nftables is altered" => {
                if let Some(found) = &mut machine.ruleset {
                    found.altered = true;
                }
            }
            _ => {
                if let Some(index) = machine.device("eth0").map(|device| device.link.index) {
                    machine.add_address(index, "203.0.113.7/24".parse().expect("a constant CIDR"));
                }
            }
        });
        format!("on {node} {what}")
    }

    /// A node goes for ever, and its name comes back as a new machine.
    async fn move_node(&mut self) -> String {
        let number = 1 + NODES;
        let name = format!("n{number}");
        match self.cluster.nodes.contains_key(&name) {
            true => {
                self.pods.retain(|(node, _)| *node != name);
                self.cluster.remove_node(&name).await;
                format!("{name} is removed")
            }
            false => {
                self.cluster.add_node(number).await;
                self.cluster.start(&name);
                format!("{name} is added")
            }
        }
    }

    /// Nothing goes wrong any more, and every agent runs.
    async fn peace(&mut self) {
        self.log.push("peace".to_owned());
        if !self.cluster.nodes.contains_key(&format!("n{}", 1 + NODES)) {
            // What a node held is given up when it comes back, as another machine.
            self.cluster.add_node(1 + NODES).await;
        }
        self.cluster.network.heal();
        for name in self.cluster.names() {
            let node = &self.cluster.nodes[&name];
            node.store.set_faults(StoreFaults::default());
            node.store.up();
            self.cluster.net.foreign(&name, "peace", |machine| {
                machine.faults = Faults::default();
                machine.routes.retain(|route| Ownership::is_ours(route) || route.protocol != Protocol(99));
            });
            self.cluster.start(&name);
        }
    }
}

fn delete_route(machine: &mut Machine, nth: usize) {
    let ours: Vec<Route> = machine.routes.iter().filter(|route| Ownership::is_ours(route)).cloned().collect();
    if let Some(route) = ours.get(nth % ours.len().max(1)) {
        machine.routes.retain(|present| present != route);
    }
}

/// Another program writes its own route where one of ours is (`ip route replace`).
fn take_over(machine: &mut Machine, nth: usize) {
    let Some(device) = machine.device("eth0").map(|device| device.link.index) else { return };
    let remote: Vec<IpNet> = machine
        .routes
        .iter()
        .filter(|route| Ownership::is_ours(route) && route.key.destination.prefix_len() < 32)
        .map(|route| route.key.destination)
        .collect();
    let Some(destination) = remote.get(nth % remote.len().max(1)).copied() else { return };
    let default = machine.routes.iter().find(|route| route.protocol == STATIC);
    let Some(Target::Hops(hops)) = default.map(|route| route.target.clone()) else { return };
    let hops = hops.into_iter().map(|hop| Hop { device, ..hop }).collect();
    let key = RouteKey { destination, priority: 0 };
    machine.routes.retain(|route| route.key != key);
    machine.routes.push(Route { key, protocol: Protocol(99), target: Target::Hops(hops) });
}
