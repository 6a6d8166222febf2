//! A route as one peer told it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use manx_model::Asn;

use crate::policy::Rejected;
use crate::wire::Attributes;

/// The preference of a route that says none (RFC 4271 §9.1.1 leaves it to us; all vendors say 100).
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// Facts about a peer that decisions need, as they were when its session was established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// It is in another AS.
    pub external: bool,
    /// Our address towards it.
    pub local: IpAddr,
}

/// A path to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// What the peer said about it; shared by all prefixes of a message. Kept, so that a filter may change without the peer's
    /// help.
    pub received: Arc<Attributes>,
    /// What is said about it here, after the filters; usually the same.
    pub attributes: Arc<Attributes>,
    /// Its next hop.
    pub next_hop: IpAddr,
    /// Who told it.
    pub from: Neighbour,
    /// Its peer is restarting and has not repeated it yet (RFC 4724 §4.2).
    pub stale: bool,
    /// Why it is not used, if it is not.
    pub rejected: Option<Rejected>,
}

impl Path {
    /// LOCAL_PREF, or what stands for it.
    pub fn local_pref(&self) -> u32 {
        self.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    }

    /// Who put it into our AS: behind a reflector not the peer itself (RFC 4456 §9).
    pub fn originator(&self) -> Ipv4Addr {
        self.attributes.originator_id.unwrap_or(self.from.router_id)
    }

    /// A reflector that is gone said it of another node: who put it there cannot take it back.
    pub(super) fn is_hearsay(&self) -> bool {
        self.stale && self.attributes.originator_id.is_some()
    }
}
