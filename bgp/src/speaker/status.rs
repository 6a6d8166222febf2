//! The speaker as an operator sees it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use manx_model::Asn;

use super::{Peer, Speaker};
use crate::rib::Count;
use crate::session::{Negotiated, State};

/// The whole speaker.
#[derive(Clone, Debug)]
pub struct SpeakerStatus {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// [`super::Change::Converged`] has happened.
    pub converged: bool,
    /// We have restarted, and hold back the choice of routes until peers have told theirs.
    pub restarting: bool,
    /// Prefixes that we originate; `None` before the owner has said it.
    pub originated: Option<usize>,
    /// The peers, by address.
    pub peers: Vec<PeerStatus>,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
    /// Its AS.
    pub asn: Asn,
    /// Its state.
    pub state: State,
    /// For how long it has been in that state.
    pub state_for: Duration,
    /// The last thing that went wrong, in words.
    pub last_error: Option<String>,
    /// Prefixes that it told and that may be used, stale ones included.
    pub received: usize,
    /// Prefixes that are kept though it has not repeated them.
    pub stale: usize,
    /// For how much longer they are kept.
    pub stale_for: Option<Duration>,
    /// Prefixes that it told and that are not used: loops, what cannot be routed, and what its filters reject.
    pub rejected: usize,
    /// Prefixes told to it.
    pub sent: usize,
    /// It has told all that it had.
    pub end_of_rib: bool,
    /// What was negotiated; only while established.
    pub negotiated: Option<Negotiated>,
}

impl Speaker {
    /// The state of everything.
    pub fn status(&self, now: Instant) -> SpeakerStatus {
        SpeakerStatus {
            asn: self.config.asn,
            router_id: self.config.router_id,
            converged: self.convergence.is_done(),
            restarting: self.convergence.defers_selection(),
            originated: self.originated.as_ref().map(std::collections::BTreeSet::len),
            peers: self.peers.iter().map(|(address, peer)| self.peer_status(now, *address, peer)).collect(),
        }
    }

    fn peer_status(&self, now: Instant, address: IpAddr, peer: &Peer) -> PeerStatus {
        let Count { used, stale, rejected } = self.table.count(address);
        PeerStatus {
            name: peer.config.name.clone(),
            address,
            port: peer.config.port,
            asn: peer.config.asn,
            state: peer.state,
            state_for: now.saturating_duration_since(peer.since),
            last_error: peer.last_error.as_ref().map(ToString::to_string),
            received: used,
            stale,
            stale_for: peer.stale.map(|stale| stale.deadline.saturating_duration_since(now)),
            rejected,
            sent: peer.up.as_ref().map_or(0, |up| up.out.len()),
            end_of_rib: peer.settled,
            negotiated: peer.up.as_ref().map(|up| (*up.negotiated).clone()),
        }
    }
}
