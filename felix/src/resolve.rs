//! Where the kernel's own routes lead: how a BGP next hop is reached (RFC 4271 §5.1.3, §9.1.2.1).
//!
//! BGP routes are left out, or one could carry itself; so are hops over links that are down.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Hop, Route, Snapshot, Target};

/// The kernel's own route to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The destination of the route that matched.
    pub matched: IpNet,
    /// The ways to the address, each with the router to hand packets to: the address itself where it is on the link.
    pub hops: Vec<Hop>,
    /// The address is on a connected subnet.
    pub on_link: bool,
}

/// Resolves `address` by the longest prefix, then the lowest metric; `Err` says in words why it cannot be reached.
///
/// # Errors
/// No route matches, or the one that does leads nowhere that we can follow.
pub fn resolve(address: IpAddr, snapshot: &Snapshot) -> Result<Resolved, String> {
    let best = snapshot
        .routes
        .iter()
        .filter(|route| !route.protocol.is_bgp() && route.key.destination.contains(&address))
        .filter_map(|route| usable(route, snapshot))
        .max_by_key(|(route, _)| (route.key.destination.prefix_len(), std::cmp::Reverse(route.key.priority)));
    let Some((route, hops)) = best else { return Err(format!("no route to next hop {address}")) };
    if hops.is_empty() {
        return Err(format!("next hop {address} is inside {}, which leads nowhere", route.key));
    }
    let on_link = hops.iter().all(|hop| hop.gateway.is_none());
    let hops = hops
        .into_iter()
        .map(|hop| match hop.gateway {
            Some(_) => hop,
            None => Hop { gateway: Some(address), onlink: false, ..hop },
        })
        .collect();
    Ok(Resolved { matched: route.key.destination, hops, on_link })
}

/// The hops of a route over links that are up; no hops for a dead end, `None` where the kernel would skip the route.
fn usable<'a>(route: &'a Route, snapshot: &Snapshot) -> Option<(&'a Route, Vec<Hop>)> {
    let Target::Hops(hops) = &route.target else { return Some((route, Vec::new())) };
    let is_up = |hop: &&Hop| snapshot.links.get(&hop.device).is_some_and(|link| link.up);
    let hops: Vec<Hop> = hops.iter().filter(is_up).copied().collect();
    (!hops.is_empty()).then_some((route, hops))
}
