//! Links and routes, in Linux' words (rtnetlink(7)).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// `rtm_protocol`: who wrote a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// The routes that only we write: 77 is free (Calico 80, BIRD 12, kube-router 17).
    pub const MANX: Self = Self(77);

    /// Routes that a BGP speaker wrote: next hops are never resolved through these, or a BGP route could carry itself.
    pub fn is_bgp(self) -> bool {
        const BGP: [u8; 5] = [12, 17, 77, 80, 186]; // BIRD, kube-router, Manx, Calico, RTPROT_BGP (FRR, GoBGP)
        BGP.contains(&self.0)
    }
}

/// A link's index, which names it to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub u32);

/// A network device as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// IFF_UP is set.
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its alias (`ip link set alias`). We keep the IPAM handle of the pod there, so that the kernel itself says
    /// which container a veth belongs to.
    pub alias: Option<String>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
}

/// What identifies a route in a table: another route with the same key replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Where to.
    pub destination: IpNet,
    /// Metric; lower wins.
    pub priority: u32,
}

impl RouteKey {
    /// The metric that the kernel gives an IPv6 route which asks for none (`IP6_RT_PRIO_USER`, linux/ipv6_route.h): it
    /// keeps 0 for nobody, and reads it as this one.
    const IPV6_PRIORITY: u32 = 1024;

    /// The key of our route to `destination`: with the kernel's default metric of its family.
    pub fn of(destination: IpNet) -> Self {
        let priority = if destination.addr().is_ipv6() { Self::IPV6_PRIORITY } else { 0 };
        Self { destination, priority }
    }
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination and metric.
    pub key: RouteKey,
    /// Who wrote it.
    pub protocol: Protocol,
    /// What happens to the packets.
    pub target: Target,
}

/// What a route does with packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Unicast, over one hop or several of equal cost.
    Hops(Vec<Hop>),
    /// Dropped silently.
    Blackhole,
    /// Another kind (`unreachable`, `throw`, a next-hop object, …), which we never write.
    Other,
}

/// One way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The device.
    pub device: IfIndex,
    /// The next router; `None`: the destination is on the link (scope link).
    pub gateway: Option<IpAddr>,
    /// The gateway is taken to be on the link although no route says so (RTNH_F_ONLINK).
    pub onlink: bool,
}

/// What the kernel has: every link, and the routes of the main table that matter to us, of both families. Those are
/// ours (by [`Protocol::MANX`]), those by which next hops may be resolved (not [`Protocol::is_bgp`]), and any other that
/// has the key of one of ours, since the two stand in each other's way. Routes for one type of service or one source
/// only are left out, and so are those to link-local addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By index.
    pub links: BTreeMap<IfIndex, Link>,
    /// In the order in which the kernel lists them, IPv4 first.
    pub routes: Vec<Route>,
}

impl Snapshot {
    /// The routes that other programs wrote.
    pub fn foreign(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| !Ownership::is_ours(route))
    }

    /// The routes that we wrote.
    pub fn ours(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| Ownership::is_ours(route))
    }

    /// The name of a link, or its index where it has gone meanwhile.
    pub fn name(&self, index: IfIndex) -> String {
        self.links.get(&index).map_or_else(|| format!("if{}", index.0), |link| link.name.clone())
    }

    /// The prefixes that are reached through the tunnel by routes of ours, each with the node at the other end: what an
    /// agent that has just started knows of them before any peer has told it.
    pub fn tunneled(&self) -> impl Iterator<Item = (IpNet, IpAddr)> {
        let tunnel = self.link(crate::TUNNEL_DEVICE).map(|link| link.index);
        self.ours().filter_map(move |route| match &route.target {
            Target::Hops(hops) => match hops[..] {
                [Hop { device, gateway: Some(node), .. }] if Some(device) == tunnel => {
                    Some((route.key.destination, node))
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// The link of this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The link that carries this address.
    pub fn link_with(&self, address: Ipv4Addr) -> Option<&Link> {
        self.links.values().find(|link| link.addresses.iter().any(|net| net.addr() == address))
    }
}

/// Decides what in the kernel is ours. Everything else is never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {}

impl Ownership {
    /// Ours is what carries our protocol number, on whichever device: nobody else writes with it.
    pub fn is_ours(route: &Route) -> bool {
        route.protocol == Protocol::MANX
    }
}

/// Whose knowledge a route of ours comes from; each kind is swept with its own permission. The route itself tells, so
/// that it can be asked of routes that an earlier process wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteClass {
    /// From this node's own endpoints and blocks: a pod's host route, or a block's blackhole.
    Local,
    /// From BGP: it has a gateway.
    Remote,
}

impl Route {
    /// Whose knowledge this route comes from.
    pub fn class(&self) -> RouteClass {
        match &self.target {
            Target::Hops(hops) if hops.iter().any(|hop| hop.gateway.is_some()) => RouteClass::Remote,
            Target::Hops(_) | Target::Blackhole | Target::Other => RouteClass::Local,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            2 => f.write_str("kernel"),
            3 => f.write_str("boot"),
            4 => f.write_str("static"),
            12 => f.write_str("bird"),
            16 => f.write_str("dhcp"),
            77 => f.write_str("manx"),
            80 => f.write_str("calico"),
            186 => f.write_str("bgp"),
            other => other.fmt(f),
        }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self == Self::of(self.destination) {
            true => self.destination.fmt(f),
            false => write!(f, "{} metric {}", self.destination, self.priority),
        }
    }
}
