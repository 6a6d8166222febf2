//! A cluster: nodes with agents and kubelets, one datastore, a router between the subnets.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::{IpNet, Ipv4Net};
use manx::agent::{Agent, Doors};
use manx::config::{Config, Settings};
use manx::status::Status;
use manx_datastore::testing::{Faults, Faulty};
use manx_datastore::{Datastore, Memory, Only};
use manx_felix::{Hop, Route, RouteKey, Target};
use manx_model::{DEFAULT_IPV4_POOL, Kind, Object};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::kernel::FakeKernel;
use crate::kubelet::Kubelet;
use crate::machine::{Machine, STATIC, Segment};
use crate::network::Network;
use crate::tor::{self, TOR, TOR_ASN};
use crate::world::Net;

/// Subnets of every cluster.
pub const SUBNETS: u8 = 2;
/// When nothing has happened for this long, nothing will: all timers of BGP and of the agents are shorter.
const QUIET: Duration = Duration::from_secs(400);

thread_local! {
    /// When the simulation of this thread began.
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A running cluster.
pub struct Cluster {
    /// The machines.
    pub net: Net,
    /// Their connections.
    pub network: Network,
    /// What is stored.
    pub memory: Memory,
    /// The nodes that are there.
    pub nodes: BTreeMap<String, Node>,
    /// What every agent is told at its start, besides its own name.
    pub environment: BTreeMap<String, String>,
    seed: u64,
    starts: u64,
    tor_peers: watch::Sender<Vec<Ipv4Addr>>,
    /// Ends with the cluster.
    _tor: JoinSet<()>,
}

/// One node.
pub struct Node {
    /// Its address and subnet.
    pub address: Ipv4Net,
    /// Its way to the datastore.
    pub store: Faulty<Memory>,
    /// Who calls its agent.
    pub kubelet: Kubelet,
    /// The agent, while it runs.
    pub agent: Option<Agent>,
    /// Variables for this node's agent only.
    pub environment: BTreeMap<String, String>,
}

impl Cluster {
    /// A cluster without nodes. Chance comes from `seed`.
    pub fn new(seed: u64, mode: &str) -> Self {
        START.set(Some(Instant::now()));
        let net = Net::new(seed);
        net.world().machines.insert(TOR.to_owned(), tor::machine(SUBNETS));
        let network = Network::new(net.clone());
        let (tor_peers, peers) = watch::channel(Vec::new());
        let mut tor = JoinSet::new();
        tor.spawn(tor::speak(net.clone(), network.clone(), peers, seed));
        let environment = [
            ("CALICO_IPV4POOL_CIDR", "192.168.0.0/16"),
            ("CALICO_IPV4POOL_BLOCK_SIZE", "29"),
            ("CALICO_IPV4POOL_IPIP", mode),
            ("MANX_STATE_DIR", "/nonexistent"),
        ];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let (memory, nodes) = (Memory::new(), BTreeMap::new());
        Self { net, network, memory, nodes, environment, seed, starts: 0, tor_peers, _tor: tor }
    }

    /// A cluster of nodes `n1`, `n2`, …, in the two subnets by turns, whose agents run.
    pub async fn with_nodes(seed: u64, mode: &str, count: u8) -> Self {
        let mut cluster = Self::new(seed, mode);
        for number in 1..=count {
            cluster.add_node(number).await;
            cluster.start(&format!("n{number}"));
        }
        cluster
    }

    /// A new machine as node `n<number>`, with the router as its peer. Its agent does not run yet.
    pub async fn add_node(&mut self, number: u8) {
        let name = format!("n{number}");
        let subnet = 1 + (number - 1) % SUBNETS;
        let address = Ipv4Net::new(Ipv4Addr::new(10, 0, subnet, 10 + number), 24).expect("24 is a length");
        let mut machine = Machine::new();
        machine.add_wire("eth0", Segment(subnet), address);
        add_default_route(&mut machine, subnet);
        self.net.world().machines.insert(name.clone(), machine);
        self.starts += 1;
        let store = Faulty::new(self.memory.clone(), self.seed ^ self.starts << 32, Faults::default());
        let kubelet = Kubelet::default();
        self.nodes.insert(
            name.clone(),
            Node { address, store, kubelet, agent: None, environment: BTreeMap::new() },
        );
        self.tor_peers.send_modify(|peers| peers.push(address.addr()));
        let peer = json!({"node": name, "peerIP": tor::address_in(subnet), "asNumber": TOR_ASN});
        self.put(Kind::BGPPeer, &format!("tor-of-{name}"), |object| object.spec = peer).await;
    }

    /// Takes a node away: its machine, its objects, its pods.
    pub async fn remove_node(&mut self, name: &str) {
        self.kill(name).await;
        let Some(node) = self.nodes.remove(name) else { return };
        node.kubelet.power_off();
        self.net.world().machines.remove(name);
        self.tor_peers.send_modify(|peers| peers.retain(|peer| *peer != node.address.addr()));
        self.delete(Kind::BGPPeer, &format!("tor-of-{name}")).await;
        self.delete(Kind::Node, name).await;
    }

    /// Starts the agent of a node, unless it runs.
    pub fn start(&mut self, name: &str) {
        self.starts += 1;
        let seed = self.seed.wrapping_mul(1000).wrapping_add(self.starts);
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.agent.is_none()) else { return };
        let variables = self.environment.clone().into_iter().chain(node.environment.clone());
        let name_of_node = [("NODENAME".to_owned(), name.to_owned())];
        let settings = Settings::from_environment(variables.chain(name_of_node));
        let config = Config::read(&settings).expect("the simulation's own configuration");
        let doors = Doors {
            store: Arc::new(node.store.clone()),
            kernel: Arc::new(FakeKernel::new(self.net.clone(), name)),
            transport: self.network.of(name),
            wall_clock,
            seed,
        };
        let agent = Agent::start(Arc::new(config), doors);
        node.kubelet.connect(agent.pods.clone());
        node.agent = Some(agent);
    }

    /// `kill -9`, if it runs.
    pub async fn kill(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.kubelet.disconnect();
        drop(node.agent.take());
        // Its tasks end when they are next looked at.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// SIGTERM, if it runs.
    pub async fn stop(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        if let Some(agent) = node.agent.take() {
            agent.stop().await;
        }
        node.kubelet.disconnect();
    }

    /// The names of the nodes.
    pub fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Every pod that has its network, as node and address.
    pub fn established(&self) -> Vec<(String, Ipv4Addr)> {
        let of = |(name, node): (&String, &Node)| {
            let sandboxes: Vec<_> = node.kubelet.pods().into_values().flatten().collect();
            sandboxes.into_iter().map(|sandbox| (name.clone(), sandbox.address)).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// Runs `count` pods on every node, and waits until all of them reach each other.
    pub async fn run_pods(&self, count: usize) {
        for (name, node) in &self.nodes {
            (1..=count).for_each(|number| node.kubelet.run(&format!("{name}p{number}")));
        }
        let wanted = self.nodes.len() * count;
        self.until("all pods reach each other", || {
            self.established().len() == wanted && self.unreachable().is_empty()
        })
        .await;
    }

    /// From now on the pods that are established must reach each other after every single event.
    pub fn guard(&self) {
        self.net.world().guarded = self.established().into_iter().collect();
    }

    /// Every pair of established pods of which one does not reach the other, and why.
    pub fn unreachable(&self) -> Vec<String> {
        let (pods, world) = (self.established(), self.net.world());
        let mut found = Vec::new();
        for (from, source) in &pods {
            for (_, to) in pods.iter().filter(|(_, to)| to != source) {
                if let Err(dropped) = crate::trace::trace(&world, from, *to) {
                    found.push(format!("{source} does not reach {to}: {dropped}"));
                }
            }
        }
        found
    }

    /// Waits until something is so, at most ten minutes of virtual time.
    ///
    /// # Panics
    /// It does not become so.
    pub async fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        for _ in 0..6000 {
            if so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("ten minutes and not yet: {what}; {:#?}", self.unreachable());
    }

    /// Waits until nothing happens any more.
    ///
    /// # Panics
    /// It never ends.
    pub async fn quiet(&self) {
        let mut before = None;
        for _ in 0..50 {
            let changes = self.net.world().changes();
            let mut objects = self.objects().await;
            // Whoever leads says so for ever.
            objects.retain(|object| object.kind != Kind::Lease);
            let now = (changes, objects);
            if before.as_ref() == Some(&now) {
                return;
            }
            before = Some(now);
            tokio::time::sleep(QUIET).await;
        }
        let world = self.net.world();
        let last: Vec<_> = world.records.iter().rev().take(20).collect();
        panic!("it never ends: {last:#?}");
    }

    /// Everything that is stored.
    pub async fn objects(&self) -> Vec<Object> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            let listed = self.memory.list(kind, &Only::All).await.expect("memory answers");
            all.extend(listed.into_iter().map(|object| object.expect("memory keeps what can be read")));
        }
        all
    }

    /// Changes an object, or makes it, behind all agents' backs.
    pub async fn put(&self, kind: Kind, name: &str, change: impl FnOnce(&mut Object)) {
        let stored = self.memory.get(kind, name).await.expect("memory answers");
        let answer = match stored {
            Some(mut object) => {
                change(&mut object);
                self.memory.update(object).await
            }
            None => {
                let mut object = Object::new(kind, name, &Value::Null);
                change(&mut object);
                self.memory.create(object).await
            }
        };
        answer.expect("nobody writes in between");
    }

    /// Deletes an object, if it is there.
    pub async fn delete(&self, kind: Kind, name: &str) {
        if let Some(object) = self.memory.get(kind, name).await.expect("memory answers") {
            self.memory.delete(&object).await.expect("nobody writes in between");
        }
    }

    /// Edits the mode of the default pool, once it is there.
    pub async fn set_mode(&self, mode: &str) {
        if self.memory.get(Kind::IPPool, DEFAULT_IPV4_POOL).await.expect("memory answers").is_some() {
            self.put(Kind::IPPool, DEFAULT_IPV4_POOL, |pool| pool.spec["ipipMode"] = json!(mode)).await;
        }
    }

    /// What the agent of a node complains about.
    pub async fn problems(&self, name: &str) -> Vec<String> {
        self.status(name).await.problems
    }

    /// What the agent of a node says of itself.
    pub async fn status(&self, name: &str) -> Status {
        match self.nodes.get(name).and_then(|node| node.agent.as_ref()) {
            Some(agent) => agent.view.status().await,
            None => Status { problems: vec!["there is no agent".to_owned()], ..Status::default() },
        }
    }
}

/// The default route of a node, as an administrator writes it.
pub fn add_default_route(machine: &mut Machine, subnet: u8) {
    let Some(device) = machine.device("eth0").map(|device| device.link.index) else { return };
    let destination: IpNet = "0.0.0.0/0".parse().expect("a constant CIDR");
    let hop = Hop { device, gateway: Some(tor::address_in(subnet).into()), onlink: false };
    let key = RouteKey { destination, priority: 0 };
    machine.routes.retain(|route| route.key != key);
    machine.routes.push(Route { key, protocol: STATIC, target: Target::Hops(vec![hop]) });
}

/// The time of day follows the virtual clock.
fn wall_clock() -> SystemTime {
    let elapsed = START.get().map_or(Duration::ZERO, |start| start.elapsed());
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + elapsed
}
