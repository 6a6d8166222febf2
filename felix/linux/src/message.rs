//! The requests that we make, as messages.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use manx_felix::{IfIndex, MacAddress, PodLink};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::neighbour_table::{
    NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::socket::Request;

/// The loopback device has this index in every network namespace.
pub(crate) const LOOPBACK: IfIndex = IfIndex(1);
const ADD: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// An address family that is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// That of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }

    /// The family's number (`AF_*`) at the head of messages.
    pub(crate) fn number(self) -> u8 {
        u8::from(self.inner())
    }

    fn inner(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}

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

/// The link with this index.
pub(crate) fn link_by_index(index: IfIndex) -> Request {
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    Request::new(RouteNetlinkMessage::GetLink(link(index, vec![mask])))
}

/// Both ends of a pod's link: the host's up at once or not, the pod's straight in its namespace.
pub(crate) fn veth(pod: &PodLink, netns: BorrowedFd<'_>, is_up: bool) -> Request {
    let queues = |queues| [LinkAttribute::NumTxQueues(queues), LinkAttribute::NumRxQueues(queues)];
    let queues = pod.queues.map(queues);
    let mut peer = vec![
        LinkAttribute::IfName(pod.pod_device.clone()),
        LinkAttribute::Mtu(pod.mtu),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    peer.extend(pod.pod_mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    peer.extend(queues.iter().flatten().cloned());
    let data = InfoData::Veth(InfoVeth::Peer(link(IfIndex(0), peer)));
    let mut host = vec![
        LinkAttribute::IfName(pod.host_device.clone()),
        LinkAttribute::Mtu(pod.mtu),
        LinkAttribute::Address(MacAddress::HOST_END.0.to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]),
    ];
    host.extend(queues.iter().flatten().cloned());
    Request::with(RouteNetlinkMessage::NewLink(up(link(IfIndex(0), host), is_up)), ADD)
}

/// A device of kind `ipip` with this name.
pub(crate) fn ipip(name: &str) -> Request {
    let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::IpIp)]);
    let message = link(IfIndex(0), vec![LinkAttribute::IfName(name.to_owned()), kind]);
    Request::with(RouteNetlinkMessage::NewLink(message), ADD)
}

/// Gives the host's end of this name its alias, and of [`crate::parts::host_parameters`] those of `net.ipv4.conf`; no
/// creation takes either.
pub(crate) fn identify(name: &str, alias: &str) -> Request {
    let mut parameters = InetDevConf::default(); // those that are 0 are left alone
    parameters.route_localnet = 1;
    parameters.proxy_arp = 1;
    parameters.forwarding = 1;
    let ipv4 = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(parameters)]);
    let attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::IfAlias(alias.to_owned()),
        LinkAttribute::AfSpecUnspec(vec![ipv4]),
    ];
    Request::new(RouteNetlinkMessage::SetLink(link(IfIndex(0), attributes)))
}

/// `net.ipv4.neigh.DEVICE.proxy_delay` of 0.
pub(crate) fn answer_at_once(device: IfIndex) -> Request {
    let mut message = NeighbourTableMessage::default();
    message.header.family = AddressFamily::Inet;
    let parameters = vec![NeighbourTableParameter::Ifindex(device.0), NeighbourTableParameter::ProxyDelay(0)];
    message.attributes = vec![
        NeighbourTableAttribute::Name("arp_cache".to_owned()),
        NeighbourTableAttribute::Parms(parameters),
    ];
    Request::new(RouteNetlinkMessage::SetNeighbourTable(message))
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

fn address(device: IfIndex, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(net.addr()).inner();
    message.header.prefix_len = net.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = device.0;
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}

/// Every address of a family (a dump).
pub(crate) fn addresses(family: Family) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = family.inner();
    RouteNetlinkMessage::GetAddress(message)
}

/// An address that can be used at once: an IPv6 one is not tried for duplicates.
pub(crate) fn add_address(device: IfIndex, net: IpNet) -> Request {
    let mut message = address(device, net);
    if net.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    Request::with(RouteNetlinkMessage::NewAddress(message), ADD)
}

pub(crate) fn delete_address(device: IfIndex, net: IpNet) -> Request {
    Request::new(RouteNetlinkMessage::DelAddress(address(device, net)))
}

fn neighbour(device: IfIndex, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::of(address).inner();
    message.header.ifindex = device.0;
    message.attributes = vec![NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    })];
    message
}

/// A neighbour that never ages.
pub(crate) fn permanent_neighbour(device: IfIndex, address: IpAddr, mac: MacAddress) -> Request {
    let mut message = neighbour(device, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    Request::with(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn neighbour_of(device: IfIndex, address: IpAddr) -> Request {
    Request::new(RouteNetlinkMessage::GetNeighbour(neighbour(device, address)))
}

/// The routes of the main table of a family (a dump), of one device where one is given.
pub(crate) fn routes(family: Family, device: Option<IfIndex>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family.inner();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.attributes = device.map(|device| RouteAttribute::Oif(device.0)).into_iter().collect();
    RouteNetlinkMessage::GetRoute(message)
}

/// A route inside a pod, as an administrator would add it: over the gateway, or on the link.
pub(crate) fn pod_route(device: IfIndex, destination: IpNet, gateway: Option<IpAddr>) -> Request {
    let mut message = RouteMessage::default();
    let family = Family::of(destination.addr());
    message.header.address_family = family.inner();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.attributes.push(RouteAttribute::Oif(device.0));
    if destination.prefix_len() > 0 {
        message.header.destination_prefix_length = destination.prefix_len();
        message.attributes.push(RouteAttribute::Destination(destination.network().into()));
    }
    if let Some(gateway) = gateway {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    Request::with(RouteNetlinkMessage::NewRoute(message), ADD)
}
