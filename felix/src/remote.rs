//! Chooses how each remote prefix is reached: through the tunnel, on the link, or over the kernel's own gateway.
//!
//! A table may have a million prefixes and a handful of next hops, so all that depends on less than the prefix is worked
//! out once, in [`Chooser::new`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use manx_model::{IpPool, IpipMode};

use crate::resolve::{Resolved, Resolver};
use crate::{Facts, Hop, IfIndex, Path, Snapshot, TUNNEL_DEVICE};

pub(crate) struct Chooser<'a> {
    facts: &'a Facts,
    snapshot: &'a Snapshot,
    /// This node's own addresses.
    own: BTreeSet<IpAddr>,
    /// Each next hop, resolved.
    resolved: BTreeMap<IpAddr, Result<Resolved, String>>,
    /// Our own tunnel device, or why it cannot send.
    tunnel: Result<IfIndex, String>,
    /// The connected subnets.
    connected: Vec<IpNet>,
    /// The addresses to which this node itself must have its way: nodes, routers, next hops.
    needed: BTreeSet<IpAddr>,
}

/// A route's hops, none where there is to be no route, and the path as it is told.
type Choice = (Path, Vec<Hop>);

impl<'a> Chooser<'a> {
    pub(crate) fn new(facts: &'a Facts, snapshot: &'a Snapshot) -> Self {
        let resolver = Resolver::new(snapshot);
        let next_hops: BTreeSet<IpAddr> = facts.remote.values().copied().collect();
        let resolve = |next_hop: &IpAddr| match facts.gateways.get(next_hop) {
            // Its own route is one of ours, by which nothing is resolved.
            Some(gateway) => resolver.resolve(*gateway).map(|resolved| resolved.over(*gateway)),
            None => resolver.resolve(*next_hop),
        };
        let resolved = next_hops.iter().map(|next_hop| (*next_hop, resolve(next_hop))).collect();
        let addresses = snapshot.links.values().flat_map(|link| &link.addresses);
        let own = addresses.map(Ipv4Net::addr).chain([facts.address.address()]).map(IpAddr::V4).collect();
        let mut needed = next_hops;
        needed.extend(facts.nodes.keys().copied().map(IpAddr::V4));
        needed.extend(resolver.gateways());
        needed.insert(IpAddr::V4(facts.address.address()));
        let tunnel = own_tunnel(facts, snapshot);
        Self { facts, snapshot, own, resolved, tunnel, connected: resolver.connected(), needed }
    }

    /// The path to a prefix and its hops; `None` where the next hop is this node itself.
    pub(crate) fn choose(&self, prefix: IpNet, next_hop: IpAddr) -> Option<Choice> {
        if self.own.contains(&next_hop) {
            return None;
        }
        if let Some(path) = self.refuse(prefix) {
            return Some((path, Vec::new()));
        }
        let plain = match self.tunnel(prefix, next_hop) {
            Some(Ok((via, device, reason))) => {
                let hop = Hop { device, gateway: Some(IpAddr::V4(via)), onlink: true };
                return Some((Path::Tunnel { via, reason }, vec![hop]));
            }
            Some(Err(reason)) => reason,
            None => String::new(),
        };
        Some(self.plain(next_hop, plain))
    }

    /// Why a prefix must not become a route at all.
    fn refuse(&self, prefix: IpNet) -> Option<Path> {
        let withheld = |reason| Some(Path::Withheld { reason });
        if !self.facts.complete {
            let reason = "the pools and nodes are not all read yet".to_owned();
            return Some(Path::Unresolved { reason });
        }
        if prefix.addr().is_ipv6() {
            return withheld("IPv6 is not routed between nodes yet".to_owned());
        }
        if self.facts.blocks.contains(&prefix) {
            return withheld(format!("{prefix} is a block of this node"));
        }
        let host = (prefix.prefix_len() == prefix.max_prefix_len()).then_some(prefix.addr());
        if let Some(device) = host.and_then(|address| self.facts.endpoints.get(&address)) {
            return withheld(format!("{} is a pod of this node, on {device}", prefix.addr()));
        }
        self.captured(prefix).and_then(withheld)
    }

    /// A prefix inside a connected subnet takes precedence over it. Where it holds an address that this node talks to
    /// on that link, it would lead the packets away from it.
    fn captured(&self, prefix: IpNet) -> Option<String> {
        let subnet = self.connected.iter().find(|subnet| subnet.contains(&prefix))?;
        let address = self.needed.range(prefix.network()..=prefix.broadcast()).next()?;
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
        Some(match self.far_end(prefix, via).and_then(|()| self.tunnel.clone()) {
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

    fn plain(&self, next_hop: IpAddr, why: String) -> Choice {
        let resolved = match self.resolved.get(&next_hop) {
            Some(Ok(resolved)) => resolved,
            Some(Err(reason)) => return (Path::Unresolved { reason: reason.clone() }, Vec::new()),
            None => {
                return (Path::Unresolved { reason: format!("no route to next hop {next_hop}") }, Vec::new());
            }
        };
        let hops = &resolved.hops;
        let name = |hop: &Hop| self.snapshot.name(hop.device);
        let path = match hops.as_slice() {
            [hop] if resolved.on_link => Path::OnLink { via: next_hop, device: name(hop), reason: why },
            _ => {
                let via = hops.iter().filter_map(|hop| Some((hop.gateway?, name(hop)))).collect();
                let reason = match why.is_empty() {
                    true => format!("next hop {next_hop}"),
                    false => format!("next hop {next_hop}; {why}"),
                };
                Path::Gateway { via, resolved: resolved.matched, reason }
            }
        };
        (path, hops.clone())
    }
}

fn own_tunnel(facts: &Facts, snapshot: &Snapshot) -> Result<IfIndex, String> {
    let Some(address) = facts.tunnel else {
        return Err("this node has no tunnel address yet".to_owned());
    };
    let Some(link) = snapshot.link(TUNNEL_DEVICE) else {
        return Err(format!("this node has no {TUNNEL_DEVICE} yet"));
    };
    match link.up && link.addresses.contains(&Ipv4Net::from(address)) {
        true => Ok(link.index),
        false => Err(format!("this node's {TUNNEL_DEVICE} is not up with {address} yet")),
    }
}
