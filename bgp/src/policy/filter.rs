//! Filters: ordered rules that say whether a route is taken or told, and how it is changed on the way.
//!
//! The rules of a filter are looked at in order, then those of the next filter; the first rule whose conditions all hold
//! decides. When none does, on import the route is taken, and on export the policy of the speaker itself decides
//! ([`super::ExportPolicy`], [`super::NodeExport`]). To decide is apart from to change ([`super::Operation`]): a decision is
//! made for each prefix, while what comes of it is the same for all prefixes of a message.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use manx_model::Asn;

use super::{Glob, Interfaces, Operation, priority};
use crate::wire::{AnyCommunity, Attributes};

/// One direction of what Calico calls a BGPFilter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Its name, for status.
    pub name: String,
    /// The rules for IPv4 prefixes, in order.
    pub ipv4: Vec<Rule>,
    /// The rules for IPv6 prefixes, in order.
    pub ipv6: Vec<Rule>,
}

/// What is done with the routes for which all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub conditions: Conditions,
    /// What is done.
    pub action: Action,
}

/// All that are given must hold; without any, every route is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// About the prefix.
    pub prefix: Option<PrefixMatch>,
    /// It was learned from a peer, as opposed to originated here (`source: RemotePeers`).
    pub learned: bool,
    /// The interface that leads to its next hop. What we originate has none, and what [`Interfaces`] does not know neither:
    /// then the condition does not hold.
    pub interface: Option<Glob>,
    /// The kind of session that the route comes or goes by.
    pub peer_type: Option<PeerType>,
    /// It carries this community.
    pub community: Option<AnyCommunity>,
    /// Its AS_PATH begins with these.
    pub as_path_prefix: Vec<Asn>,
    /// Its LOCAL_PREF stands for this priority, see [`priority`].
    pub priority: Option<u32>,
}

/// A condition about a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixMatch {
    /// How it is compared.
    pub operator: MatchOperator,
    /// With what.
    pub cidr: IpNet,
    /// The least length in bits; a shorter one than that of `cidr` means nothing.
    pub min_length: Option<u8>,
    /// The greatest length in bits.
    pub max_length: Option<u8>,
}

/// How a prefix is compared with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOperator {
    /// It is the same, and of a length that is allowed.
    Equal,
    /// Not [`Self::Equal`].
    NotEqual,
    /// It is the same or within, and of a length that is allowed.
    In,
    /// Not [`Self::In`].
    NotIn,
}

/// The kind of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerType {
    /// With another AS.
    External,
    /// Inside our AS.
    Internal,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The route passes, changed by these operations, one after the other.
    Accept(Vec<Operation>),
    /// It does not.
    Reject,
}

/// A route, as filters see it.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// Its prefix.
    pub prefix: &'a IpNet,
    /// What is said about it.
    pub attributes: &'a Attributes,
    /// Its next hop, if it was learned from a peer.
    pub learned: Option<IpAddr>,
    /// The kind of session that it comes or goes by.
    pub peer_type: PeerType,
    /// What leads where.
    pub interfaces: &'a Interfaces,
}

/// What filters say about a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It passes with these changes.
    Accept(&'a [Operation]),
    /// It does not pass.
    Reject,
    /// No rule was about it.
    Undecided,
}

/// The first rule that is about the route decides.
pub fn judge<'a>(filters: &'a [Arc<Filter>], route: Route<'_>) -> Verdict<'a> {
    let rules = filters.iter().flat_map(|filter| match route.prefix {
        IpNet::V4(_) => &filter.ipv4,
        IpNet::V6(_) => &filter.ipv6,
    });
    match rules.into_iter().find(|rule| rule.conditions.hold(route)).map(|rule| &rule.action) {
        Some(Action::Accept(operations)) => Verdict::Accept(operations),
        Some(Action::Reject) => Verdict::Reject,
        None => Verdict::Undecided,
    }
}

impl Conditions {
    /// Whether all hold.
    pub fn hold(&self, route: Route<'_>) -> bool {
        let Self { prefix, learned, interface, peer_type, community, as_path_prefix, priority: wanted } =
            self;
        let attributes = route.attributes;
        prefix.is_none_or(|prefix| prefix.matches(route.prefix))
            && (!learned || route.learned.is_some())
            && peer_type.is_none_or(|kind| kind == route.peer_type)
            && community.is_none_or(|community| attributes.has_community(community))
            && (as_path_prefix.is_empty() || attributes.as_path.starts_with(as_path_prefix))
            && wanted.is_none_or(|wanted| priority(attributes) == wanted)
            && interface.as_ref().is_none_or(|glob| {
                let name = route.learned.and_then(|next_hop| route.interfaces.towards(next_hop));
                name.is_some_and(|name| glob.matches(name))
            })
    }
}

impl PrefixMatch {
    /// Every prefix that is the same as `cidr` or within it, or the like, whatever its length.
    pub fn new(operator: MatchOperator, cidr: IpNet) -> Self {
        Self { operator, cidr, min_length: None, max_length: None }
    }

    /// Whether the condition holds for a prefix.
    pub fn matches(&self, prefix: &IpNet) -> bool {
        let length = prefix.prefix_len();
        let allowed = self.min_length.is_none_or(|min| length >= min)
            && self.max_length.is_none_or(|max| length <= max);
        let (equal, within) = (*prefix == self.cidr.trunc(), self.cidr.contains(prefix));
        match self.operator {
            MatchOperator::Equal => equal && allowed,
            MatchOperator::NotEqual => !(equal && allowed),
            MatchOperator::In => within && allowed,
            MatchOperator::NotIn => !(within && allowed),
        }
    }
}

impl PeerType {
    /// The kind of a session with a peer that is in another AS, or not.
    pub fn of(external: bool) -> Self {
        if external { Self::External } else { Self::Internal }
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
