//! Path attributes as values.

mod community;
mod decode;
mod encode;

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use manx_model::Asn;

use super::AsPath;

pub use community::{AnyCommunity, Community, ExtendedCommunity, LargeCommunity, NoCommunity};
pub(super) use decode::{Decoded, decode};
pub(super) use encode::encode;

/// Attribute type codes.
pub(super) mod code {
    pub(crate) const ORIGIN: u8 = 1;
    pub(crate) const AS_PATH: u8 = 2;
    pub(crate) const NEXT_HOP: u8 = 3;
    pub(crate) const MED: u8 = 4;
    pub(crate) const LOCAL_PREF: u8 = 5;
    pub(crate) const ATOMIC_AGGREGATE: u8 = 6;
    pub(crate) const AGGREGATOR: u8 = 7;
    pub(crate) const COMMUNITIES: u8 = 8;
    pub(crate) const ORIGINATOR_ID: u8 = 9;
    pub(crate) const CLUSTER_LIST: u8 = 10;
    pub(crate) const MP_REACH: u8 = 14;
    pub(crate) const MP_UNREACH: u8 = 15;
    pub(crate) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(crate) const AS4_PATH: u8 = 17;
    pub(crate) const AS4_AGGREGATOR: u8 = 18;
    pub(crate) const LARGE_COMMUNITY: u8 = 32;
}

/// Attribute flags.
pub(super) mod flag {
    pub(crate) const OPTIONAL: u8 = 0x80;
    pub(crate) const TRANSITIVE: u8 = 0x40;
    pub(crate) const PARTIAL: u8 = 0x20;
    pub(crate) const EXTENDED_LENGTH: u8 = 0x10;
}

/// Where a route came from, the better first (RFC 4271 §5.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Inside the originating AS.
    #[default]
    Igp = 0,
    /// By EGP.
    Egp = 1,
    /// By other means.
    Incomplete = 2,
}

/// Who formed an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aggregator {
    /// Its AS.
    pub asn: Asn,
    /// Its identifier.
    pub identifier: Ipv4Addr,
}

/// An attribute that we do not know, optional and transitive: passed on as it came (RFC 4271 §5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Its type code.
    pub code: u8,
    /// Somebody on the way did not know it. Set when we pass it on.
    pub partial: bool,
    /// Its value.
    pub value: Bytes,
}

/// What is said about a set of routes, but for the next hop, which belongs to a session and not to the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF; inside an AS only.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES, without repetitions.
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES; those that are not transitive inside an AS only.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY, without repetitions.
    pub large_communities: Vec<LargeCommunity>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), the latest reflector first.
    pub cluster_list: Vec<Ipv4Addr>,
    /// Optional transitive ones that we do not know.
    pub unknown: Vec<UnknownAttribute>,
}

impl Attributes {
    /// Whether a community is among them.
    pub fn has_community(&self, community: AnyCommunity) -> bool {
        match community {
            AnyCommunity::Standard(community) => self.communities.contains(&community),
            AnyCommunity::Large(community) => self.large_communities.contains(&community),
        }
    }

    /// Adds a community, unless it is there.
    pub fn add_community(&mut self, community: AnyCommunity) {
        match community {
            _ if self.has_community(community) => (),
            AnyCommunity::Standard(community) => self.communities.push(community),
            AnyCommunity::Large(community) => self.large_communities.push(community),
        }
    }
}

/// Whether an address can be a next hop at all: that of a host (RFC 4271 §6.3).
pub fn usable_next_hop(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => (1..224).contains(&v4.octets()[0]),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast()),
    }
}
