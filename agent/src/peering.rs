//! Whom this node peers with, and what it tells them: BGPConfiguration, BGPPeers, BGPFilters and the mesh, as the
//! speaker's configuration. Pure.
//!
//! The order is Calico's, and of several for one address the first stays: BGPPeers for every node, those for this node,
//! then what follows the other way round from BGPPeers whose peer is this node (so that one object makes both ends),
//! then the mesh. Where an object asks for less than everybody, and what it asks for cannot be had, the answer is the
//! one that lets nothing pass which was not meant to: a filter that is not there rejects everything.

mod configured;
mod export;
mod filters;
mod mesh;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use manx_bgp::policy::{ExportPolicy, NextHopMode, NodeExport};
use manx_bgp::session::{Guard, Ttl};
use manx_bgp::speaker::PeerConfig;
use manx_model::{
    Asn, BgpConfigurationSpec, BgpFilter, BgpPeer, Complaint, IpPool, Kind, Node, NodeName, Password, Peers,
    SourceAddress,
};

use crate::passwords::SecretRef;
use filters::Filters;
use view::View;

/// The port of BGP (RFC 4271 section 8.2.1).
const BGP_PORT: u16 = 179;
/// The longest restart time that fits into the capability, in seconds (RFC 4724 section 3).
const MOST_RESTART_SECONDS: u64 = 4095;

/// What the peering of a node follows from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// This node.
    pub node: &'a NodeName,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its AS from the environment.
    pub own_asn: Option<Asn>,
    /// All nodes by name.
    pub nodes: &'a BTreeMap<String, Arc<Node>>,
    /// All BGPConfigurations by name: `default`, `node.NAME`.
    pub configurations: &'a BTreeMap<String, Arc<BgpConfigurationSpec>>,
    /// All BGPPeers by name.
    pub peers: &'a BTreeMap<String, Arc<BgpPeer>>,
    /// All BGPFilters by name.
    pub filters: &'a BTreeMap<String, Arc<BgpFilter>>,
    /// The pools.
    pub pools: &'a [IpPool],
}

/// What the speaker is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peering {
    /// This node's AS.
    pub asn: Asn,
    /// The TCP port that it listens on.
    pub listen_port: u16,
    /// It is a route reflector, and this is its cluster.
    pub cluster_id: Option<Ipv4Addr>,
    /// What all peers are told. Which blocks are ours is not known here: `blocks` is empty.
    pub export: NodeExport,
    /// By address.
    pub peers: BTreeMap<IpAddr, Peer>,
    /// What in the objects is wrong, or cannot be acted on yet.
    pub complaints: Vec<Complaint>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Why there is this peer.
    pub kind: PeerKind,
    /// The BGPPeer that it comes from; `None` in the mesh.
    pub object: Option<String>,
    /// What the speaker is told, all but the password.
    pub config: PeerConfig,
    /// Where the password is, if the session has one.
    pub password: Option<SecretRef>,
    /// Over which router on a link of this node it is reached (`reachableBy`), if not as the kernel's routes say.
    pub gateway: Option<IpAddr>,
}

/// Why there is a peer, as Calico's names begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerKind {
    /// It is a node of the mesh.
    Mesh,
    /// A BGPPeer for every node names it.
    Global,
    /// A BGPPeer for this node names it, or names this node for it.
    Node,
}

impl PeerKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Global => "Global",
            Self::Node => "Node",
        }
    }
}

/// A peer that is not admitted yet.
struct Candidate<'a> {
    kind: PeerKind,
    object: Option<&'a BgpPeer>,
    address: Ipv4Addr,
    /// Where it listens, if anybody has said so.
    port: Option<u16>,
    asn: Asn,
    /// The node of the cluster that it is.
    node: Option<&'a Node>,
    /// It follows from an object whose peer is this node.
    reverse: bool,
}

/// Computes whom a node peers with.
pub fn peering(facts: &Facts<'_>) -> Peering {
    let view = View::new(facts);
    let mut draft = Draft {
        filters: Filters::new(facts.filters),
        peers: BTreeMap::new(),
        complaints: view.complaints(),
        view,
    };
    configured::add(&mut draft);
    mesh::add(&mut draft);
    let (export, complaints) = export::export(&draft.view);
    draft.complaints.extend(complaints);
    Peering {
        asn: draft.view.asn,
        listen_port: draft.view.own_port().unwrap_or(BGP_PORT),
        cluster_id: draft.view.own.cluster_id,
        export,
        peers: draft.peers,
        complaints: draft.complaints,
    }
}

/// A peering on its way.
struct Draft<'a> {
    view: View<'a>,
    filters: Filters<'a>,
    peers: BTreeMap<IpAddr, Peer>,
    complaints: Vec<Complaint>,
}

impl<'a> Draft<'a> {
    /// Takes a candidate, unless it is this node itself, or somebody peers with that address already.
    fn admit(&mut self, candidate: &Candidate<'a>) {
        if candidate.address == self.view.address {
            return;
        }
        let address = IpAddr::from(candidate.address);
        match self.peers.get(&address) {
            Some(first) => {
                let complaint = shadowed(candidate, first);
                self.complaints.extend(complaint);
            }
            None => {
                let peer = self.peer(candidate);
                self.peers.insert(address, peer);
            }
        }
    }

    fn peer(&mut self, candidate: &Candidate<'a>) -> Peer {
        let View { asn: own_asn, address, own, .. } = &self.view;
        let object = candidate.object;
        let local_asn =
            object.and_then(|object| object.local_asn).filter(|local| !candidate.reverse && local != own_asn);
        let external = candidate.asn != local_asn.unwrap_or(*own_asn);
        let cluster_of_peer = candidate.node.and_then(|node| node.cluster_id);
        let source = object.map(|object| object.source).unwrap_or_default();
        let mut config = PeerConfig {
            port: candidate.port.unwrap_or(BGP_PORT),
            local_asn,
            client: own.cluster_id.is_some() && !external && cluster_of_peer != own.cluster_id,
            passive: is_passive(candidate, *address),
            local_address: (source == SourceAddress::UseNodeIP).then_some(IpAddr::V4(*address)),
            // A node is no way to others unless it is a reflector, whose work that is.
            export: if own.cluster_id.is_some() { ExportPolicy::Transit } else { ExportPolicy::Own },
            ..PeerConfig::new(name(candidate), candidate.asn)
        };
        match object {
            Some(object) => self.refine(&mut config, object),
            None => config.restart_time = self.view.default.node_mesh_max_restart_time.map(|time| time.0),
        }
        let password = match object {
            Some(object) => object.password.as_ref(),
            None => self.view.default.node_mesh_password.as_ref(),
        };
        let gateway = match object.map(|object| &object.peers) {
            Some(Peers::Address { reachable_by, .. }) if !candidate.reverse => *reachable_by,
            _ => None,
        };
        let object = object.map(|object| object.name.clone());
        Peer { kind: candidate.kind, object, config, password: password.map(secret), gateway }
    }

    /// What a BGPPeer asks for beyond the session itself.
    fn refine(&mut self, config: &mut PeerConfig, object: &BgpPeer) {
        config.own_as_allowed = u8::try_from(object.allowed_local_asns).unwrap_or(u8::MAX);
        config.keepalive = object.keepalive_time.map(|time| time.0);
        config.restart_time = object.max_restart_time.map(|time| time.0);
        config.next_hop = match object.next_hop {
            manx_model::NextHopMode::Auto => NextHopMode::Auto,
            manx_model::NextHopMode::Own => NextHopMode::Own,
            manx_model::NextHopMode::Keep => NextHopMode::Keep,
        };
        let hops = object.ttl_security.and_then(std::num::NonZeroU8::new);
        config.guard = Guard { ttl: hops.map_or(Ttl::Any, Ttl::Security), ..Guard::default() };
        (config.import_filters, config.export_filters) = self.filters.of(&object.filters);
    }
}

/// Of two explicit wishes about one address the second is told that it has no effect; what only follows from another
/// object, or from the mesh, gives way without a word, and so does a node's peer that is everybody's.
fn shadowed(candidate: &Candidate<'_>, first: &Peer) -> Option<Complaint> {
    let object =
        candidate.object.filter(|object| !candidate.reverse && first.object != Some(object.name.clone()))?;
    let port = candidate.port.unwrap_or(BGP_PORT);
    let other = first.object.as_deref().unwrap_or_default();
    let address = candidate.address;
    let reason = if first.config.port != port {
        format!("{address} has a session already, at port {}, by BGPPeer {other}", first.config.port)
    } else if first.kind == candidate.kind && candidate.node.is_none() {
        format!("{address} is what BGPPeer {other} peers with already")
    } else {
        return None;
    };
    Some(Complaint::new(Kind::BGPPeer, &object.name, format!("has no effect: {reason}")))
}

/// Of two nodes of the cluster one dials, in the mesh and where a BGPPeer is for every node: the one whose address comes
/// later as text (Calico's rule, and so that of every mixed mesh). Where the other is not sure to dial, both do.
fn is_passive(candidate: &Candidate<'_>, own: Ipv4Addr) -> bool {
    let one_dials = match (candidate.kind, candidate.object) {
        (PeerKind::Mesh, _) => true,
        (PeerKind::Global, Some(object)) => {
            candidate.node.is_some() && object.reverse == manx_model::ReversePeering::Auto
        }
        _ => false,
    };
    one_dials && candidate.address.to_string() > own.to_string()
}

/// As Calico names it; the port is part of it where somebody has set one for a peer outside the mesh.
fn name(candidate: &Candidate<'_>) -> String {
    let address = candidate.address.to_string().replace('.', "_");
    let name = format!("{}_{address}", candidate.kind.prefix());
    match candidate.port.filter(|_| candidate.kind != PeerKind::Mesh) {
        Some(port) => format!("{name}_port_{port}"),
        None => name,
    }
}

fn secret(password: &Password) -> SecretRef {
    let reference = &password.secret_key_ref;
    SecretRef { name: reference.name.clone(), key: reference.key.clone() }
}

/// Whether a restart time is longer than BGP can say.
fn too_long(time: Option<Duration>) -> bool {
    time.is_some_and(|time| time.as_secs() > MOST_RESTART_SECONDS)
}
