//! What a peer is told about a route (RFC 4271 §5.1 and §9.2).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use manx_model::Asn;

use crate::rib::{DEFAULT_LOCAL_PREF, Path};
use crate::wire::{Attributes, Community};

/// Which routes a peer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportPolicy {
    /// Those that we originate: a node does not offer itself as transit unless it is asked to.
    #[default]
    Own,
    /// Best paths of others, too.
    All,
}

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The peer's address.
    pub address: IpAddr,
    /// It is in another AS.
    pub external: bool,
    /// Our AS.
    pub our_asn: Asn,
    /// The next hop that stands for us.
    pub next_hop: Ipv4Addr,
}

/// A route as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exported {
    /// What is said about it.
    pub attributes: Arc<Attributes>,
    /// Its next hop.
    pub next_hop: IpAddr,
}

/// What is said about a prefix that we originate.
pub fn originated(to: &Recipient) -> Exported {
    let own = Attributes::default();
    let attributes = if to.external {
        Attributes { as_path: own.as_path.prepended(to.our_asn), ..own }
    } else {
        Attributes { local_pref: Some(DEFAULT_LOCAL_PREF), ..own }
    };
    Exported { attributes: Arc::new(attributes), next_hop: to.next_hop.into() }
}

/// What is said about a path that we learned; `None` when this peer is not to hear of it.
pub fn learned(path: &Path, to: &Recipient) -> Option<Exported> {
    let secret = |community| path.attributes.communities.contains(&community);
    let inside = secret(Community::NO_EXPORT) || secret(Community::NO_EXPORT_SUBCONFED);
    let forbidden = path.from.address == to.address
        // RFC 4271 §9.2: inside an AS, who has told it has told everybody.
        || (!path.from.external && !to.external)
        || secret(Community::NO_ADVERTISE)
        || (to.external && inside);
    if forbidden {
        return None;
    }
    let mut attributes = (*path.attributes).clone();
    attributes.unknown.iter_mut().for_each(|unknown| unknown.partial = true);
    if !to.external {
        attributes.local_pref = Some(path.local_pref());
        return Some(Exported { attributes: Arc::new(attributes), next_hop: path.next_hop });
    }
    attributes.extended_communities.retain(|each| each.transitive());
    // RFC 4271 §5.1.4, §5.1.5; RFC 4456 §8: these end at the border of the AS.
    let attributes = Attributes {
        as_path: attributes.as_path.prepended(to.our_asn),
        med: None,
        local_pref: None,
        originator_id: None,
        cluster_list: Vec::new(),
        ..attributes
    };
    Some(Exported { attributes: Arc::new(attributes), next_hop: to.next_hop.into() })
}
