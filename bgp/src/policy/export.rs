//! What a peer is told about a route (RFC 4271 §5.1 and §9.2, RFC 4456).
//!
//! In this order, as BIRD with Calico's configuration does it:
//!
//! 1. the protocol: not back to who told it, not from inside to inside unless reflected, not what a well-known community
//!    keeps here;
//! 2. the filters of the peer; when one accepts, nobody else is asked;
//! 3. the policy of the peer and the node, which also adds communities;
//! 4. what changes with the border of the AS, or with reflection.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use manx_model::Asn;

use super::{ExportPolicy, Filter, Interfaces, NodeExport, Operation, PeerType, Route, Verdict, judge};
use crate::rib::Path;
use crate::wire::{AnyCommunity, Attributes, Community};

/// MULTI_EXIT_DISC of what we have from inside our AS and pass on to another: the node itself says none there, which counts as
/// 0, and so is preferred. Else a router that peers with all nodes would send through a reflector, as the AS_PATHs are equally
/// long, and round in a circle where the reflector reaches the node by that very router.
const DETOUR: u32 = 1;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The peer's address.
    pub address: IpAddr,
    /// It is in another AS.
    pub external: bool,
    /// It is a client of ours: we reflect to it and from it (RFC 4456).
    pub client: bool,
    /// Our AS, as the peer knows it.
    pub our_asn: Asn,
    /// Our cluster.
    pub cluster_id: Ipv4Addr,
    /// The next hop that stands for us.
    pub us: Ipv4Addr,
    /// Which next hop it is told.
    pub next_hop: NextHopMode,
}

/// The next hop that a peer is told for what we learned; what we originate is always reached by us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHopMode {
    /// Inside our AS the one that we were told, outside ourselves.
    #[default]
    Auto,
    /// Ourselves.
    Own,
    /// The one that we were told.
    Keep,
}

/// By what it is decided what a peer is told.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The peer's filters.
    pub filters: &'a [Arc<Filter>],
    /// The peer's policy.
    pub policy: ExportPolicy,
    /// The node's.
    pub node: &'a NodeExport,
    /// What leads where.
    pub interfaces: &'a Interfaces,
}

/// A route that may be told.
#[derive(Clone, Copy, Debug)]
pub enum Candidate<'a> {
    /// We originate it; what is said about it, see [`originated`].
    Own(&'a Arc<Attributes>),
    /// A peer told it; whether that peer is a client of ours.
    Learned(&'a Path, bool),
}

/// What is added to a route that is told. Two with equal additions and the same origin are told alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Additions<'a> {
    /// By a filter.
    operations: &'a [Operation],
    /// By the node.
    communities: Vec<AnyCommunity>,
}

/// A route as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exported {
    /// What is said about it.
    pub attributes: Arc<Attributes>,
    /// Its next hop.
    pub next_hop: IpAddr,
}

/// What is said about the prefixes that we originate, before anything is added.
pub fn originated(node: &NodeExport) -> Arc<Attributes> {
    Arc::new(Attributes { local_pref: Some(node.local_pref), ..Attributes::default() })
}

impl Candidate<'_> {
    /// What is said about it here.
    pub fn attributes(&self) -> &Arc<Attributes> {
        match self {
            Self::Own(attributes) => attributes,
            Self::Learned(path, _) => &path.attributes,
        }
    }
}

/// Whether a peer is told a route, and with which additions.
pub fn decide<'a>(
    route: Candidate<'_>,
    prefix: &IpNet,
    to: &Recipient,
    rules: Rules<'a>,
) -> Option<Additions<'a>> {
    let learned = match route {
        Candidate::Own(_) => None,
        Candidate::Learned(path, client) if may_pass(path, client, to) => Some(path.next_hop),
        Candidate::Learned(..) => return None,
    };
    let seen = Route {
        prefix,
        attributes: route.attributes(),
        learned,
        peer_type: PeerType::of(to.external),
        interfaces: rules.interfaces,
    };
    match judge(rules.filters, seen) {
        Verdict::Accept(operations) => Some(Additions { operations, communities: Vec::new() }),
        Verdict::Reject => None,
        Verdict::Undecided => {
            let permitted = rules.node.permits(rules.policy, prefix, learned.is_some());
            permitted.then(|| Additions { operations: &[], communities: rules.node.communities(prefix) })
        }
    }
}

/// Whether the protocol lets the peer hear of a path.
fn may_pass(path: &Path, from_client: bool, to: &Recipient) -> bool {
    let says = |community| path.attributes.communities.contains(&community);
    let stays_inside = says(Community::NO_EXPORT) || says(Community::NO_EXPORT_SUBCONFED);
    // RFC 4271 §9.2: inside an AS, who has told it has told everybody. RFC 4456 §6: but not a client, and not to a client.
    let reflected = from_client || to.client;
    path.from.address != to.address
        && !says(Community::NO_ADVERTISE)
        && !(to.external && stays_inside)
        && (path.from.external || to.external || reflected)
}

/// The route as the peer is told it.
pub fn tell(route: Candidate<'_>, to: &Recipient, additions: &Additions<'_>) -> Exported {
    let mut attributes = Attributes::clone(route.attributes());
    additions.operations.iter().for_each(|operation| operation.apply(&mut attributes));
    additions.communities.iter().for_each(|community| attributes.add_community(*community));
    let next_hop = match route {
        Candidate::Own(_) => to.us.into(),
        Candidate::Learned(path, _) => {
            attributes.unknown.iter_mut().for_each(|unknown| unknown.partial = true);
            if !path.from.external && !to.external {
                reflect(path, to, &mut attributes);
            }
            attributes.local_pref.get_or_insert(path.local_pref());
            match to.next_hop {
                NextHopMode::Own => to.us.into(),
                NextHopMode::Auto if to.external => to.us.into(),
                NextHopMode::Auto | NextHopMode::Keep => path.next_hop,
            }
        }
    };
    if to.external {
        leave(to, &mut attributes);
        let from_inside = matches!(route, Candidate::Learned(path, _) if !path.from.external);
        attributes.med = from_inside.then_some(DETOUR);
    }
    Exported { attributes: Arc::new(attributes), next_hop }
}

/// RFC 4456 §8.
fn reflect(path: &Path, to: &Recipient, attributes: &mut Attributes) {
    attributes.originator_id.get_or_insert(path.from.router_id);
    attributes.cluster_list.insert(0, to.cluster_id);
}

/// RFC 4271 §5.1.2, §5.1.5; RFC 4456 §8; RFC 4360 §6: what begins and ends at the border of the AS.
fn leave(to: &Recipient, attributes: &mut Attributes) {
    attributes.as_path = attributes.as_path.prepended(to.our_asn);
    attributes.extended_communities.retain(|each| each.transitive());
    (attributes.local_pref, attributes.originator_id) = (None, None);
    attributes.cluster_list.clear();
}
