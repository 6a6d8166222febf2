//! An IPv4 pod's link by the fewest calls that make one: what [`crate::cost`] compares with. Nothing is validated, found
//! before, checked, or taken back; nobody is told. One message for the link, two look-ups, one batch in
//! the pod, one host route, four sysctls.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use manx_felix::{MacAddress, PodLink};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// A socket of the calling thread's namespace.
pub(crate) fn socket() -> Socket {
    let socket = Socket::new(NETLINK_ROUTE).expect("the kernel does as it is asked");
    socket.connect(&SocketAddr::new(0, 0)).expect("the kernel does as it is asked");
    socket
}

/// Makes the link on a thread that is in the namespace `home`, where `socket` is.
pub(crate) fn attach(socket: &Socket, home: &OwnedFd, netns: &OwnedFd, pod: &PodLink) {
    exchange(socket, vec![veth(pod, netns)]);
    let host = index(&exchange(socket, vec![named(&pod.host_device)]));
    for (path, value) in [
        (format!("conf/{}/route_localnet", pod.host_device), "1"),
        (format!("neigh/{}/proxy_delay", pod.host_device), "0"),
        (format!("conf/{}/proxy_arp", pod.host_device), "1"),
        (format!("conf/{}/forwarding", pod.host_device), "1"),
    ] {
        std::fs::write(format!("/proc/sys/net/ipv4/{path}"), value).expect("the kernel does as it is asked");
    }
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("the kernel does as it is asked");
    let inside = self::socket();
    let device = index(&exchange(&inside, vec![named(&pod.pod_device)]));
    let IpAddr::V4(address) = pod.addresses[0] else { panic!("IPv4 alone") };
    exchange(
        &inside,
        vec![
            up(1),
            up(device),
            new_address(device, address),
            route(device, Some(GATEWAY), None),
            route(device, None, Some(GATEWAY)),
        ],
    );
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("the kernel does as it is asked");
    exchange(socket, vec![route(host, Some(address), None)]);
}

fn exchange(socket: &Socket, requests: Vec<(RouteNetlinkMessage, u16)>) -> Vec<u8> {
    let last = requests.len();
    let mut bytes = Vec::new();
    for (number, (message, flags)) in requests.into_iter().enumerate() {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags | if number + 1 == last { NLM_F_ACK } else { 0 };
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }
    socket.send(&bytes, 0).expect("the kernel does as it is asked");
    let mut reply = Vec::new();
    loop {
        let mut buffer = vec![0; 8192];
        let length = socket.recv(&mut buffer.as_mut_slice(), 0).expect("the kernel does as it is asked");
        if buffer[4] != 2 {
            reply = buffer[..length].to_vec();
            continue;
        }
        assert_eq!(buffer[16..20], [0; 4], "the kernel refused");
        return reply;
    }
}

/// Of a link's message.
fn index(reply: &[u8]) -> u32 {
    u32::from_ne_bytes(reply[20..24].try_into().expect("the kernel does as it is asked"))
}

fn link(index: u32, attributes: Vec<LinkAttribute>, is_up: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = if is_up { LinkFlags::Up } else { LinkFlags::empty() };
    message.header.change_mask = message.header.flags;
    message.attributes = attributes;
    message
}

fn named(name: &str) -> (RouteNetlinkMessage, u16) {
    let name = LinkAttribute::IfName(name.to_owned());
    (RouteNetlinkMessage::GetLink(link(0, vec![name], false)), 0)
}

fn up(index: u32) -> (RouteNetlinkMessage, u16) {
    (RouteNetlinkMessage::SetLink(link(index, vec![], true)), 0)
}

fn veth(pod: &PodLink, netns: &OwnedFd) -> (RouteNetlinkMessage, u16) {
    let peer = vec![
        LinkAttribute::IfName(pod.pod_device.clone()),
        LinkAttribute::Mtu(pod.mtu),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    let data = InfoData::Veth(InfoVeth::Peer(link(0, peer, false)));
    let host = vec![
        LinkAttribute::IfName(pod.host_device.clone()),
        LinkAttribute::Mtu(pod.mtu),
        LinkAttribute::Address(MacAddress::HOST_END.0.to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]),
    ];
    (RouteNetlinkMessage::NewLink(link(0, host, true)), NLM_F_CREATE | NLM_F_EXCL)
}

fn new_address(device: u32, address: Ipv4Addr) -> (RouteNetlinkMessage, u16) {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.index = device;
    message.attributes = vec![AddressAttribute::Local(address.into())];
    (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

fn route(device: u32, to: Option<Ipv4Addr>, via: Option<Ipv4Addr>) -> (RouteNetlinkMessage, u16) {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = 254;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.header.destination_prefix_length = if to.is_some() { 32 } else { 0 };
    message.attributes.push(RouteAttribute::Oif(device));
    message.attributes.extend(to.map(|to| RouteAttribute::Destination(IpAddr::V4(to).into())));
    message.attributes.extend(via.map(|via| RouteAttribute::Gateway(IpAddr::V4(via).into())));
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
}
