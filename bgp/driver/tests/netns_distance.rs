//! Our speaker, a router, and a real BIRD 2 behind it: what the distance of a peer means on the way.
//!
//! ```text
//!   us 10.77.1.2 -- 10.77.1.1 router 10.77.2.1 -- 10.77.2.2 BIRD
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod rig;

use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::process::Command;

use manx_bgp::session::{Guard, Password, Secret, Ttl};
use manx_lab::netns;

use rig::{Bird, Neighbour, Node, OURS};

const ROUTE: &str = "10.200.1.0/24";

/// Three namespaces, which go with it.
struct Wires([String; 3]);

impl Wires {
    fn new() -> Self {
        let names = ["us", "router", "bird"].map(|word| format!("mx-bgp{}-{word}", std::process::id()));
        let wires = Self(names);
        netns::add(&wires.0).unwrap();
        let [us, router, bird] = &wires.0;
        for (number, end) in [(1, us), (2, bird)] {
            ip(&format!("-n {router} link add eth{number} type veth peer name eth0 netns {end}"));
            ip(&format!("-n {router} address add 10.77.{number}.1/24 dev eth{number}"));
            ip(&format!("-n {end} address add 10.77.{number}.2/24 dev eth0"));
            [(router, format!("eth{number}")), (end, "eth0".into()), (end, "lo".into())]
                .iter()
                .for_each(|(namespace, link)| ip(&format!("-n {namespace} link set {link} up")));
            ip(&format!("-n {end} route add default via 10.77.{number}.1"));
        }
        let forward = netns::within(router, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"));
        forward.unwrap().unwrap();
        wires
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        netns::remove(&self.0).unwrap();
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

fn hops(number: u8) -> NonZeroU8 {
    NonZeroU8::new(number).unwrap()
}

#[test]
fn a_peer_behind_a_router_is_two_hops_away_and_no_nearer() {
    let wires = Wires::new();
    let [us, _, bird] = &wires.0;
    let (our, birds) = ([10, 77, 1, 2], [10, 77, 2, 2]);
    let (our, birds) = (SocketAddr::from((our, 1790)), SocketAddr::from((birds, 1790)));
    // A process is where the thread is that made it.
    let neighbours = [Neighbour::new(our).with("multihop 2; ttl security on; password \"s3cret\";")];
    let start = || Bird::start(birds, 65001, &neighbours, &["10.200.1.0/24 blackhole"]);
    let bird = netns::within(bird, start).unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    netns::within(us, || runtime().block_on(distances(our, &bird))).unwrap();
}

async fn distances(us: SocketAddr, bird: &Bird) {
    let peer = bird.address.ip();
    let guard = |ttl| {
        let password = Password::Key(Secret::new(b"s3cret").unwrap());
        Guard { password, ttl }
    };
    let mut node = Node::start(us, &[bird], |config| {
        config.peers.get_mut(&peer).unwrap().guard = guard(Ttl::Security(hops(1)));
    });
    let says = |node: &Node, what: &str| node.peer(bird).last_error.is_some_and(|words| words.contains(what));
    node.until("too far", |node| says(node, "it came with TTL 254, TTL security wants 255 at least")).await;
    node.until("no answer from so far", |node| says(node, "cannot connect")).await;
    assert!(!node.established(bird) && !bird.established(0));
    node.configure(|config| config.peers.get_mut(&peer).unwrap().guard = guard(Ttl::Security(hops(2))));
    node.until("routes both ways", |node| node.has(ROUTE) && bird.has(OURS)).await;
    node.configure(|config| config.peers.get_mut(&peer).unwrap().guard = guard(Ttl::Hops(hops(1))));
    node.until("the end", |node| !node.established(bird)).await;
    node.until("no way so far", |node| says(node, "cannot connect")).await;
    assert!(!node.established(bird) && !bird.established(0));
}
