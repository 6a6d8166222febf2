//! Writes routes in batches: many messages per `send`, one acknowledgement.

use std::collections::BTreeMap;
use std::net::IpAddr;

use manx_felix::{Hop, KernelError, Operation, Ownership, Route, RouteKey, TUNNEL_DEVICE, Target};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{EEXIST, ESRCH, refuse, refused};
use crate::message::Family;
use crate::read;
use crate::socket::{Refusal, Request, Socket};

/// Messages per `send`: from here on more gain little, and RTNL is held for about a millisecond.
pub(crate) const BATCH: usize = 256;

/// Carries out route operations and answers for each.
pub(crate) fn write(socket: &mut Socket, operations: &[Operation]) -> Vec<Result<(), KernelError>> {
    let mut requests = Vec::with_capacity(operations.len());
    let mut results = Vec::with_capacity(operations.len());
    for operation in operations {
        results.push(match request(operation) {
            Ok(request) => {
                requests.push(request);
                Ok(())
            }
            Err(reason) => Err(refuse(action(socket, operation), reason)),
        });
    }
    let outcomes = match socket.exchange(&requests, |_| ()) {
        Ok(outcomes) => outcomes,
        Err(error) => vec![Err(Refusal::from(error)); requests.len()],
    };
    let mut taken = Vec::new();
    let sent = results.iter_mut().zip(operations).filter(|(result, _)| result.is_ok());
    for ((result, operation), outcome) in sent.zip(outcomes) {
        match (operation, outcome) {
            (_, Ok(())) => {}
            (Operation::DeleteRoute(_), Err(refusal)) if refusal.errno == ESRCH => {}
            (Operation::AddRoute(route), Err(refusal)) if refusal.errno == EEXIST => {
                taken.push((route, result));
            }
            (operation, Err(refusal)) => *result = Err(refused(action(socket, operation), refusal)),
        }
    }
    if !taken.is_empty() {
        take_over(socket, taken);
    }
    results
}

/// Additions whose key is taken: by ourselves, since the snapshot was read (a pod that was attached meanwhile), then
/// the route is replaced; or by another program, then its route stays.
fn take_over(socket: &mut Socket, taken: Vec<(&Route, &mut Result<(), KernelError>)>) {
    let (v6, v4) = taken.into_iter().partition(|(route, _)| route.key.destination.addr().is_ipv6());
    take_over_in(socket, Family::V4, v4);
    take_over_in(socket, Family::V6, v6);
}

fn take_over_in(socket: &mut Socket, family: Family, taken: Vec<(&Route, &mut Result<(), KernelError>)>) {
    if taken.is_empty() {
        return;
    }
    let table = read::main_table(socket, family, None);
    let mut present: BTreeMap<RouteKey, &Route> = BTreeMap::new();
    for route in table.iter().flatten() {
        // Of several routes with one key the kernel would replace the first.
        present.entry(route.key).or_insert(route);
    }
    for (route, result) in taken {
        let other = present.get(&route.key).filter(|other| !Ownership::is_ours(other));
        *result = match (&table, other) {
            (Err(error), _) => Err(error.clone()),
            (Ok(_), Some(other)) => Err(in_the_way(socket, route, other)),
            (Ok(_), None) => write(socket, &[Operation::ReplaceRoute(route.clone())]).into_iter().collect(),
        };
    }
}

fn in_the_way(socket: &Socket, route: &Route, other: &Route) -> KernelError {
    let (key, protocol) = (other.key, other.protocol);
    let reason = format!(
        "another program (protocol {protocol}) has the route {}; it stays. If it is left over: ip route del {key} proto {protocol}",
        told(socket, other),
    );
    let action = format!("adding route {}", told(socket, route));
    KernelError { errno: Some(EEXIST), ..refuse(action, reason) }
}

fn request(operation: &Operation) -> Result<Request, String> {
    Ok(match operation {
        Operation::AddRoute(route) => {
            let message = RouteNetlinkMessage::NewRoute(message(route)?);
            Request::with(message, NLM_F_CREATE | NLM_F_EXCL)
        }
        Operation::ReplaceRoute(route) => {
            let message = RouteNetlinkMessage::NewRoute(message(route)?);
            Request::with(message, NLM_F_CREATE | NLM_F_REPLACE)
        }
        Operation::DeleteRoute(route) => {
            let mut message = message(route)?;
            message.header.scope = RouteScope::NoWhere; // any
            Request::new(RouteNetlinkMessage::DelRoute(message))
        }
        Operation::TunnelUp { .. } | Operation::TunnelDown => return Err("it is no route".to_owned()),
    })
}

/// What an operation does, as it is told to people.
fn action(socket: &Socket, operation: &Operation) -> String {
    let (verb, route) = match operation {
        Operation::AddRoute(route) => ("adding", route),
        Operation::ReplaceRoute(route) => ("replacing", route),
        Operation::DeleteRoute(route) => ("deleting", route),
        Operation::TunnelUp { .. } | Operation::TunnelDown => return format!("writing {TUNNEL_DEVICE}"),
    };
    format!("{verb} route {}", told(socket, route))
}

/// A route as ip(8) shows it.
fn told(socket: &Socket, route: &Route) -> String {
    let hop = |hop: &Hop| match hop.gateway {
        Some(gateway) => format!("via {gateway} dev {}", socket.device_name(hop.device)),
        None => format!("dev {}", socket.device_name(hop.device)),
    };
    match &route.target {
        Target::Hops(hops) => {
            format!("{} {}", route.key, hops.iter().map(hop).collect::<Vec<_>>().join(" and "))
        }
        Target::Blackhole => format!("blackhole {}", route.key),
        Target::Other => route.key.to_string(),
    }
}

fn message(route: &Route) -> Result<RouteMessage, String> {
    let destination = route.key.destination;
    let mut message = RouteMessage::default();
    message.header.address_family =
        if destination.addr().is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol.0);
    message.header.destination_prefix_length = destination.prefix_len();
    message.attributes.push(RouteAttribute::Destination(destination.network().into()));
    if route.key.priority > 0 {
        message.attributes.push(RouteAttribute::Priority(route.key.priority));
    }
    match &route.target {
        Target::Blackhole => message.header.kind = RouteType::BlackHole,
        Target::Other => return Err("it is of a kind that is never written".to_owned()),
        Target::Hops(hops) => add_hops(&mut message, hops)?,
    }
    Ok(message)
}

fn add_hops(message: &mut RouteMessage, hops: &[Hop]) -> Result<(), String> {
    message.header.kind = RouteType::Unicast;
    let family = message.header.address_family;
    let on_link = hops.iter().all(|hop| hop.gateway.is_none());
    message.header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
    match hops {
        [] => return Err("it leads nowhere".to_owned()),
        [hop] => {
            message.attributes.push(RouteAttribute::Oif(hop.device.0));
            message.attributes.extend(hop.gateway.map(|it| gateway(family, it)));
            if hop.onlink {
                message.header.flags = RouteFlags::Onlink;
            }
        }
        several => {
            let hops = several.iter().map(|hop| next_hop(family, hop)).collect();
            message.attributes.push(RouteAttribute::MultiPath(hops));
        }
    }
    Ok(())
}

fn next_hop(family: AddressFamily, hop: &Hop) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    next_hop.interface_index = hop.device.0;
    next_hop.attributes = hop.gateway.map(|it| gateway(family, it)).into_iter().collect();
    if hop.onlink {
        next_hop.flags = RouteNextHopFlags::Onlink;
    }
    next_hop
}

/// A gateway of another family than the route's is written in another way (RFC 5549).
fn gateway(family: AddressFamily, gateway: IpAddr) -> RouteAttribute {
    match (family, gateway) {
        (AddressFamily::Inet, IpAddr::V6(gateway)) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        (_, gateway) => RouteAttribute::Gateway(gateway.into()),
    }
}
