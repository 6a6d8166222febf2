//! Routes that are not taken, each with its reason.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use manx_model::Asn;

use crate::wire::Attributes;

/// Who we are, as far as it matters for what we accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Us {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP identifier; our cluster identifier, too.
    pub router_id: Ipv4Addr,
    /// Our address towards the peer.
    pub local: IpAddr,
}

/// Why a route is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Rejected {
    /// RFC 4271 §9.1.2.
    #[error("our own AS is in its AS_PATH")]
    AsLoop,
    /// RFC 4456 §8.
    #[error("we originated it: ORIGINATOR_ID is our identifier")]
    OwnOriginator,
    /// RFC 4456 §8.
    #[error("our cluster is in its CLUSTER_LIST")]
    ClusterLoop,
    /// RFC 4271 §5.1.3.
    #[error("its next hop is our own address")]
    OwnNextHop,
    /// RFC 4271 §6.3: a semantically incorrect prefix is ignored.
    #[error("its prefix cannot be routed: multicast, reserved, loopback or this network")]
    Martian,
}

/// Whether a route may enter the table.
pub fn accept(us: Us, prefix: &IpNet, attributes: &Attributes, next_hop: IpAddr) -> Result<(), Rejected> {
    let checks = [
        (attributes.as_path.contains(us.asn), Rejected::AsLoop),
        (attributes.originator_id == Some(us.router_id), Rejected::OwnOriginator),
        (attributes.cluster_list.contains(&us.router_id), Rejected::ClusterLoop),
        (next_hop == us.local, Rejected::OwnNextHop),
        (martian(prefix), Rejected::Martian),
    ];
    checks.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, reason)| Err(reason))
}

/// The default route is none, though it contains them all.
fn martian(prefix: &IpNet) -> bool {
    match prefix.network() {
        _ if prefix.prefix_len() == 0 => false,
        IpAddr::V4(v4) => matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback() || v6.is_unspecified(),
    }
}
