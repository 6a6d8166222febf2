//! The requests that we make, as messages.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use manx_felix::{IfIndex, MacAddress, PodLink};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::socket::Request;

/// The loopback device has this index in every network namespace.
pub(crate) const LOOPBACK: IfIndex = IfIndex(1);
const ADD: u16 = NLM_F_CREATE | NLM_F_EXCL;

fn link(index: IfIndex, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.0;
    message.attributes = attributes;
    message
}

fn up(mut message: LinkMessage, up: bool) -> LinkMessage {
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    message.header.change_mask = LinkFlags::Up;
    message
}

/// Every link (a dump), without counters.
pub(crate) fn links() -> RouteNetlinkMessage {
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    RouteNetlinkMessage::GetLink(link(IfIndex(0), vec![mask]))
}

/// The link of this name.
pub(crate) fn link_by_name(name: &str) -> Request {
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    let message = link(IfIndex(0), vec![LinkAttribute::IfName(name.to_owned()), mask]);
    Request::new(RouteNetlinkMessage::GetLink(message))
}

/// Both ends of a pod's link: the host's up at once, the pod's straight in its namespace.
pub(crate) fn veth(pod: &PodLink, netns: BorrowedFd<'_>) -> Request {
    let peer = vec![
        LinkAttribute::IfName(pod.pod_device.clone()),
        LinkAttribute::Mtu(pod.mtu),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    let data = InfoData::Veth(InfoVeth::Peer(link(IfIndex(0), peer)));
    let host = vec![
        LinkAttribute::IfName(pod.host_device.clone()),
        LinkAttribute::Mtu(pod.mtu),
        LinkAttribute::Address(MacAddress::HOST_END.0.to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]),
    ];
    Request::with(RouteNetlinkMessage::NewLink(up(link(IfIndex(0), host), true)), ADD)
}

/// A device of kind `ipip` with this name.
pub(crate) fn ipip(name: &str) -> Request {
    let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::IpIp)]);
    let message = link(IfIndex(0), vec![LinkAttribute::IfName(name.to_owned()), kind]);
    Request::with(RouteNetlinkMessage::NewLink(message), ADD)
}

/// Gives the link of this name its alias, which no creation takes.
pub(crate) fn set_alias(name: &str, alias: &str) -> Request {
    let attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::IfAlias(alias.to_owned())];
    Request::new(RouteNetlinkMessage::SetLink(link(IfIndex(0), attributes)))
}

pub(crate) fn set_up(index: IfIndex, is_up: bool) -> Request {
    Request::new(RouteNetlinkMessage::SetLink(up(link(index, Vec::new()), is_up)))
}

pub(crate) fn set_mtu(index: IfIndex, mtu: u32) -> Request {
    Request::new(RouteNetlinkMessage::SetLink(link(index, vec![LinkAttribute::Mtu(mtu)])))
}

pub(crate) fn delete_link(index: IfIndex) -> Request {
    Request::new(RouteNetlinkMessage::DelLink(link(index, Vec::new())))
}

fn address(device: IfIndex, address: Ipv4Addr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_len;
    message.header.scope = AddressScope::Universe;
    message.header.index = device.0;
    message.attributes =
        vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    message
}

/// Every IPv4 address (a dump).
pub(crate) fn addresses() -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    RouteNetlinkMessage::GetAddress(message)
}

pub(crate) fn add_address(device: IfIndex, it: Ipv4Addr) -> Request {
    Request::with(RouteNetlinkMessage::NewAddress(address(device, it, 32)), ADD)
}

pub(crate) fn delete_address(device: IfIndex, it: Ipv4Addr, prefix_len: u8) -> Request {
    Request::new(RouteNetlinkMessage::DelAddress(address(device, it, prefix_len)))
}

fn neighbour(device: IfIndex, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = device.0;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(address))];
    message
}

/// A neighbour that never ages.
pub(crate) fn permanent_neighbour(device: IfIndex, address: Ipv4Addr, mac: MacAddress) -> Request {
    let mut message = neighbour(device, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    Request::with(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn neighbour_of(device: IfIndex, address: Ipv4Addr) -> Request {
    Request::new(RouteNetlinkMessage::GetNeighbour(neighbour(device, address)))
}

/// The IPv4 routes of the main table (a dump), of one device where one is given.
pub(crate) fn routes(device: Option<IfIndex>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.attributes = device.map(|device| RouteAttribute::Oif(device.0)).into_iter().collect();
    RouteNetlinkMessage::GetRoute(message)
}

/// A route inside a pod, as an administrator would add it: over the gateway, or to it on the link.
pub(crate) fn pod_route(
    device: IfIndex,
    destination: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.attributes.push(RouteAttribute::Oif(device.0));
    if let Some(destination) = destination {
        message.header.destination_prefix_length = 32;
        message.attributes.push(RouteAttribute::Destination(IpAddr::V4(destination).into()));
    }
    if let Some(gateway) = gateway {
        message.attributes.push(RouteAttribute::Gateway(IpAddr::V4(gateway).into()));
    }
    Request::with(RouteNetlinkMessage::NewRoute(message), ADD)
}
