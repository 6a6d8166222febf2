//! The routes that a node should have, and for every remote prefix the path that was chosen and why.
//!
//! Where two sources want the same destination, the local one wins (Calico's `felix/routetable/defs.go`): a pod's host
//! route, then what BGP brought, then the blackhole of a block. A block of ours is never reached through BGP, though, so a
//! path to the block itself loses to its blackhole. Another program's route with the same key always stays, and
//! ours is held back.
//!
//! A borrowed address needs nothing of its own here: a pod's host route is a /32 (or /128) in whichever block it lies, and
//! a path to a single address inside our own block is more specific than the block's blackhole.
//!
//! IPv6 is for this node's own pods and blocks so far; no route leads to another node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::remote::Chooser;
use crate::resolve::Resolver;
use crate::{Facts, Hop, IfIndex, Path, Protocol, Route, RouteKey, Snapshot, Target};

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
    /// Peers that cannot be reached as their BGPPeer says, and why.
    pub unreachable: BTreeMap<IpAddr, String>,
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
    add_gateways(facts, snapshot, &mut desired);
    add_endpoints(facts, snapshot, &mut desired);
    hold_back(snapshot, &mut desired);
    desired
}

fn add_blocks(facts: &Facts, desired: &mut Desired) {
    let several = |block: &&IpNet| block.prefix_len() < block.max_prefix_len();
    for block in facts.blocks.iter().filter(several) {
        desired.put(*block, Target::Blackhole);
    }
}

fn add_endpoints(facts: &Facts, snapshot: &Snapshot, desired: &mut Desired) {
    for (address, device) in &facts.endpoints {
        match endpoint_device(device, snapshot) {
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

fn endpoint_device(device: &str, snapshot: &Snapshot) -> Result<IfIndex, String> {
    match snapshot.link(device) {
        Some(link) if link.up => Ok(link.index),
        Some(_) => Err(format!("its device {device} is down")),
        None => Err(format!("its device {device} is missing")),
    }
}

fn add_remote(facts: &Facts, snapshot: &Snapshot, desired: &mut Desired) {
    let chooser = Chooser::new(facts, snapshot);
    for (prefix, next_hop) in &facts.remote {
        let Some((path, hops)) = chooser.choose(*prefix, *next_hop) else { continue };
        if !hops.is_empty() {
            desired.put(*prefix, Target::Hops(hops));
        }
        desired.paths.insert(*prefix, path);
    }
}

/// The way to a peer comes before what BGP says of it, and before what the kernel's wider routes say.
fn add_gateways(facts: &Facts, snapshot: &Snapshot, desired: &mut Desired) {
    let resolver = Resolver::new(snapshot);
    for (peer, gateway) in &facts.gateways {
        let reason = match resolver.resolve(*gateway) {
            Ok(resolved) if resolved.on_link => {
                desired.put(IpNet::from(*peer), Target::Hops(resolved.hops));
                continue;
            }
            Ok(resolved) => format!("it is behind {}, and not on a link of this node", resolved.matched),
            Err(reason) => reason,
        };
        desired.unreachable.insert(*peer, format!("reachableBy {gateway}: {reason}"));
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
        let key = RouteKey::of(destination);
        self.routes.insert(key, Route { key, protocol: Protocol::MANX, target });
    }
}

#[cfg(test)]
mod tests;
