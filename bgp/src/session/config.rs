//! What a session is to be, and the OPEN that follows from it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use manx_model::Asn;

use super::Guard;
use crate::wire::{Capability, Family, GracefulFamily, GracefulRestart, Open};

/// The configuration of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The peer's address and port, as dialled: sessions are reset when it changes.
    pub peer: (IpAddr, u16),
    /// Our address, if it is given.
    pub local_address: Option<IpAddr>,
    /// Hold time to offer: 0, or 3 to 65535 s.
    pub hold_time: Duration,
    /// Wait for the peer to dial, never dial.
    pub passive: bool,
    /// The pause after a dial that failed or a connection that was lost.
    pub connect_retry: Duration,
    /// What protects it. When that changes, connections are dropped without a word, so that routes are kept meanwhile.
    pub guard: Guard,
    /// What to say about graceful restart in the next OPEN.
    pub graceful: GracefulConfig,
}

/// What we say about graceful restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulConfig {
    /// How long the peer keeps our routes while we are away; at most 4095 s.
    pub time: Duration,
    /// R: we have restarted and have not sent End-of-RIB yet.
    pub restarting: bool,
    /// F: our forwarding went on while the session was away.
    pub forwarding: bool,
}

impl SessionConfig {
    /// What was negotiated from one is not what would be negotiated from the other. What is said about graceful
    /// restart can wait for the next OPEN.
    pub(super) fn needs_reset(&self, other: &Self) -> bool {
        let essence = |config: &Self| {
            let Self { asn, router_id, peer_asn, peer, local_address, hold_time, .. } = config;
            (*asn, *router_id, *peer_asn, *peer, *local_address, *hold_time)
        };
        essence(self) != essence(other)
    }

    /// The peer is in another AS.
    pub fn external(&self) -> bool {
        self.asn != self.peer_asn
    }

    pub(super) fn open(&self) -> Open {
        let family = Family::IPV4_UNICAST;
        let graceful = GracefulRestart {
            restarting: self.graceful.restarting,
            notification: false,
            time: self.graceful.time,
            families: vec![GracefulFamily { family, forwarding: self.graceful.forwarding }],
        };
        Open {
            my_as: Open::two_octet(self.asn.get()),
            hold_time: u16::try_from(self.hold_time.as_secs()).unwrap_or(u16::MAX),
            identifier: self.router_id,
            capabilities: vec![
                Capability::Multiprotocol(family),
                Capability::RouteRefresh,
                Capability::GracefulRestart(graceful),
                Capability::FourOctetAs(self.asn.get()),
            ],
        }
    }
}
