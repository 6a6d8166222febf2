//! The routes that a node should have, and for every remote prefix the path that was chosen and why.
//!
//! Where two sources want the same destination, the local one wins (Calico's `felix/routetable/defs.go`): a pod's host
//! route, then what BGP brought, then the blackhole of a block. A block of ours is never reached through BGP, though, so a
//! path to the block itself loses to its blackhole. Another program's route with the same key always stays, and
//! ours is held back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use manx_model::{IpPool, IpipMode};

use crate::resolve::resolve;
use crate::{Facts, Hop, IfIndex, Protocol, Route, RouteKey, Snapshot, TUNNEL_DEVICE, Target};

/// What the kernel should have of ours, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The routes, none of which stands in another program's way.
    pub routes: BTreeMap<RouteKey, Route>,
    /// How each remote prefix is reached, or why it is not.
    pub paths: BTreeMap<IpNet, Path>,
    /// Routes that are held back, since another program's route has their key.
    pub held: BTreeMap<RouteKey, Held>,
    /// Local pods that cannot have their route, and why.
    pub missing: BTreeMap<IpAddr, String>,
}

/// How a remote prefix is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Plainly: the next hop is on a connected subnet.
    OnLink {
        /// The next hop.
        via: IpAddr,
        /// The device.
        device: String,
        /// Why not by the tunnel, where the pool asks for one.
        reason: String,
    },
    /// Inside IP-in-IP, over `tunl0`.
    Tunnel {
        /// The node at the other end.
        via: Ipv4Addr,
        /// Which rule chose the tunnel.
        reason: String,
    },
    /// Plainly, through a router to which the kernel's own routes lead.
    Gateway {
        /// The routers (several where the kernel has several of equal cost), with their devices.
        via: Vec<(IpAddr, String)>,
        /// The kernel's route that leads to the next hop.
        resolved: IpNet,
        /// The next hop and, where the pool asks for the tunnel, why it is not taken.
        reason: String,
    },
    /// There is no route: the next hop cannot be reached, or not enough is known yet.
    Unresolved {
        /// Why.
        reason: String,
    },
    /// There is deliberately no route.
    Withheld {
        /// Why.
        reason: String,
    },
}

/// A route that is held back, and the one in its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Ours.
    pub wanted: Route,
    /// The other program's.
    pub foreign: Route,
}

impl Held {
    /// The other program's route does what ours would do: nothing is wrong (a pod that Calico attached).
    pub fn agrees(&self) -> bool {
        self.wanted.target == self.foreign.target
    }
}

/// Computes the routes of a node from the facts. Depends on nothing else: not on earlier calls.
pub fn desired(facts: &Facts, snapshot: &Snapshot) -> Desired {
    let mut desired = Desired::default();
    add_blocks(facts, &mut desired);
    add_remote(facts, snapshot, &mut desired);
    add_endpoints(facts, snapshot, &mut desired);
    hold_back(snapshot, &mut desired);
    desired
}

fn add_blocks(facts: &Facts, desired: &mut Desired) {
    let several = |block: &&IpNet| block.prefix_len() < block.max_prefix_len();
    for block in facts.blocks.iter().filter(several).filter(|block| block.addr().is_ipv4()) {
        desired.put(*block, Target::Blackhole);
    }
}

fn add_endpoints(facts: &Facts, snapshot: &Snapshot, desired: &mut Desired) {
    for (address, device) in &facts.endpoints {
        match endpoint_device(*address, device, snapshot) {
            Ok(device) => {
                let hop = Hop { device, gateway: None, onlink: false };
                desired.put(IpNet::from(*address), Target::Hops(vec![hop]));
            }
            Err(reason) => {
                desired.missing.insert(*address, reason);
            }
        }
    }
}

fn endpoint_device(address: IpAddr, device: &str, snapshot: &Snapshot) -> Result<IfIndex, String> {
    match snapshot.link(device) {
        _ if address.is_ipv6() => Err("IPv6 is not routed".to_owned()),
        Some(link) if link.up => Ok(link.index),
        Some(_) => Err(format!("its device {device} is down")),
        None => Err(format!("its device {device} is missing")),
    }
}

fn add_remote(facts: &Facts, snapshot: &Snapshot, desired: &mut Desired) {
    let remote = Remote { facts, snapshot, needed: needed_addresses(facts, snapshot) };
    for (prefix, next_hop) in &facts.remote {
        if remote.is_ourselves(*next_hop) {
            continue;
        }
        let (path, hops) = match remote.choose(*prefix, *next_hop) {
            Ok((path, hops)) => (path, hops),
            Err(path) => (path, Vec::new()),
        };
        if !hops.is_empty() {
            desired.put(*prefix, Target::Hops(hops));
        }
        desired.paths.insert(*prefix, path);
    }
}

/// Another program's route with the key of ours stays; ours is held back.
fn hold_back(snapshot: &Snapshot, desired: &mut Desired) {
    for foreign in snapshot.foreign() {
        let Some(wanted) = desired.routes.remove(&foreign.key) else { continue };
        if let Some(path) = desired.paths.get_mut(&foreign.key.destination) {
            let reason =
                format!("another program (protocol {}) has a route {}", foreign.protocol, foreign.key);
            *path = Path::Withheld { reason };
        }
        desired.held.insert(foreign.key, Held { wanted, foreign: foreign.clone() });
    }
}

impl Desired {
    fn put(&mut self, destination: IpNet, target: Target) {
        let key = RouteKey { destination, priority: 0 };
        self.routes.insert(key, Route { key, protocol: Protocol::MANX, target });
    }
}

/// Chooses the path of remote prefixes.
struct Remote<'a> {
    facts: &'a Facts,
    snapshot: &'a Snapshot,
    needed: BTreeSet<IpAddr>,
}

type Choice = Result<(Path, Vec<Hop>), Path>;

impl Remote<'_> {
    fn is_ourselves(&self, next_hop: IpAddr) -> bool {
        let IpAddr::V4(address) = next_hop else { return false };
        address == self.facts.address.address() || self.snapshot.link_with(address).is_some()
    }

    /// The path and its hops; `Err` is a path without a route.
    fn choose(&self, prefix: IpNet, next_hop: IpAddr) -> Choice {
        self.refuse(prefix)?;
        let plain = match self.tunnel(prefix, next_hop) {
            Some(Ok((via, device, reason))) => {
                let hop = Hop { device, gateway: Some(IpAddr::V4(via)), onlink: true };
                return Ok((Path::Tunnel { via, reason }, vec![hop]));
            }
            Some(Err(reason)) => reason,
            None => String::new(),
        };
        self.plain(next_hop, plain)
    }

    /// What must not become a route at all.
    fn refuse(&self, prefix: IpNet) -> Result<(), Path> {
        let withheld = |reason| Err(Path::Withheld { reason });
        if !self.facts.complete {
            let reason = "the pools and nodes are not all read yet".to_owned();
            return Err(Path::Unresolved { reason });
        }
        if prefix.addr().is_ipv6() {
            return withheld("IPv6 is not routed".to_owned());
        }
        if self.facts.blocks.contains(&prefix) {
            return withheld(format!("{prefix} is a block of this node"));
        }
        let host = (prefix.prefix_len() == prefix.max_prefix_len()).then_some(prefix.addr());
        if let Some(device) = host.and_then(|address| self.facts.endpoints.get(&address)) {
            return withheld(format!("{} is a pod of this node, on {device}", prefix.addr()));
        }
        match self.captured(prefix) {
            Some(reason) => withheld(reason),
            None => Ok(()),
        }
    }

    /// A prefix inside a connected subnet takes precedence over it. Where it holds an address that this node talks to
    /// on that link (another node, a router), it would lead the packets away from it.
    fn captured(&self, prefix: IpNet) -> Option<String> {
        let connected = self.snapshot.foreign().find(|route| {
            let on_link =
                matches!(&route.target, Target::Hops(hops) if hops.iter().all(|hop| hop.gateway.is_none()));
            let subnet = route.key.destination;
            on_link && !route.protocol.is_bgp() && subnet.prefix_len() > 0 && subnet.contains(&prefix)
        })?;
        let address = self.needed.range(prefix.network()..=prefix.broadcast()).next()?;
        let subnet = connected.key.destination;
        Some(format!("{prefix} is inside the connected subnet {subnet} and would capture {address}"))
    }

    /// The tunnel's far end, our tunnel device and the rule; `Err` is why a wanted tunnel is not taken; `None` where
    /// no pool wants one.
    fn tunnel(&self, prefix: IpNet, next_hop: IpAddr) -> Option<Result<(Ipv4Addr, IfIndex, String), String>> {
        let pool = self.pool(prefix)?;
        let subnet = self.facts.address.subnet();
        let IpAddr::V4(via) = next_hop else { return None };
        let rule = match pool.ipip {
            IpipMode::Never => return None,
            IpipMode::CrossSubnet if subnet.contains(&via) => {
                return Some(Err(format!("CrossSubnet: {via} is inside {subnet}")));
            }
            IpipMode::CrossSubnet => format!("CrossSubnet: {via} is outside {subnet}"),
            IpipMode::Always => "Always".to_owned(),
        };
        Some(match self.far_end(prefix, via).and_then(|()| self.own_tunnel()) {
            Ok(device) => Ok((via, device, rule)),
            Err(but) => Err(format!("{rule}, but {but}")),
        })
    }

    /// The smallest pool that holds the prefix.
    fn pool(&self, prefix: IpNet) -> Option<&IpPool> {
        let pools = self.facts.pools.iter().filter(|pool| pool.cidr.contains(&prefix));
        pools.max_by_key(|pool| pool.cidr.prefix_len())
    }

    /// Whether the far end takes IP-in-IP.
    fn far_end(&self, prefix: IpNet, via: Ipv4Addr) -> Result<(), String> {
        let Some(node) = self.facts.nodes.get(&via) else {
            return Err(format!("next hop {via} is not a node"));
        };
        if node.tunnel.is_none() {
            return Err(format!("node {} has not published a tunnel address", node.name));
        }
        // The outer packet would be routed into the tunnel once more.
        let IpNet::V4(prefix) = prefix else { return Ok(()) };
        match self.facts.nodes.range(prefix.network()..=prefix.broadcast()).next() {
            Some((address, node)) => {
                Err(format!("{prefix} holds the address {address} of node {}", node.name))
            }
            None => Ok(()),
        }
    }

    /// Our own tunnel device, if it can send.
    fn own_tunnel(&self) -> Result<IfIndex, String> {
        let Some(address) = self.facts.tunnel else {
            return Err("this node has no tunnel address yet".to_owned());
        };
        let Some(link) = self.snapshot.link(TUNNEL_DEVICE) else {
            return Err(format!("this node has no {TUNNEL_DEVICE} yet"));
        };
        match link.up && link.addresses.contains(&Ipv4Net::from(address)) {
            true => Ok(link.index),
            false => Err(format!("this node's {TUNNEL_DEVICE} is not up with {address} yet")),
        }
    }

    fn plain(&self, next_hop: IpAddr, why: String) -> Choice {
        let resolved = resolve(next_hop, self.snapshot).map_err(|reason| Path::Unresolved { reason })?;
        let via: Vec<_> = resolved
            .hops
            .iter()
            .filter_map(|hop| Some((hop.gateway?, self.snapshot.name(hop.device))))
            .collect();
        let path = match via.as_slice() {
            [(via, device)] if resolved.on_link => {
                Path::OnLink { via: *via, device: device.clone(), reason: why }
            }
            _ => {
                let reason = match why.is_empty() {
                    true => format!("next hop {next_hop}"),
                    false => format!("next hop {next_hop}; {why}"),
                };
                Path::Gateway { via, resolved: resolved.matched, reason }
            }
        };
        Ok((path, resolved.hops))
    }
}

/// The addresses to which this node itself must have its way: next hops, nodes and routers.
fn needed_addresses(facts: &Facts, snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let nodes = facts.nodes.keys().copied().map(IpAddr::V4);
    let gateways = snapshot.foreign().flat_map(|route| match &route.target {
        Target::Hops(hops) => hops.iter().filter_map(|hop| hop.gateway).collect(),
        Target::Blackhole | Target::Other => Vec::new(),
    });
    nodes
        .chain(gateways)
        .chain(facts.remote.values().copied())
        .chain([IpAddr::V4(facts.address.address())])
        .collect()
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |f: &mut fmt::Formatter<'_>, reason: &str| match reason {
            "" => Ok(()),
            reason => write!(f, " ({reason})"),
        };
        match self {
            Self::OnLink { via, device, reason } => {
                write!(f, "via {via} dev {device}")?;
                because(f, reason)
            }
            Self::Tunnel { via, reason } => {
                write!(f, "via {via} dev {TUNNEL_DEVICE} onlink")?;
                because(f, reason)
            }
            Self::Gateway { via, resolved, reason } => {
                for (index, (via, device)) in via.iter().enumerate() {
                    let and = if index > 0 { " and " } else { "" };
                    write!(f, "{and}via {via} dev {device}")?;
                }
                write!(f, " (resolved by {resolved}; {reason})")
            }
            Self::Unresolved { reason } => write!(f, "unresolved: {reason}"),
            Self::Withheld { reason } => write!(f, "withheld: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests;
