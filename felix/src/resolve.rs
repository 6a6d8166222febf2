//! Where the kernel's own routes lead: how a BGP next hop is reached (RFC 4271 §5.1.3, §9.1.2.1).
//!
//! BGP routes are left out, or one could carry itself; so are hops over links that are down.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Hop, RouteKey, Snapshot, Target};

/// The kernel's own way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The destination of the route that matched.
    pub(crate) matched: IpNet,
    /// The ways to the address, each with the router to hand packets to: the address itself where it is on the link.
    pub(crate) hops: Vec<Hop>,
    /// The address is on a connected subnet.
    pub(crate) on_link: bool,
}

impl Resolved {
    /// What is behind `gateway`, of which this is the way.
    pub(crate) fn over(self, gateway: IpAddr) -> Self {
        Self { matched: gateway.into(), on_link: false, ..self }
    }
}

/// The routes of a snapshot by which next hops are resolved.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    /// Each with its hops over links that are up; without any, it is a dead end.
    routes: Vec<(RouteKey, Vec<Hop>)>,
}

impl Resolver {
    /// Takes what can be used out of the snapshot.
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let is_up = |hop: &&Hop| snapshot.links.get(&hop.device).is_some_and(|link| link.up);
        let usable = |target: &Target| match target {
            Target::Hops(hops) => {
                let hops: Vec<Hop> = hops.iter().filter(is_up).copied().collect();
                (!hops.is_empty()).then_some(hops)
            }
            Target::Blackhole | Target::Other => Some(Vec::new()),
        };
        let own = snapshot.routes.iter().filter(|route| !route.protocol.is_bgp());
        Self { routes: own.filter_map(|route| Some((route.key, usable(&route.target)?))).collect() }
    }

    /// Resolves `address` by the longest prefix, then the lowest metric.
    ///
    /// # Errors
    /// In words: no route matches, or the one that does leads nowhere that we can follow.
    pub(crate) fn resolve(&self, address: IpAddr) -> Result<Resolved, String> {
        let matching = self.routes.iter().filter(|(key, _)| key.destination.contains(&address));
        let best = matching.max_by_key(|(key, _)| (key.destination.prefix_len(), Reverse(key.priority)));
        let Some((key, hops)) = best else { return Err(format!("no route to next hop {address}")) };
        if hops.is_empty() {
            return Err(format!("next hop {address} is inside {key}, which leads nowhere"));
        }
        let to = |hop: &Hop| match hop.gateway {
            Some(_) => *hop,
            None => Hop { gateway: Some(address), onlink: false, ..*hop },
        };
        let hops_to = hops.iter().map(to).collect();
        Ok(Resolved { matched: key.destination, hops: hops_to, on_link: is_on_link(hops) })
    }

    /// The subnets on this node's links. A route for everything (over a point-to-point link) is none.
    pub(crate) fn connected(&self) -> Vec<IpNet> {
        let on_link = self.routes.iter().filter(|(_, hops)| !hops.is_empty() && is_on_link(hops));
        on_link.map(|(key, _)| key.destination).filter(|net| net.prefix_len() > 0).collect()
    }

    /// The routers that the routes lead to.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.routes.iter().flat_map(|(_, hops)| hops.iter().filter_map(|hop| hop.gateway))
    }
}

fn is_on_link(hops: &[Hop]) -> bool {
    hops.iter().all(|hop| hop.gateway.is_none())
}
