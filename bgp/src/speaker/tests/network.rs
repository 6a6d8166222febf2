//! Whole networks of speakers, any of which reflects to any: whatever the topology, they come to rest and packets arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use bytes::BytesMut;
use ipnet::IpNet;
use manx_model::Asn;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

use super::world::{SECOND, address, asn};
use crate::policy::ExportPolicy;
use crate::session::{Negotiated, Output};
use crate::speaker::{PeerConfig, Speaker, SpeakerConfig};
use crate::wire::{Context, Message, Open, next_frame};

/// Nodes below this are in one AS, each of the others in one of its own.
const INSIDE: u8 = 6;
const NODES: u8 = 8;

/// Who peers with whom, and whether the second is a client of the first, and the first of the second.
type Edges = BTreeMap<(u8, u8), (bool, bool)>;

struct Network {
    now: Instant,
    speakers: Vec<Speaker>,
    messages: usize,
}

fn own_prefix(node: u8) -> IpNet {
    format!("192.168.{node}.0/24").parse().unwrap()
}

fn as_of(node: u8) -> Asn {
    if node < INSIDE { Asn::DEFAULT } else { asn(65000 + u32::from(node)) }
}

fn context(one: u8, other: u8) -> Context {
    Context { four_octet: true, external: as_of(one) != as_of(other) }
}

fn config(node: u8, edges: &Edges, clusters: &[u8]) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(as_of(node), [10, 0, 0, node].into());
    config.cluster_id = Some(Ipv4Addr::new(244, 0, 0, clusters[usize::from(node)]));
    for ((first, second), (second_is_client, first_is_client)) in edges {
        let (peer, client) = match node {
            it if it == *first => (*second, *second_is_client),
            it if it == *second => (*first, *first_is_client),
            _ => continue,
        };
        let wanted = PeerConfig::new(format!("node-{peer}"), as_of(peer));
        config.peers.insert(address(peer), PeerConfig { client, export: ExportPolicy::All, ..wanted });
    }
    config
}

impl Network {
    fn new(edges: &Edges, clusters: &[u8]) -> Self {
        let now = Instant::now();
        let speakers = (0..NODES).map(|node| Speaker::new(now, config(node, edges, clusters))).collect();
        let mut network = Self { now, speakers, messages: 0 };
        for node in 0..NODES {
            network.speakers[usize::from(node)].originate(now, BTreeSet::from([own_prefix(node)]));
        }
        edges.keys().for_each(|(one, other)| {
            network.connect(*one, *other);
            network.connect(*other, *one);
        });
        network
    }

    fn connect(&mut self, node: u8, peer: u8) {
        let router_id = Ipv4Addr::new(10, 0, 0, peer);
        let negotiated = Negotiated {
            open: Open { my_as: 0, hold_time: 90, identifier: router_id, capabilities: Vec::new() },
            context: context(node, peer),
            hold_time: 90 * SECOND,
            route_refresh: true,
            graceful: None,
            local: address(node),
            router_id,
        };
        self.hear(node, peer, Output::Established(Box::new(negotiated)));
    }

    fn hear(&mut self, node: u8, peer: u8, output: Output) {
        self.speakers[usize::from(node)].handle(self.now, address(peer), output);
    }

    /// Carries messages until nobody has anything to say; `order` chooses who speaks first. Whether they came to rest.
    fn settle(&mut self, mut order: u64) -> bool {
        for _ in 0..10_000 {
            let pending: Vec<(u8, IpAddr)> = (0..NODES)
                .flat_map(|node| {
                    self.speakers[usize::from(node)].pending().into_iter().map(move |to| (node, to))
                })
                .collect();
            if pending.is_empty() {
                return true;
            }
            order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (node, to) = pending[(order >> 33) as usize % pending.len()];
            self.carry(node, to);
        }
        false
    }

    fn carry(&mut self, node: u8, to: IpAddr) {
        let Some(bytes) = self.speakers[usize::from(node)].transmit(to) else { return };
        let IpAddr::V4(peer) = to else { return };
        let peer = peer.octets()[3];
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Some(frame) = next_frame(&mut buffer).unwrap() {
            let Ok(Message::Update(update)) = Message::decode(&frame, context(node, peer)) else { panic!() };
            assert_eq!(update.errors, []);
            self.messages += 1;
            self.hear(peer, node, Output::Update(Box::new(update)));
        }
    }

    /// Where a packet from a node to a prefix ends: at the node that originates it, or nowhere.
    fn arrives(&self, from: u8, prefix: &IpNet) -> Option<u8> {
        let mut at = from;
        for _ in 0..=NODES {
            if own_prefix(at) == *prefix {
                return Some(at);
            }
            let IpAddr::V4(next) = self.speakers[usize::from(at)].best(prefix)?.next_hop else { return None };
            at = next.octets()[3];
        }
        None
    }
}

fn any_edges() -> impl Strategy<Value = Edges> {
    let edge = (0..NODES, 0..NODES, any::<bool>(), any::<bool>());
    prop::collection::vec(edge, 0..24).prop_map(|edges| {
        let ordered = edges.into_iter().filter(|(one, other, ..)| one < other);
        ordered.map(|(one, other, first, second)| ((one, other), (first, second))).collect()
    })
}

proptest! {
    /// Inside the AS every node reaches every other, as BGP presumes of the IGP, so the next hop is as good as the way.
    #[test]
    fn any_network_of_reflectors_comes_to_rest_without_loops(
        edges in any_edges(),
        clusters in prop::collection::vec(0..4u8, usize::from(NODES)),
        orders in any::<[u64; 2]>(),
    ) {
        let mut networks = orders.map(|_| Network::new(&edges, &clusters));
        for (network, order) in networks.iter_mut().zip(orders) {
            prop_assert!(network.settle(order), "{} messages and no end", network.messages);
            for (node, prefix) in (0..NODES).flat_map(|node| (0..NODES).map(move |it| (node, own_prefix(it)))) {
                let Some(best) = network.speakers[usize::from(node)].best(&prefix) else { continue };
                let attributes = &best.attributes;
                let distinct: BTreeSet<_> = attributes.cluster_list.iter().collect();
                prop_assert_eq!(distinct.len(), attributes.cluster_list.len(), "no cluster twice");
                prop_assert!(!attributes.cluster_list.contains(&Ipv4Addr::new(244, 0, 0, clusters[usize::from(node)])));
                prop_assert_eq!(attributes.as_path.count(as_of(node)), 0);
                prop_assert!(network.arrives(node, &prefix).is_some(), "{} to {}: {:?}", node, prefix, best);
            }
        }
    }
}

#[test]
fn two_reflectors_of_one_cluster_and_their_clients_know_everything() {
    // 0 and 1 reflect to 2, 3 and 4 and peer with each other; 6 is outside, behind 2.
    let mut edges: Edges = [((0, 1), (false, false)), ((2, 6), (false, false))].into();
    for (reflector, client) in (0..2).flat_map(|reflector| (2..5).map(move |client| (reflector, client))) {
        edges.insert((reflector, client), (true, false));
    }
    let mut network = Network::new(&edges, &[1, 1, 2, 3, 4, 5, 6, 7]);
    assert!(network.settle(1));
    for (node, other) in
        [0, 1, 2, 3, 4, 6].into_iter().flat_map(|node| [0, 1, 2, 3, 4, 6].map(|it| (node, it)))
    {
        // The next hop of what comes from outside is the outside, which is on a link of 2 only; here it stands for the way.
        assert_eq!(network.arrives(node, &own_prefix(other)), Some(other), "{node} to {other}");
    }
}
