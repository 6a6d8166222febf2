//! The configuration of a speaker, whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use manx_model::Asn;

use crate::policy::{ExportPolicy, Filter, Interfaces, NextHopMode, NodeExport};
use crate::session::{GracefulConfig, Guard, SessionConfig};

/// What fits into the capability (RFC 4724 §3).
const MOST_RESTART_TIME: Duration = Duration::from_secs(4095);

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
    /// We are a route reflector (RFC 4456), and this is our cluster. Without it the cluster is our identifier.
    pub cluster_id: Option<Ipv4Addr>,
    /// What is told, whoever is told.
    pub export: NodeExport,
    /// Which interface leads where, for filters that ask.
    pub interfaces: Interfaces,
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
    /// Our AS towards it, in everything, where that is not [`SpeakerConfig::asn`]; as BIRD's `local as`.
    pub local_asn: Option<Asn>,
    /// How often our own AS may be in the AS_PATH of its routes; 0 by default.
    pub own_as_allowed: u8,
    /// It is a client of ours (RFC 4456): its routes are told to the others inside our AS, and theirs to it.
    pub client: bool,
    /// Wait for it to dial, never dial.
    pub passive: bool,
    /// How often it hears from us when there is nothing to say; the hold time that we offer it is three times that. By default
    /// what follows from [`SpeakerConfig::hold_time`].
    pub keepalive: Option<Duration>,
    /// How long it keeps our routes while we restart, at most 4095 s; by default [`SpeakerConfig::restart_time`].
    pub restart_time: Option<Duration>,
    /// What tells its packets from forged ones.
    pub guard: Guard,
    /// Our address towards it; the kernel chooses when there is none.
    pub local_address: Option<IpAddr>,
    /// Which of its routes are taken and how they are changed, first of all.
    pub import_filters: Vec<Arc<Filter>>,
    /// What it is told and how that is changed, before [`Self::export`] and [`SpeakerConfig::export`] are asked.
    pub export_filters: Vec<Arc<Filter>>,
    /// What it is told that no filter has decided about.
    pub export: ExportPolicy,
    /// Which next hop it is told.
    pub next_hop: NextHopMode,
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
            cluster_id: None,
            export: NodeExport::default(),
            interfaces: Interfaces::default(),
            peers: BTreeMap::new(),
        }
    }

    /// Our cluster (RFC 4456 §7).
    pub(super) fn cluster(&self) -> Ipv4Addr {
        self.cluster_id.unwrap_or(self.router_id)
    }

    /// Our AS, as this peer knows it.
    pub(super) fn asn_towards(&self, peer: &PeerConfig) -> Asn {
        peer.local_asn.unwrap_or(self.asn)
    }

    /// The configuration of one session.
    pub(super) fn session(&self, address: IpAddr, graceful: GracefulConfig) -> Option<SessionConfig> {
        let peer = self.peers.get(&address)?;
        let hold_time = peer.keepalive.map_or(self.hold_time, |time| time.saturating_mul(3));
        let hold_time = match hold_time.as_secs() {
            _ if hold_time.is_zero() => 0,
            seconds => seconds.clamp(3, u64::from(u16::MAX)),
        };
        let restart_time = peer.restart_time.unwrap_or(self.restart_time);
        Some(SessionConfig {
            asn: self.asn_towards(peer),
            router_id: self.router_id,
            peer_asn: peer.asn,
            peer: (address, peer.port),
            local_address: peer.local_address,
            hold_time: Duration::from_secs(hold_time),
            passive: peer.passive,
            connect_retry: Duration::from_secs(5),
            guard: peer.guard.clone(),
            graceful: GracefulConfig { time: restart_time.min(MOST_RESTART_TIME), ..graceful },
        })
    }
}

impl PeerConfig {
    /// Port 179, not passive, no filters, told our own prefixes only; nothing out of the ordinary.
    pub fn new(name: impl Into<String>, asn: Asn) -> Self {
        Self {
            name: name.into(),
            port: 179,
            asn,
            local_asn: None,
            own_as_allowed: 0,
            client: false,
            passive: false,
            keepalive: None,
            restart_time: None,
            guard: Guard::default(),
            local_address: None,
            import_filters: Vec::new(),
            export_filters: Vec::new(),
            export: ExportPolicy::default(),
            next_hop: NextHopMode::default(),
        }
    }

    /// It may be told what others told us.
    pub(super) fn hears_learned(&self) -> bool {
        self.export != ExportPolicy::Own || !self.export_filters.is_empty()
    }
}
