//! The router between the subnets: a machine with a leg in each, and a BGP speaker of another AS.
//!
//! What it learns goes into its own table, as another router's speaker would do it; it passes nothing on.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use manx_bgp::speaker::{Change, PeerConfig, SpeakerConfig};
use manx_bgp_driver::Bgp;
use manx_felix::{Hop, Protocol, Route, RouteKey, Target};
use manx_model::Asn;
use tokio::sync::watch;

use crate::machine::{Kind, Machine, Segment};
use crate::network::Network;
use crate::world::Net;

/// The name of the router's machine.
pub const TOR: &str = "tor";
/// Its AS.
pub const TOR_ASN: u32 = 65000;
/// What its speaker writes routes with.
const BIRD: Protocol = Protocol(12);

/// The router's machine: the first address of every subnet is its own.
pub fn machine(subnets: u8) -> Machine {
    let mut machine = Machine::new();
    machine.forwarding = true;
    for subnet in 1..=subnets {
        let address = ipnet::Ipv4Net::new(address_in(subnet), 24).expect("24 is a length");
        machine.add_wire(&format!("eth{subnet}"), Segment(subnet), address);
    }
    machine
}

/// The router's address in a subnet.
pub fn address_in(subnet: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, subnet, 1)
}

/// Speaks BGP with the nodes at `peers`, for ever.
pub async fn speak(net: Net, network: Network, mut peers: watch::Receiver<Vec<Ipv4Addr>>, seed: u64) {
    let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 179);
    let config = config(&peers.borrow_and_update());
    let mut bgp = Bgp::new(network.of(TOR), config, Some(everywhere), seed);
    bgp.originate(BTreeSet::new());
    loop {
        tokio::select! {
            biased;
            changed = peers.changed() => match changed {
                Ok(()) => bgp.configure(self::config(&peers.borrow_and_update())),
                Err(_) => return,
            },
            changes = bgp.next() => changes.into_iter().for_each(|change| learn(&net, change)),
        }
    }
}

fn config(peers: &[Ipv4Addr]) -> SpeakerConfig {
    let asn = Asn::new(TOR_ASN).expect("not 0");
    let mut config = SpeakerConfig::new(asn, address_in(1));
    let peer = |address: &Ipv4Addr| {
        let peer = PeerConfig { passive: true, ..PeerConfig::new(format!("node_{address}"), Asn::DEFAULT) };
        (IpAddr::V4(*address), peer)
    };
    config.peers = peers.iter().map(peer).collect();
    config
}

fn learn(net: &Net, change: Change) {
    let Change::Best { prefix, path } = change else { return };
    let gateway = path.map(|path| path.next_hop);
    net.foreign(TOR, format!("{prefix} is {gateway:?}"), |machine| {
        machine.routes.retain(|route| route.protocol != BIRD || route.key.destination != prefix);
        machine.routes.extend(gateway.and_then(|gateway| route(machine, prefix, gateway)));
    });
}

fn route(machine: &Machine, prefix: IpNet, gateway: IpAddr) -> Option<Route> {
    let IpAddr::V4(address) = gateway else { return None };
    let near = |device: &&crate::machine::Device| {
        matches!(device.kind, Kind::Wire(_)) && device.link.addresses.iter().any(|net| net.contains(&address))
    };
    let device = machine.devices.values().find(near)?.link.index;
    let hop = Hop { device, gateway: Some(gateway), onlink: false };
    Some(Route {
        key: RouteKey { destination: prefix, priority: 32 },
        protocol: BIRD,
        target: Target::Hops(vec![hop]),
    })
}
