//! Our speaker and a real BIRD 2 over loopback: no root, no kernel routes, high ports.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use manx_bgp::Asn;
use manx_bgp::session::State;
use manx_bgp::speaker::{BestPath, Change, PeerConfig, PeerStatus, SpeakerConfig};
use manx_bgp_driver::{Bgp, Shutdown, Tcp};
use tokio::time::{sleep, timeout};

const OUR_ASN: u32 = 64512;
/// What BIRD originates; the second one only in the beginning.
const BIRDS: [&str; 2] = ["10.200.1.0/24", "10.200.2.0/24"];
/// What we originate.
const OURS: &str = "192.168.7.64/26";

/// A BIRD with its files in a directory of its own.
struct Bird {
    directory: PathBuf,
    child: Child,
    address: SocketAddr,
    asn: u32,
}

/// Addresses and ports of both sides, free on this machine when the test began.
#[derive(Clone, Copy)]
struct Wires {
    bird: SocketAddr,
    us: SocketAddr,
}

impl Wires {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let third = (std::process::id() % 200 + 20) as u8;
        let pair = NEXT.fetch_add(1, Ordering::Relaxed) as u8;
        let free = |last| {
            let address = IpAddr::from([127, third, pair, last]);
            TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
        };
        Self { bird: free(2), us: free(3) }
    }
}

impl Bird {
    fn start(wires: Wires, asn: u32) -> Self {
        let name = format!("manx-bird-{}-{}", std::process::id(), wires.bird.port());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let child = Self::spawn(&directory, wires, asn, &BIRDS, false);
        Self { directory, child, address: wires.bird, asn }
    }

    fn spawn(directory: &Path, wires: Wires, asn: u32, routes: &[&str], recover: bool) -> Child {
        Self::write_config(directory, wires, asn, routes);
        let mut command = Command::new("/usr/sbin/bird");
        command.arg("-f").arg("-c").arg(directory.join("bird.conf"));
        command.arg("-s").arg(directory.join("ctl")).arg("-P").arg(directory.join("pid"));
        command.args(recover.then_some("-R")).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| {
            panic!("this test needs /usr/sbin/bird: install the Debian package bird2 ({error})")
        })
    }

    fn write_config(directory: &Path, wires: Wires, asn: u32, routes: &[&str]) {
        let Wires { bird, us } = wires;
        let routes: String = routes.iter().map(|route| format!("  route {route} blackhole;\n")).collect();
        let config = format!(
            "log \"{log}\" all;\n\
             router id {bird_ip};\n\
             protocol device {{}}\n\
             protocol static {{\n  ipv4;\n{routes}}}\n\
             protocol bgp manx {{\n\
               local {bird_ip} port {bird_port} as {asn};\n\
               neighbor {us_ip} port {us_port} as {OUR_ASN};\n\
               source address {bird_ip};\n\
               strict bind yes;\n\
               multihop;\n\
               debug {{ states, events }};\n\
\
               graceful restart on;\n\
               connect delay time 1;\n\
               connect retry time 1;\n\
               error wait time 1, 2;\n\
               ipv4 {{ import all; export all; }};\n\
             }}\n",
            log = directory.join("log").display(),
            bird_ip = bird.ip(),
            bird_port = bird.port(),
            us_ip = us.ip(),
            us_port = us.port(),
        );
        fs::write(directory.join("bird.conf"), config).unwrap();
    }

    fn ask(&self, question: &str) -> String {
        let mut command = Command::new("/usr/sbin/birdc");
        command.arg("-s").arg(self.directory.join("ctl")).args(question.split(' '));
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn has(&self, prefix: &str) -> bool {
        self.ask(&format!("show route {prefix}")).contains("[manx")
    }

    /// As `kill -9` and a new start find it.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self, wires: Wires, routes: &[&str]) {
        self.child = Self::spawn(&self.directory, wires, self.asn, routes, true);
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.directory.join("log")).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Our side, with the kernel that it would program.
struct Node {
    bgp: Bgp,
    routes: BTreeMap<IpNet, BestPath>,
    withdrawals: usize,
    converged: bool,
}

impl Node {
    fn start(wires: Wires, bird: &Bird, forwarding_preserved: bool) -> Self {
        let mut config = SpeakerConfig::new(Asn::new(OUR_ASN).unwrap(), [10, 0, 0, 1].into());
        config.forwarding_preserved = forwarding_preserved;
        let mut peer = PeerConfig::new("ToR", Asn::new(bird.asn).unwrap());
        peer.port = bird.address.port();
        peer.local_address = Some(wires.us.ip());
        config.peers.insert(bird.address.ip(), peer);
        let mut bgp = Bgp::new(Arc::new(Tcp), config, Some(wires.us), 1);
        bgp.originate(BTreeSet::from([OURS.parse().unwrap()]));
        Self { bgp, routes: BTreeMap::new(), withdrawals: 0, converged: false }
    }

    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::select! {
                    changes = self.bgp.next() => self.apply(changes),
                    () = sleep(Duration::from_millis(50)) => (),
                }
            }
        };
        let done = timeout(Duration::from_secs(40), wait).await;
        assert!(done.is_ok(), "never happened: {what}\n{:#?}", self.bgp.status());
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Best { prefix, path: Some(path) } => drop(self.routes.insert(prefix, path)),
                Change::Best { prefix, path: None } => {
                    self.routes.remove(&prefix);
                    self.withdrawals += 1;
                }
                Change::Converged => self.converged = true,
                Change::Peers => (),
            }
        }
    }

    fn peer(&self) -> PeerStatus {
        self.bgp.status().speaker.peers.remove(0)
    }

    fn established(&self) -> bool {
        self.peer().state == State::Established
    }

    fn has(&self, prefix: &str) -> bool {
        self.routes.contains_key(&prefix.parse().unwrap())
    }
}

/// Establishes, exchanges and withdraws in both directions.
async fn prefixes_go_both_ways(bird_asn: u32) {
    let wires = Wires::new();
    let bird = Bird::start(wires, bird_asn);
    let mut node = Node::start(wires, &bird, false);
    node.until("both of BIRD's prefixes", |node| BIRDS.iter().all(|prefix| node.has(prefix))).await;
    node.until("ours at BIRD", |_| bird.has(OURS)).await;
    node.until("End-of-RIB", |node| node.converged).await;
    let path = &node.routes[&BIRDS[0].parse().unwrap()];
    let external = bird_asn != OUR_ASN;
    assert_eq!(path.next_hop, wires.bird.ip());
    assert_eq!(
        path.attributes.as_path.to_string(),
        if external { bird_asn.to_string() } else { String::new() }
    );
    let all = bird.ask(&format!("show route {OURS} all"));
    assert!(all.contains(&format!("BGP.next_hop: {}", wires.us.ip())), "{all}");
    assert!(all.contains(if external { "BGP.as_path: 64512" } else { "BGP.local_pref: 100" }), "{all}");

    Bird::write_config(&bird.directory, wires, bird_asn, &BIRDS[..1]);
    assert!(bird.ask("configure").contains("Reconfigured"));
    node.until("BIRD's withdrawal", |node| !node.has(BIRDS[1]) && node.has(BIRDS[0])).await;
    node.bgp.originate(BTreeSet::new());
    node.until("our withdrawal", |_| !bird.has(OURS)).await;
    node.bgp.originate(BTreeSet::from([OURS.parse().unwrap()]));
    node.until("ours again", |_| bird.has(OURS)).await;

    let shown = bird.ask("show protocols all manx");
    for words in
        ["Established", "Graceful restart", "4-octet AS numbers", "Route refresh", "Restart time: 120"]
    {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    let log = fs::read_to_string(bird.directory.join("log")).unwrap();
    assert!(!log.contains("Received error") && !log.contains("Error:") && !log.contains("Invalid"), "{log}");

    assert!(bird.ask("reload in manx").contains("manx: reloading"));
    node.until("a refresh", |_| bird.has(OURS)).await;
    node.bgp.shutdown(Shutdown::Stop).await;
    let gone = async {
        while bird.has(OURS) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.expect("BIRD forgets us when we stop");
    let shown = bird.ask("show protocols all manx");
    assert!(shown.contains("Received: Administrative shutdown"), "{shown}");
}

#[tokio::test]
async fn prefixes_go_both_ways_over_ibgp() {
    prefixes_go_both_ways(OUR_ASN).await;
}

#[tokio::test]
async fn prefixes_go_both_ways_over_ebgp() {
    prefixes_go_both_ways(4_200_000_001).await;
}

#[tokio::test]
async fn bird_keeps_our_routes_while_we_are_killed_and_start_again_twice() {
    let wires = Wires::new();
    let bird = Bird::start(wires, 65001);
    let mut node = Node::start(wires, &bird, false);
    node.until("ours at BIRD", |node| bird.has(OURS) && node.converged).await;
    for _ in 0..2 {
        drop(node);
        let noticed = async {
            while bird.ask("show protocols manx").contains("Established") {
                assert!(bird.has(OURS));
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), noticed).await.expect("BIRD notices");
        assert!(bird.has(OURS), "{}", bird.ask("show protocols all manx"));
        node = Node::start(wires, &bird, true);
        node.until("established again", |node| {
            assert!(bird.has(OURS), "BIRD lost our route");
            node.established()
        })
        .await;
        node.until("converged again", |node| {
            assert!(bird.has(OURS), "BIRD lost our route");
            node.converged && node.has(BIRDS[0])
        })
        .await;
        let route = bird.ask(&format!("show route {OURS} all"));
        assert!(route.contains(OURS) && node.withdrawals == 0, "{route}");
    }
    // Nothing is stale in the end: the route is there because we told it again.
    node.bgp.shutdown(Shutdown::Restart).await;
    let log = fs::read_to_string(bird.directory.join("log")).unwrap();
    assert!(log.contains("Neighbor graceful restart detected"), "{log}");
    assert!(!log.contains("Neighbor graceful restart timeout"), "{log}");
}

#[tokio::test]
async fn we_keep_birds_routes_while_it_is_killed_and_starts_again() {
    let wires = Wires::new();
    let mut bird = Bird::start(wires, 65001);
    let mut node = Node::start(wires, &bird, false);
    node.until("BIRD's prefixes", |node| BIRDS.iter().all(|prefix| node.has(prefix)) && node.converged).await;
    bird.kill();
    node.until("the loss", |node| !node.established()).await;
    assert_eq!((node.peer().received, node.peer().stale, node.withdrawals), (2, 2, 0));
    bird.restart(wires, &BIRDS[..1]);
    node.until("End-of-RIB", |node| node.established() && node.peer().stale == 0).await;
    node.until("what BIRD no longer has is gone", |node| !node.has(BIRDS[1])).await;
    assert!(node.has(BIRDS[0]) && node.withdrawals == 1, "{:?} {}", node.routes, node.withdrawals);
}
