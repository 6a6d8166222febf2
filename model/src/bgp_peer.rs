//! Who peers with whom, as BGPPeers say it.

mod check;
mod fields;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value};

pub use fields::{NextHopMode, PeerEndpoint, ReversePeering, SourceAddress};

use crate::read::strict;
use crate::{Asn, Interval, Invalid, NodeName, Object, Password, Selector, absent};

/// `spec` of a BGPPeer as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpPeerSpec {
    /// The one node that peers.
    #[serde(deserialize_with = "absent::empty")]
    pub node: Option<NodeName>,
    /// The nodes that peer; with neither, every node does.
    #[serde(deserialize_with = "absent::empty")]
    pub node_selector: Option<Selector>,
    /// The peer's address, `ip`, `ip:port` or `[v6]:port`.
    #[serde(rename = "peerIP", deserialize_with = "absent::empty")]
    pub peer_ip: Option<PeerEndpoint>,
    /// The peers are these nodes.
    #[serde(deserialize_with = "absent::empty")]
    pub peer_selector: Option<Selector>,
    /// The peers are these pods of the node.
    #[serde(deserialize_with = "absent::empty")]
    pub local_workload_selector: Option<Selector>,
    /// The peer's AS.
    #[serde(deserialize_with = "absent::zero")]
    pub as_number: Option<Asn>,
    /// The AS that we say to be in.
    #[serde(rename = "localASNumber", deserialize_with = "absent::zero")]
    pub local_as_number: Option<Asn>,
    /// Deprecated: `nextHopMode: Keep`.
    #[serde(deserialize_with = "absent::null")]
    pub keep_original_next_hop: bool,
    /// Which next hop the peer is told; `Auto` when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub next_hop_mode: Option<NextHopMode>,
    /// The session's password.
    pub password: Option<Password>,
    /// From which address the session is made; `UseNodeIP` when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub source_address: Option<SourceAddress>,
    /// For how long our routes are kept while we restart.
    #[serde(deserialize_with = "absent::empty")]
    pub max_restart_time: Option<Interval>,
    /// How often a keepalive is sent.
    #[serde(deserialize_with = "absent::empty")]
    pub keepalive_time: Option<Interval>,
    /// How often our AS may occur in the AS_PATH of what the peer tells.
    #[serde(rename = "numAllowedLocalASNumbers")]
    pub num_allowed_local_as_numbers: Option<u32>,
    /// The peer is at most this many hops away, and nothing from farther away is listened to (RFC 5082).
    pub ttl_security: Option<u8>,
    /// The gateway through which the peer is reached.
    #[serde(deserialize_with = "absent::empty")]
    pub reachable_by: Option<IpAddr>,
    /// BGPFilters, in order.
    #[serde(deserialize_with = "absent::null")]
    pub filters: Vec<String>,
    /// Whether the other node peers back by itself; `Auto` when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub reverse_peering: Option<ReversePeering>,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A BGPPeer that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// Its name.
    pub name: String,
    /// Who peers.
    pub nodes: PeeringNodes,
    /// With whom.
    pub peers: Peers,
    /// The AS that we say to be in, where it is not the node's.
    pub local_asn: Option<Asn>,
    /// Which next hop the peer is told.
    pub next_hop: NextHopMode,
    /// The session's password.
    pub password: Option<Password>,
    /// From which address the session is made.
    pub source: SourceAddress,
    /// For how long our routes are kept while we restart.
    pub max_restart_time: Option<Interval>,
    /// How often a keepalive is sent; a third of the hold time when `None`.
    pub keepalive_time: Option<Interval>,
    /// How often our AS may occur in the AS_PATH of what the peer tells.
    pub allowed_local_asns: u32,
    /// At most so many hops away (RFC 5082).
    pub ttl_security: Option<u8>,
    /// Names of BGPFilters, in order.
    pub filters: Vec<String>,
    /// Whether a node that is named as peer peers back by itself.
    pub reverse: ReversePeering,
    /// Names of fields that we do not know, and that are set.
    pub unknown: Vec<String>,
}

/// Which nodes peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeeringNodes {
    /// Every node: a global peer.
    All,
    /// This one.
    One(NodeName),
    /// Those with such labels.
    Selected(Selector),
}

/// With whom nodes peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// With whoever has this address.
    Address {
        /// Where the peer listens.
        endpoint: PeerEndpoint,
        /// The peer's AS.
        asn: Asn,
        /// The gateway through which it is reached; of the same family.
        reachable_by: Option<IpAddr>,
    },
    /// With nodes of the cluster that have such labels.
    Nodes(Selector),
    /// With pods of the node itself that have such labels.
    LocalWorkloads(Selector, Asn),
}

impl BgpPeer {
    /// Reads and checks a BGPPeer, all of it or nothing: a session without the password or the filters that were asked
    /// for is worse than none.
    ///
    /// # Errors
    /// [`Invalid`] with the field and what is allowed.
    pub fn from_object(object: &Object) -> Result<Self, Invalid> {
        check::peer(object.name(), strict(object)?)
            .map_err(|(field, reason)| object.invalid(format!("spec.{field}"), reason))
    }
}
