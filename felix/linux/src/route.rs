//! Writes routes in batches: many messages per `send`, one acknowledgement.

use std::collections::BTreeMap;
use std::net::IpAddr;

use manx_felix::{Hop, KernelError, Operation, Ownership, Route, RouteKey, Target};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{EEXIST, ESRCH, refuse, refused};
use crate::read;
use crate::socket::{Refusal, Request, Socket};

/// Messages per `send`: from here on more gain little, and RTNL is held for about a millisecond.
pub(crate) const BATCH: usize = 256;

/// Carries out route operations and answers for each.
pub(crate) fn write(socket: &mut Socket, operations: &[Operation]) -> Vec<Result<(), KernelError>> {
    let requests: Vec<Result<Request, KernelError>> = operations.iter().map(request).collect();
    let (good, mut results): (Vec<_>, Vec<_>) = requests.into_iter().map(split).unzip();
    let sent: Vec<Request> = good.into_iter().flatten().collect();
    let outcomes = match socket.exchange(&sent, |_| ()) {
        Ok(outcomes) => outcomes,
        Err(error) => vec![Err(Refusal::from(error)); sent.len()],
    };
    let mut outcomes = outcomes.into_iter();
    let mut taken = Vec::new();
    for (index, result) in results.iter_mut().enumerate().filter(|(_, result)| result.is_ok()) {
        match (&operations[index], outcomes.next().unwrap_or(Ok(()))) {
            (_, Ok(())) => {}
            (Operation::DeleteRoute(_), Err(refusal)) if refusal.errno == ESRCH => {}
            (Operation::AddRoute(_), Err(refusal)) if refusal.errno == EEXIST => taken.push(index),
            (operation, Err(refusal)) => *result = Err(refused(action(operation), refusal)),
        }
    }
    if !taken.is_empty() {
        take_over(socket, operations, &taken, &mut results);
    }
    results
}

fn split(request: Result<Request, KernelError>) -> (Option<Request>, Result<(), KernelError>) {
    match request {
        Ok(request) => (Some(request), Ok(())),
        Err(error) => (None, Err(error)),
    }
}

/// Additions whose key is taken: by ourselves, since the snapshot was read (a pod that was attached meanwhile), then
/// the route is replaced; or by another program, then its route stays.
fn take_over(
    socket: &mut Socket,
    operations: &[Operation],
    taken: &[usize],
    results: &mut [Result<(), KernelError>],
) {
    let mut present: BTreeMap<RouteKey, Route> = BTreeMap::new();
    let table = read::main_table(socket, None);
    for route in table.iter().flatten() {
        // Of several routes with one key the kernel would replace the first.
        present.entry(route.key).or_insert_with(|| route.clone());
    }
    for index in taken {
        let Operation::AddRoute(route) = &operations[*index] else { continue };
        results[*index] = match (&table, present.get(&route.key)) {
            (Err(error), _) => Err(error.clone()),
            (Ok(_), Some(other)) if !Ownership::is_ours(other) => Err(KernelError {
                action: action(&operations[*index]),
                reason: format!(
                    "another program (protocol {}) has a route {}; it stays. Remove it if it is left over: ip route del {} proto {}",
                    other.protocol, other.key, other.key, other.protocol
                ),
                errno: Some(EEXIST),
            }),
            (Ok(_), _) => replace(route).and_then(|request| {
                socket.request(&[request]).map_err(|refusal| refused(action(&operations[*index]), refusal))
            }),
        };
    }
}

fn replace(route: &Route) -> Result<Request, KernelError> {
    request(&Operation::ReplaceRoute(route.clone()))
}

fn request(operation: &Operation) -> Result<Request, KernelError> {
    let refusing = |reason| refuse(action(operation), reason);
    let request = match operation {
        Operation::AddRoute(route) => {
            let message = message(route).map_err(refusing)?;
            Request::with(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
        }
        Operation::ReplaceRoute(route) => {
            let message = message(route).map_err(refusing)?;
            Request::with(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
        }
        Operation::DeleteRoute(route) => {
            let mut message = message(route).map_err(refusing)?;
            message.header.scope = RouteScope::NoWhere; // any
            Request::new(RouteNetlinkMessage::DelRoute(message))
        }
        Operation::TunnelUp { .. } | Operation::TunnelDown => {
            return Err(refusing("it is no route".to_owned()));
        }
    };
    Ok(request)
}

/// What an operation does, as it is told to people.
pub(crate) fn action(operation: &Operation) -> String {
    match operation {
        Operation::AddRoute(route) => format!("adding route {}", told(route)),
        Operation::ReplaceRoute(route) => format!("replacing route {}", told(route)),
        Operation::DeleteRoute(route) => format!("deleting route {}", told(route)),
        Operation::TunnelUp { address, mtu } => format!("setting up tunl0 with {address}, MTU {mtu}"),
        Operation::TunnelDown => "setting down tunl0".to_owned(),
    }
}

fn told(route: &Route) -> String {
    let hops = match &route.target {
        Target::Hops(hops) => hops,
        Target::Blackhole => return format!("blackhole {}", route.key),
        Target::Other => return route.key.to_string(),
    };
    let hops: Vec<String> = hops
        .iter()
        .map(|hop| match hop.gateway {
            Some(gateway) => format!("via {gateway} dev if{}", hop.device.0),
            None => format!("dev if{}", hop.device.0),
        })
        .collect();
    format!("{} {}", route.key, hops.join(" and "))
}

fn message(route: &Route) -> Result<RouteMessage, String> {
    let IpAddr::V4(destination) = route.key.destination.network() else {
        return Err("IPv6 routes are not written".to_owned());
    };
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol.0);
    message.header.destination_prefix_length = route.key.destination.prefix_len();
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(destination)));
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
    let on_link = hops.iter().all(|hop| hop.gateway.is_none());
    message.header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
    match hops {
        [] => return Err("it leads nowhere".to_owned()),
        [hop] => {
            message.attributes.push(RouteAttribute::Oif(hop.device.0));
            message.attributes.extend(hop.gateway.map(gateway));
            if hop.onlink {
                message.header.flags = RouteFlags::Onlink;
            }
        }
        several => {
            message.attributes.push(RouteAttribute::MultiPath(several.iter().map(next_hop).collect()));
        }
    }
    Ok(())
}

fn next_hop(hop: &Hop) -> RouteNextHop {
    let mut next_hop = RouteNextHop::default();
    next_hop.interface_index = hop.device.0;
    next_hop.attributes = hop.gateway.map(gateway).into_iter().collect();
    if hop.onlink {
        next_hop.flags = RouteNextHopFlags::Onlink;
    }
    next_hop
}

fn gateway(gateway: IpAddr) -> RouteAttribute {
    match gateway {
        IpAddr::V4(gateway) => RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
        IpAddr::V6(gateway) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
    }
}
