//! Reads what the kernel sends: messages, their attributes, and of links, addresses and routes the little that we want.
//!
//! By hand, since the typed parser refuses a whole message for one attribute that it does not know, and takes three
//! times as long for a route. Nothing here can panic: what is too short is absent. Numbers are those of
//! `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h` and `linux/if_addr.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use manx_felix::{Hop, IfIndex, Link, MacAddress, Protocol, Route, RouteKey, Target};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
pub(crate) const RT_TABLE_MAIN: u32 = 254;

const HEADER: usize = 16;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_ONLINK: u8 = 4;

/// One netlink message.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The port of the socket whose request caused this, in a notification.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            payload,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Attributes: kind (without its flag bits) and value.
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn after(payload: &'a [u8], header: usize) -> Self {
        Self(payload.get(header..).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const FLAGS: u16 = 0xc000;
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & !FLAGS;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A link, with what only this crate asks of it.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// Without its addresses, which come separately.
    pub(crate) link: Link,
    pub(crate) mac: Option<MacAddress>,
    /// `veth`, `ipip`, …; empty for hardware.
    pub(crate) kind: String,
    /// The index of the other end, for a veth; in the other end's namespace.
    pub(crate) peer: Option<u32>,
}

/// `linux/if_link.h`.
mod ifla {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const IFNAME: u16 = 3;
    pub(super) const MTU: u16 = 4;
    pub(super) const LINK: u16 = 5;
    pub(super) const LINKINFO: u16 = 18;
    pub(super) const IFALIAS: u16 = 20;
    pub(super) const INFO_KIND: u16 = 1;
}

/// RTM_NEWLINK or RTM_DELLINK; `None` also for messages of bridge ports, which are not about the link itself.
pub(crate) fn device(payload: &[u8]) -> Option<Device> {
    let is_a_link = *payload.first()? == 0;
    let index = IfIndex(u32_at(payload, 4)?);
    let up = u32_at(payload, 8)? & IFF_UP != 0;
    let link = Link { index, name: String::new(), up, mtu: 0, alias: None, addresses: Vec::new() };
    let mut device = Device { link, mac: None, kind: String::new(), peer: None };
    for (kind, value) in Attributes::after(payload, 16) {
        match kind {
            ifla::ADDRESS => device.mac = value.try_into().ok().map(MacAddress),
            ifla::IFNAME => device.link.name = text(value),
            ifla::MTU => device.link.mtu = u32_at(value, 0)?,
            ifla::LINK => device.peer = u32_at(value, 0),
            ifla::IFALIAS => device.link.alias = Some(text(value)),
            ifla::LINKINFO => {
                let kind = Attributes::new(value).find(|(kind, _)| *kind == ifla::INFO_KIND);
                device.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    is_a_link.then_some(device)
}

/// RTM_NEWADDR: the link and the address with its subnet.
pub(crate) fn address(payload: &[u8]) -> Option<(IfIndex, IpNet)> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let prefix_len = *payload.get(1)?;
    let index = IfIndex(u32_at(payload, 4)?);
    let (mut local, mut peer) = (None, None);
    for (kind, value) in Attributes::after(payload, 8) {
        match kind {
            IFA_ADDRESS => peer = ip(value),
            IFA_LOCAL => local = ip(value),
            _ => {}
        }
    }
    let address = local.or(peer)?;
    // On a point-to-point link the length is that of the peer's address.
    let net = match peer.is_some_and(|peer| peer != address) {
        true => IpNet::from(address),
        false => IpNet::new(address, prefix_len).ok()?,
    };
    Some((index, net))
}

/// `linux/rtnetlink.h`.
mod rta {
    pub(super) const DST: u16 = 1;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const MULTIPATH: u16 = 9;
    pub(super) const TABLE: u16 = 15;
    pub(super) const VIA: u16 = 18;
}

/// Of a route: the table, who wrote it, and its first device, if it has one.
pub(crate) fn route_owner(payload: &[u8]) -> Option<(u32, Protocol, Option<IfIndex>)> {
    let (mut table, mut device) = (u32::from(*payload.get(4)?), None);
    for (kind, value) in Attributes::after(payload, 12) {
        match kind {
            rta::TABLE => table = u32_at(value, 0)?,
            rta::OIF => device = u32_at(value, 0).map(IfIndex),
            _ => {}
        }
    }
    Some((table, Protocol(*payload.get(5)?), device))
}

/// The message is about a route to link-local addresses, which every IPv6 device has.
pub(crate) fn is_link_local(payload: &[u8]) -> bool {
    let destination = Attributes::after(payload, 12).find(|(kind, _)| *kind == rta::DST);
    matches!(destination.and_then(|(_, value)| ip(value)), Some(IpAddr::V6(to)) if to.is_unicast_link_local())
}

/// RTM_NEWROUTE. `None` where it is no plain route: for one type of service or one source only, a cached clone, or to
/// link-local addresses.
pub(crate) fn route(payload: &[u8]) -> Option<Route> {
    const RTN_UNICAST: u8 = 1;
    const RTN_BLACKHOLE: u8 = 6;
    let [family, length, source, tos, _, protocol, _, kind] = *payload.first_chunk()?;
    let flags = u32_at(payload, 8)?;
    if source != 0 || tos != 0 || flags & RTM_F_CLONED != 0 || is_link_local(payload) {
        return None;
    }
    let mut destination = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut priority, mut device, mut gateway, mut hops) = (0, None, None, Vec::new());
    for (kind, value) in Attributes::after(payload, 12) {
        match kind {
            rta::DST => destination = ip(value)?,
            rta::PRIORITY => priority = u32_at(value, 0)?,
            rta::OIF => device = u32_at(value, 0).map(IfIndex),
            rta::GATEWAY => gateway = ip(value),
            rta::VIA => gateway = via(value),
            rta::MULTIPATH => hops = multipath(value),
            _ => {}
        }
    }
    // RTNH_F_ONLINK is in the lowest byte of the flags.
    let onlink = flags as u8 & RTNH_F_ONLINK != 0;
    hops.extend(device.map(|device| Hop { device, gateway, onlink }));
    let target = match kind {
        RTN_UNICAST if !hops.is_empty() => Target::Hops(hops),
        RTN_BLACKHOLE => Target::Blackhole,
        _ => Target::Other,
    };
    let key = RouteKey { destination: IpNet::new(destination, length).ok()?, priority };
    Some(Route { key, protocol: Protocol(protocol), target })
}

/// `struct rtnexthop`s, each with its attributes.
fn multipath(mut bytes: &[u8]) -> Vec<Hop> {
    std::iter::from_fn(|| {
        let length = usize::from(u16_at(bytes, 0)?);
        let onlink = *bytes.get(2)? & RTNH_F_ONLINK != 0;
        let device = IfIndex(u32_at(bytes, 4)?);
        let gateway = Attributes::new(bytes.get(8..length)?).find_map(|(kind, value)| match kind {
            rta::GATEWAY => ip(value),
            rta::VIA => via(value),
            _ => None,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Hop { device, gateway, onlink })
    })
    .collect()
}

/// `struct rtvia`: a gateway of another family (RFC 5549).
fn via(value: &[u8]) -> Option<IpAddr> {
    let (_, address) = value.split_at_checked(2)?;
    ip(address)
}

/// RTM_NEWNEIGH: the state (`NUD_*`) and the MAC address.
pub(crate) fn neighbour(payload: &[u8]) -> Option<(u16, Option<MacAddress>)> {
    const NDA_LLADDR: u16 = 2;
    let mac = Attributes::after(payload, 12).find(|(kind, _)| *kind == NDA_LLADDR);
    Some((u16_at(payload, 8)?, mac.and_then(|(_, value)| value.try_into().ok()).map(MacAddress)))
}

/// Text up to the terminating zero.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// An address; its length tells the family.
fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8]) {
        let _ = (device(bytes), address(bytes), route(bytes), route_owner(bytes), neighbour(bytes));
        let _ = (Attributes::new(bytes).count(), messages(bytes).count());
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            read_all(&bytes);
        }

        /// Lengths that are nearly right reach deeper than noise does.
        #[test]
        fn no_attributes_are_a_panic(
            header in any::<[u8; 12]>(),
            attributes in prop::collection::vec((0..12u16, 0..24u16, any::<[u8; 8]>()), 0..8),
        ) {
            let mut bytes = header.to_vec();
            for (length, kind, value) in attributes {
                bytes.extend(length.to_ne_bytes());
                bytes.extend(kind.to_ne_bytes());
                bytes.extend(value);
            }
            read_all(&bytes);
        }
    }

    #[test]
    fn a_truncated_message_ends_the_datagram() {
        let mut bytes = 20u32.to_ne_bytes().to_vec();
        bytes.resize(20, 0);
        bytes.extend(40u32.to_ne_bytes());
        assert_eq!(messages(&bytes).map(|message| message.payload.len()).collect::<Vec<_>>(), [4]);
    }
}
