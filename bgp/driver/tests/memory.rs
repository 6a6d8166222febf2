//! Whole speakers in one process, over streams in memory and under tokio's stopped clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use ipnet::IpNet;
use manx_bgp::Asn;
use manx_bgp::session::State;
use manx_bgp::speaker::{BestPath, Change, PeerConfig, PeerStatus, SpeakerConfig};
use manx_bgp::wire::{
    Capability, Context, ErrorCode, Family, Message, Open, encode_announcements, next_frame,
};
use manx_bgp_driver::{Bgp, BoxFuture, Connection, Dial, Listener, Shutdown, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

const CONTEXT: Context = Context { four_octet: true, external: false };
const PORT: u16 = 179;

/// A network in memory: who listens where.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<Connection>>>>);

/// The network as a node sees it, which dials from its own address.
struct Nic {
    net: Net,
    address: IpAddr,
}

struct Ear(mpsc::UnboundedReceiver<Connection>);

impl Net {
    fn dial(&self, from: IpAddr, to: SocketAddr) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = self.0.lock().unwrap().get(&to).cloned().ok_or_else(refused)?;
        let (ours, theirs) = duplex(16 * 1024);
        let remote = SocketAddr::new(from, 40000);
        let connection = Connection::new(Box::new(theirs), to, remote);
        listener.send(connection).map_err(|_| refused())?;
        Ok(ours)
    }
}

impl Transport for Nic {
    fn dial(&self, dial: Dial) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let stream = self.net.dial(self.address, dial.remote)?;
            Ok(Connection::new(Box::new(stream), SocketAddr::new(self.address, 40000), dial.remote))
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut listeners = self.net.0.lock().unwrap();
            if listeners.get(&address).is_some_and(|old| !old.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            listeners.insert(address, sender);
            Ok(Box::new(Ear(receiver)) as Box<dyn Listener>)
        })
    }
}

impl Listener for Ear {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move { self.0.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into()) })
    }
}

fn address(node: u8) -> IpAddr {
    [10, 0, 0, node].into()
}

fn door(node: u8) -> SocketAddr {
    SocketAddr::new(address(node), PORT)
}

/// A node with the kernel that it would program, run by a task of its own.
struct Node {
    bgp: Bgp,
    routes: BTreeMap<IpNet, BestPath>,
    withdrawals: usize,
    converged: bool,
}

impl Node {
    /// Peers with these nodes, all inside one AS; the lower address dials.
    fn start(net: &Net, node: u8, peers: &[u8], forwarding_preserved: bool, own: &[&str]) -> Self {
        let mut config = SpeakerConfig::new(Asn::DEFAULT, [10, 0, 0, node].into());
        config.forwarding_preserved = forwarding_preserved;
        for peer in peers {
            let mut wanted = PeerConfig::new(format!("node-{peer}"), Asn::DEFAULT);
            wanted.passive = node > *peer;
            config.peers.insert(address(*peer), wanted);
        }
        let transport = Arc::new(Nic { net: net.clone(), address: address(node) });
        let mut bgp = Bgp::new(transport, config, Some(door(node)), u64::from(node));
        bgp.originate(own.iter().map(|prefix| prefix.parse().unwrap()).collect());
        Self { bgp, routes: BTreeMap::new(), withdrawals: 0, converged: false }
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

    fn peer(&self, node: u8) -> PeerStatus {
        let mut peers = self.bgp.status().speaker.peers.into_iter();
        peers.find(|peer| peer.address == address(node)).unwrap()
    }

    fn established(&self, node: u8) -> bool {
        self.peer(node).state == State::Established
    }

    fn has(&self, prefix: &str) -> bool {
        self.routes.contains_key(&prefix.parse().unwrap())
    }
}

/// Runs the nodes until the condition holds; the clock jumps from timer to timer.
async fn until(nodes: &mut [&mut Node], what: &str, mut holds: impl FnMut(&[&mut Node]) -> bool) {
    let end = Instant::now() + Duration::from_secs(1000);
    while !holds(nodes) {
        assert!(Instant::now() < end, "never happened: {what}\n{:#?}", nodes[0].bgp.status());
        step(nodes).await;
    }
}

/// Lets every node work for some tens of milliseconds.
async fn step(nodes: &mut [&mut Node]) {
    for node in nodes {
        while let Ok(changes) = timeout(Duration::from_millis(10), node.bgp.next()).await {
            node.apply(changes);
        }
    }
}

/// A peer played by hand.
struct Raw {
    stream: DuplexStream,
    buffer: BytesMut,
}

impl Raw {
    async fn establish(net: &Net, from: u8, to: u8) -> Self {
        while !net.0.lock().unwrap().contains_key(&door(to)) {
            tokio::task::yield_now().await;
        }
        let stream = net.dial(address(from), door(to)).unwrap();
        let mut raw = Self { stream, buffer: BytesMut::new() };
        let identifier = [10, 0, 0, from].into();
        let capabilities =
            vec![Capability::Multiprotocol(Family::IPV4_UNICAST), Capability::FourOctetAs(64512)];
        raw.send(Message::Open(Open { my_as: 64512, hold_time: 90, identifier, capabilities })).await;
        raw.send(Message::Keepalive).await;
        raw
    }

    async fn send(&mut self, message: Message) {
        let mut bytes = BytesMut::new();
        message.encode(CONTEXT, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next message; `None` when the connection has ended.
    async fn read(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = next_frame(&mut self.buffer).unwrap() {
                return Some(Message::decode(&frame, CONTEXT).unwrap());
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// Reads to the end; the NOTIFICATION that came last.
    async fn farewell(&mut self) -> Option<ErrorCode> {
        let mut last = None;
        while let Some(message) = self.read().await {
            last = Some(message);
        }
        match last {
            Some(Message::Notification(notification)) => Some(notification.error),
            _ => None,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_nodes_exchange_prefixes_and_stay_up_for_hours() {
    let net = Net::default();
    let mut one = Node::start(&net, 1, &[2], false, &["192.168.1.0/26"]);
    let mut two = Node::start(&net, 2, &[1], false, &["192.168.2.0/26"]);
    until(&mut [&mut one, &mut two], "both converge", |nodes| nodes.iter().all(|node| node.converged)).await;
    assert!(one.has("192.168.2.0/26") && two.has("192.168.1.0/26"));
    assert_eq!(one.routes[&"192.168.2.0/26".parse().unwrap()].next_hop, address(2));
    tokio::select! {
        () = sleep(Duration::from_secs(2 * 3600)) => (),
        _ = async { loop { let _ = one.bgp.next().await; } } => (),
        _ = async { loop { let _ = two.bgp.next().await; } } => (),
    }
    assert!(one.peer(2).state_for > Duration::from_secs(7000) && one.established(2));
    two.bgp.originate(BTreeSet::new());
    until(&mut [&mut one, &mut two], "the withdrawal", |nodes| nodes[0].routes.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_comes_back_and_nobody_withdraws_anything() {
    let net = Net::default();
    let mut one = Node::start(&net, 1, &[2], false, &["192.168.1.0/26"]);
    let mut two = Node::start(&net, 2, &[1], false, &["192.168.2.0/26"]);
    for _ in 0..3 {
        until(&mut [&mut one, &mut two], "converge", |nodes| nodes.iter().all(|node| node.converged)).await;
        drop(two);
        until(&mut [&mut one], "the loss", |nodes| !nodes[0].established(2)).await;
        assert_eq!((one.peer(2).stale, one.withdrawals), (1, 0));
        two = Node::start(&net, 2, &[1], true, &["192.168.2.0/26"]);
    }
    until(&mut [&mut one, &mut two], "all fresh", |nodes| nodes[1].converged && nodes[0].peer(2).stale == 0)
        .await;
    assert_eq!((one.withdrawals, two.withdrawals), (0, 0));
    assert!(one.has("192.168.2.0/26") && two.has("192.168.1.0/26"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_withdraws_and_a_restart_does_not() {
    for (how, stale) in [(Shutdown::Stop, 0), (Shutdown::Restart, 1)] {
        let net = Net::default();
        let mut one = Node::start(&net, 1, &[2], false, &[]);
        let mut two = Node::start(&net, 2, &[1], false, &["192.168.2.0/26"]);
        until(&mut [&mut one, &mut two], "the route", |nodes| nodes[0].has("192.168.2.0/26")).await;
        let ((), ()) = tokio::join!(two.bgp.shutdown(how), async {
            until(&mut [&mut one], "the end", |nodes| !nodes[0].established(2)).await;
        });
        assert_eq!((one.peer(2).received, one.peer(2).stale), (stale, stale));
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_peer_ends_and_comes_back_when_it_is_added() {
    let net = Net::default();
    let mut one = Node::start(&net, 1, &[2], false, &[]);
    let mut two = Node::start(&net, 2, &[1], false, &["192.168.2.0/26"]);
    until(&mut [&mut one, &mut two], "the route", |nodes| nodes[0].has("192.168.2.0/26")).await;
    let mut config = SpeakerConfig::new(Asn::DEFAULT, [10, 0, 0, 1].into());
    one.bgp.configure(config.clone());
    until(&mut [&mut one, &mut two], "the end", |nodes| !nodes[0].has("192.168.2.0/26")).await;
    until(&mut [&mut one, &mut two], "the word", |nodes| {
        nodes[1].peer(1).last_error.is_some_and(|error| error.contains("Peer De-configured"))
    })
    .await;
    config.peers.insert(address(2), PeerConfig::new("again", Asn::DEFAULT));
    one.bgp.configure(config);
    until(&mut [&mut one, &mut two], "the route again", |nodes| nodes[0].has("192.168.2.0/26")).await;
}

#[tokio::test(start_paused = true)]
async fn garbage_gets_a_notification_and_everything_else_goes_on() {
    let net = Net::default();
    let mut one = Node::start(&net, 2, &[1, 3], false, &[]);
    let mut two = Node::start(&net, 3, &[2], false, &["192.168.3.0/26"]);
    until(&mut [&mut one, &mut two], "the route", |nodes| nodes[0].has("192.168.3.0/26")).await;
    let mut raw = Raw::establish(&net, 1, 2).await;
    until(&mut [&mut one, &mut two], "established", |nodes| nodes[0].established(1)).await;
    raw.stream.write_all(b"\x00 this is no BGP, and will never be").await.unwrap();
    let farewell = tokio::spawn(async move { raw.farewell().await });
    until(&mut [&mut one, &mut two], "its end", |nodes| !nodes[0].established(1)).await;
    let error = farewell.await.unwrap();
    assert_eq!(error, Some(ErrorCode::NOT_SYNCHRONIZED));
    assert!(one.peer(1).last_error.is_some_and(|words| words.contains("this is no BGP")));
    assert!(one.established(3) && one.has("192.168.3.0/26") && one.withdrawals == 0);
}

#[tokio::test(start_paused = true)]
async fn strangers_are_closed_and_counted() {
    let net = Net::default();
    let mut one = Node::start(&net, 2, &[1], false, &[]);
    step(&mut [&mut one]).await;
    for _ in 0..3 {
        let mut stream = net.dial(address(66), door(2)).unwrap();
        assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0, "closed without a word");
    }
    assert_eq!(one.bgp.status().listener.strangers, 3);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_cannot_bind_is_reported_and_tried_again() {
    let net = Net::default();
    let nic = Nic { net: net.clone(), address: address(2) };
    let squatter = nic.listen(door(2)).await.unwrap();
    let mut one = Node::start(&net, 2, &[1], false, &[]);
    let mut seen = None;
    until(&mut [&mut one], "the report", |nodes| {
        seen = nodes[0].bgp.status().listener.error;
        seen.is_some()
    })
    .await;
    drop(squatter);
    until(&mut [&mut one], "the recovery", |nodes| nodes[0].bgp.status().listener.error.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_stalls_nobody_and_is_given_up_in_the_end() {
    let net = Net::default();
    let mut one = Node::start(&net, 2, &[1, 3], false, &[]);
    let mut two = Node::start(&net, 3, &[2], false, &[]);
    let mut raw = Raw::establish(&net, 1, 2).await;
    until(&mut [&mut one, &mut two], "established", |nodes| {
        nodes[0].established(1) && nodes[0].established(3)
    })
    .await;
    let many = |third: u8| -> BTreeSet<IpNet> {
        let prefix = |n: u32| format!("10.{}.{}.{}/32", third, n / 256, n % 256).parse().unwrap();
        (0..60_000u32).map(prefix).collect()
    };
    one.bgp.originate(many(7));
    until(&mut [&mut one, &mut two], "all at the other peer", |nodes| nodes[1].routes.len() == 60_000).await;
    // What the stuck peer was not told when this changes, it is never told.
    one.bgp.originate(many(8));
    until(&mut [&mut one, &mut two], "all again", |nodes| {
        nodes[1].routes.len() == 60_000 && nodes[1].has("10.8.0.0/32")
    })
    .await;
    assert!(one.established(1) && one.peer(1).sent < 120_000);
    let begun = Instant::now();
    while one.established(1) {
        raw.send(Message::Keepalive).await;
        step(&mut [&mut one, &mut two]).await;
        sleep(Duration::from_secs(5)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(400), "{:?}", begun.elapsed());
    assert!(one.peer(1).last_error.is_some_and(|words| words.contains("send hold timer")), "RFC 9687");
    assert!(one.established(3));
}

#[tokio::test(start_paused = true)]
async fn a_busy_owner_starves_no_keepalive_and_loses_no_update() {
    let net = Net::default();
    let mut one = Node::start(&net, 2, &[1], false, &[]);
    let raw = Raw::establish(&net, 1, 2).await;
    until(&mut [&mut one], "established", |nodes| nodes[0].established(1)).await;
    // The owner looks away for ten minutes, and more UPDATEs come than anybody holds for it.
    let mut updates = BytesMut::new();
    for n in 0..20_000u32 {
        let prefix = format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap();
        let attributes = manx_bgp::wire::Attributes::default();
        encode_announcements(&attributes, address(1), &[prefix], CONTEXT, &mut updates).unwrap();
    }
    let (mut reader, mut writer) = tokio::io::split(raw.stream);
    let sending = tokio::spawn(async move { writer.write_all(&updates).await.map(|()| writer) });
    let keepalives = tokio::spawn(async move {
        let mut heard = Vec::new();
        let _ = timeout(Duration::from_secs(600), reader.read_to_end(&mut heard)).await;
        (heard.len() / 19, reader)
    });
    let (keepalives, _reader) = keepalives.await.unwrap();
    assert!(keepalives >= 20, "{keepalives} in ten minutes");
    assert!(!sending.is_finished(), "nothing piles up at our side");
    until(&mut [&mut one], "all updates", |nodes| nodes[0].routes.len() == 20_000).await;
    assert!(one.established(1) && sending.is_finished());
}
