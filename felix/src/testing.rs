//! A node's kernel for tests: eth0 with 172.171.5.95/24 and a default route, as in the founding example.

use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::{IpPool, IpPoolSpec, IpipMode, Kind, Object};

use crate::{Facts, Hop, IfIndex, Link, Protocol, Route, RouteKey, Snapshot, Target};

pub(crate) const ETH0: IfIndex = IfIndex(2);
pub(crate) const TUNL0: IfIndex = IfIndex(3);
pub(crate) const CALI: IfIndex = IfIndex(9);
pub(crate) const ETH1: IfIndex = IfIndex(12);
pub(crate) const KERNEL: Protocol = Protocol(2);

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("a CIDR")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn link(index: IfIndex, name: &str, addresses: &[&str]) -> Link {
    let addresses = addresses.iter().map(|text| text.parse().expect("a CIDR")).collect();
    Link { index, name: name.into(), up: true, mtu: 1500, alias: None, addresses }
}

pub(crate) fn hop(device: IfIndex, gateway: Option<&str>) -> Hop {
    Hop { device, gateway: gateway.map(ip), onlink: false }
}

pub(crate) fn route(destination: &str, priority: u32, protocol: Protocol, target: Target) -> Route {
    Route { key: RouteKey { destination: net(destination), priority }, protocol, target }
}

pub(crate) fn via(destination: &str, priority: u32, protocol: Protocol, hops: &[Hop]) -> Route {
    route(destination, priority, protocol, Target::Hops(hops.to_vec()))
}

pub(crate) fn snapshot() -> Snapshot {
    let links = [
        link(IfIndex(1), "lo", &["127.0.0.1/8"]),
        link(ETH0, "eth0", &["172.171.5.95/24"]),
        link(CALI, "calic440f455693", &[]),
    ];
    let routes = vec![
        via("0.0.0.0/0", 100, Protocol(16), &[hop(ETH0, Some("172.171.5.1"))]),
        via("172.171.5.0/24", 0, KERNEL, &[hop(ETH0, None)]),
    ];
    Snapshot { links: links.into_iter().map(|link| (link.index, link)).collect(), routes }
}

/// The snapshot with our `tunl0` up.
pub(crate) fn with_tunnel() -> Snapshot {
    let mut snapshot = snapshot();
    let tunnel = Link { mtu: 1480, ..link(TUNL0, "tunl0", &["192.168.236.0/32"]) };
    snapshot.links.insert(TUNL0, tunnel);
    snapshot
}

pub(crate) fn pool(cidr: &str, ipip: IpipMode) -> IpPool {
    let mode = Some(ipip.to_string());
    let spec = IpPoolSpec { cidr: cidr.into(), ipip_mode: mode, ..IpPoolSpec::default() };
    IpPool::from_object(&Object::new(Kind::IPPool, cidr, &spec)).expect("a pool")
}

/// The node 172.171.5.95 with one pool, two other nodes, and a block of each.
pub(crate) fn facts(ipip: IpipMode) -> Facts {
    let mut facts = Facts::new("172.171.5.95/24".parse().expect("an address"));
    facts.complete = true;
    facts.pools = vec![pool("192.168.0.0/16", ipip)];
    facts.blocks.insert(net("192.168.236.0/26"));
    facts.tunnel = Some("192.168.236.0".parse().expect("an address"));
    for (name, address, tunnel, block) in [
        ("near", "172.171.5.96", "192.168.190.192", "192.168.190.192/26"),
        ("far", "172.171.6.95", "192.168.7.0", "192.168.7.0/26"),
    ] {
        let node = crate::RemoteNode {
            name: name.parse().expect("a name"),
            tunnel: Some(tunnel.parse().expect("an address")),
        };
        facts.nodes.insert(address.parse().expect("an address"), node);
        facts.remote.insert(net(block), ip(address));
    }
    facts
}
