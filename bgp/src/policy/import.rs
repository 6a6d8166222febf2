//! Routes that are not taken, each with its reason.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use manx_model::Asn;

use super::{Filter, Interfaces, Operation, PeerType, Route, Verdict, judge};
use crate::wire::Attributes;

/// Who we are towards a peer, and what its routes must pass.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// Our AS, as the peer knows it.
    pub asn: Asn,
    /// How often that may be in an AS_PATH; usually never.
    pub own_as_allowed: u8,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Our cluster.
    pub cluster_id: Ipv4Addr,
    /// Our address towards the peer.
    pub local: IpAddr,
    /// The peer is in another AS.
    pub external: bool,
    /// Its filters.
    pub filters: &'a [Arc<Filter>],
    /// What leads where.
    pub interfaces: &'a Interfaces,
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
    /// By the configuration.
    #[error("a filter rejects it")]
    Filtered,
}

/// Whether a route may be used, and what is to be changed about it first.
pub fn admit<'a>(
    gate: Gate<'a>,
    prefix: &IpNet,
    attributes: &Attributes,
    next_hop: IpAddr,
) -> Result<&'a [Operation], Rejected> {
    let checks = [
        (attributes.as_path.count(gate.asn) > usize::from(gate.own_as_allowed), Rejected::AsLoop),
        (attributes.originator_id == Some(gate.router_id), Rejected::OwnOriginator),
        (attributes.cluster_list.contains(&gate.cluster_id), Rejected::ClusterLoop),
        (next_hop == gate.local, Rejected::OwnNextHop),
        (martian(prefix), Rejected::Martian),
    ];
    if let Some((_, reason)) = checks.into_iter().find(|(wrong, _)| *wrong) {
        return Err(reason);
    }
    let peer_type = PeerType::of(gate.external);
    let route = Route { prefix, attributes, learned: Some(next_hop), peer_type, interfaces: gate.interfaces };
    match judge(gate.filters, route) {
        Verdict::Accept(operations) => Ok(operations),
        Verdict::Reject => Err(Rejected::Filtered),
        Verdict::Undecided => Ok(&[]),
    }
}

/// The default route is none, though it contains them all.
fn martian(prefix: &IpNet) -> bool {
    match prefix.network() {
        _ if prefix.prefix_len() == 0 => false,
        IpAddr::V4(v4) => matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback() || v6.is_unspecified(),
    }
}
