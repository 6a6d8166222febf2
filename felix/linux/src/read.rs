//! Reads links, addresses and routes into a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use manx_felix::{IfIndex, KernelError, Link, Ownership, Route, RouteKey, Snapshot};
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::error::{refuse, refused};
use crate::message::{self, Family};
use crate::parse;
use crate::socket::{DumpError, Socket};

/// How often a read begins anew because the kernel's tables changed meanwhile.
const ATTEMPTS: usize = 20;

/// Reads everything in one pass; one that was torn by a change is thrown away.
pub(crate) fn snapshot(socket: &mut Socket) -> Result<Snapshot, KernelError> {
    again(socket, "reading links and routes", |socket| {
        // Routes before links, so that a pod which is attached meanwhile shows its link without its route, and never the
        // other way round, which would look like a route to be swept.
        let mut table = routes(socket, Family::V4, None)?;
        table.extend(routes(socket, Family::V6, None)?);
        let routes = that_matter(table);
        let mut links = links(socket)?;
        for (index, address) in addresses(socket, Family::V4)? {
            if let (Some(link), IpNet::V4(address)) = (links.get_mut(&index), address) {
                link.addresses.push(address);
            }
        }
        Ok(Snapshot { links, routes })
    })
}

/// The routes of the main table of a family, of one device where one is given.
pub(crate) fn main_table(
    socket: &mut Socket,
    family: Family,
    device: Option<IfIndex>,
) -> Result<Vec<Route>, KernelError> {
    again(socket, "reading routes", |socket| routes(socket, family, device))
}

/// The addresses of a family of one link.
pub(crate) fn addresses_of(
    socket: &mut Socket,
    family: Family,
    device: IfIndex,
) -> Result<Vec<IpNet>, KernelError> {
    let all = again(socket, "reading addresses", |socket| addresses(socket, family))?;
    Ok(all.into_iter().filter(|(index, _)| *index == device).map(|(_, address)| address).collect())
}

/// Reads until a pass was not torn.
fn again<T>(
    socket: &mut Socket,
    action: &str,
    mut read: impl FnMut(&mut Socket) -> Result<T, DumpError>,
) -> Result<T, KernelError> {
    for _ in 0..ATTEMPTS {
        match read(socket) {
            Ok(all) => return Ok(all),
            Err(DumpError::Interrupted) => {}
            Err(DumpError::Refused(refusal)) => return Err(refused(action, refusal)),
        }
    }
    Err(refuse(action, format!("they changed {ATTEMPTS} times while they were read; try again")))
}

fn links(socket: &mut Socket) -> Result<BTreeMap<IfIndex, Link>, DumpError> {
    let mut links = BTreeMap::new();
    socket.dump(message::links(), |message| {
        if let Some(device) = parse::device(message.payload) {
            links.insert(device.link.index, device.link);
        }
    })?;
    Ok(links)
}

fn addresses(socket: &mut Socket, family: Family) -> Result<Vec<(IfIndex, IpNet)>, DumpError> {
    let mut addresses = Vec::new();
    dump(socket, family, message::addresses(family), |payload| addresses.extend(parse::address(payload)))?;
    Ok(addresses)
}

fn routes(socket: &mut Socket, family: Family, device: Option<IfIndex>) -> Result<Vec<Route>, DumpError> {
    let mut routes = Vec::new();
    dump(socket, family, message::routes(family, device), |payload| routes.extend(parse::route(payload)))?;
    Ok(routes)
}

/// A kernel without IPv6 answers a question about it with all that it has of other families.
fn dump(
    socket: &mut Socket,
    family: Family,
    message: RouteNetlinkMessage,
    mut each: impl FnMut(&[u8]),
) -> Result<(), DumpError> {
    socket.dump(message, |message| {
        if message.payload.first() == Some(&family.number()) {
            each(message.payload);
        }
    })
}

/// Leaves out other BGP speakers' routes, unless one has the key of one of ours.
fn that_matter(mut routes: Vec<Route>) -> Vec<Route> {
    let other_bgp = |route: &Route| route.protocol.is_bgp() && !Ownership::is_ours(route);
    let ours: BTreeSet<RouteKey> =
        routes.iter().filter(|route| Ownership::is_ours(route)).map(|route| route.key).collect();
    routes.retain(|route| !other_bgp(route) || ours.contains(&route.key));
    routes
}
