//! The configuration of a speaker, whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use manx_model::Asn;

use crate::policy::ExportPolicy;
use crate::session::{GracefulConfig, SessionConfig};

/// The configuration of a speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// The hold time that we offer: 0 for none, or 3 to 65535 s (others are brought into that range).
    pub hold_time: Duration,
    /// How long peers keep our routes while we restart, at most 4095 s; also how long we wait for theirs after
    /// our start.
    pub restart_time: Duration,
    /// At the start: the kernel still forwards by the routes of our last life. Later changes mean nothing.
    pub forwarding_preserved: bool,
    /// The peers, by address.
    pub peers: BTreeMap<IpAddr, PeerConfig>,
}

/// The configuration of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name for people, as `Mesh_10_0_0_1`.
    pub name: String,
    /// Its TCP port; 179 by default.
    pub port: u16,
    /// Its AS.
    pub asn: Asn,
    /// Wait for it to dial, never dial.
    pub passive: bool,
    /// Our address towards it; the kernel chooses when there is none.
    pub local_address: Option<IpAddr>,
    /// What it is told.
    pub export: ExportPolicy,
}

impl SpeakerConfig {
    /// Hold time 90 s, restart time 120 s, no peers, nothing preserved.
    pub fn new(asn: Asn, router_id: Ipv4Addr) -> Self {
        Self {
            asn,
            router_id,
            hold_time: Duration::from_secs(90),
            restart_time: Duration::from_secs(120),
            forwarding_preserved: false,
            peers: BTreeMap::new(),
        }
    }

    /// The configuration of one session.
    pub(super) fn session(&self, address: IpAddr, graceful: GracefulConfig) -> Option<SessionConfig> {
        let peer = self.peers.get(&address)?;
        let hold_time = match self.hold_time.as_secs() {
            0 => 0,
            seconds => seconds.clamp(3, u64::from(u16::MAX)),
        };
        Some(SessionConfig {
            asn: self.asn,
            router_id: self.router_id,
            peer_asn: peer.asn,
            peer: (address, peer.port),
            local_address: peer.local_address,
            hold_time: Duration::from_secs(hold_time),
            passive: peer.passive,
            connect_retry: Duration::from_secs(5),
            graceful,
        })
    }
}

impl PeerConfig {
    /// Port 179, not passive, told our own prefixes only.
    pub fn new(name: impl Into<String>, asn: Asn) -> Self {
        let (passive, local_address, export) = (false, None, ExportPolicy::default());
        Self { name: name.into(), port: 179, asn, passive, local_address, export }
    }
}
