//! Filters of routes: ordered rules, as BGPFilters say them.
//!
//! The conditions of a rule must all hold; the first rule that holds decides, in this filter or the next; what no rule is
//! about is taken on import, and left to the node's own policy on export. What the rules mean is `manx-bgp`'s to know.

mod rule;
#[cfg(test)]
mod tests;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::read::strict;
use crate::{Asn, Community, Invalid, Object, absent};

/// `spec` of a BGPFilter as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpFilterSpec {
    /// About IPv4 prefixes that are told.
    #[serde(deserialize_with = "absent::null")]
    pub export_v4: Vec<rule::RuleSpec>,
    /// About IPv4 prefixes that are heard.
    #[serde(deserialize_with = "absent::null")]
    pub import_v4: Vec<rule::RuleSpec>,
    /// About IPv6 prefixes that are told.
    #[serde(deserialize_with = "absent::null")]
    pub export_v6: Vec<rule::RuleSpec>,
    /// About IPv6 prefixes that are heard.
    #[serde(deserialize_with = "absent::null")]
    pub import_v6: Vec<rule::RuleSpec>,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A BGPFilter that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpFilter {
    /// Its name.
    pub name: String,
    /// About IPv4 prefixes that are told, in order.
    pub export_v4: Vec<FilterRule>,
    /// About IPv4 prefixes that are heard, in order.
    pub import_v4: Vec<FilterRule>,
    /// About IPv6 prefixes that are told, in order.
    pub export_v6: Vec<FilterRule>,
    /// About IPv6 prefixes that are heard, in order.
    pub import_v6: Vec<FilterRule>,
}

/// What is done with the routes for which all conditions hold. Without any condition, every route is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRule {
    /// About the prefix.
    pub prefix: Option<PrefixCondition>,
    /// It was learned from a peer (`source: RemotePeers`).
    pub learned: bool,
    /// A glob for the interface that leads to its next hop.
    pub interface: Option<String>,
    /// The kind of session that it comes or goes by.
    pub peer_type: Option<PeerType>,
    /// It carries this community.
    pub community: Option<Community>,
    /// Its AS_PATH begins with these; empty: any does.
    pub as_path_prefix: Vec<Asn>,
    /// It has this priority: LOCAL_PREF 2147483647 less this.
    pub priority: Option<u32>,
    /// What is done.
    pub action: FilterAction,
}

/// A condition about a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixCondition {
    /// With what it is compared; no host bits.
    pub cidr: IpNet,
    /// How.
    pub operator: MatchOperator,
    /// The least length, where it is given.
    pub min_length: Option<u8>,
    /// The greatest length, where it is given.
    pub max_length: Option<u8>,
}

/// How a prefix is compared with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum MatchOperator {
    /// It is the same.
    Equal,
    /// It is not.
    NotEqual,
    /// It is the same or within.
    In,
    /// It is not.
    NotIn,
}

/// The kind of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PeerType {
    /// With another AS.
    #[serde(rename = "eBGP")]
    External,
    /// Inside our AS.
    #[serde(rename = "iBGP")]
    Internal,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterAction {
    /// The route passes, changed by these, one after the other.
    Accept(Vec<FilterOperation>),
    /// It does not.
    Reject,
}

/// What is changed about a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterOperation {
    /// Adds a community.
    AddCommunity(Community),
    /// Puts these before the AS_PATH; not empty.
    PrependAsPath(Vec<Asn>),
    /// Sets the priority: LOCAL_PREF 2147483647 less this.
    SetPriority(u32),
}

impl BgpFilter {
    /// Reads and checks a BGPFilter, all of it or nothing: with a rule left out, another one would decide.
    ///
    /// # Errors
    /// [`Invalid`] with the rule, the field and what is allowed.
    pub fn from_object(object: &Object) -> Result<Self, Invalid> {
        let spec: BgpFilterSpec = strict(object)?;
        let rules = |field, specs: Vec<rule::RuleSpec>, ipv4| {
            let rules = specs.into_iter().enumerate().map(|(index, spec)| {
                rule::check(spec, ipv4)
                    .map_err(|(of, reason)| object.invalid(format!("spec.{field}[{index}].{of}"), reason))
            });
            rules.collect::<Result<Vec<_>, _>>()
        };
        if let Some(field) = spec.rest.keys().next() {
            let reason = "is not known here, and a filter is acted on as a whole or not at all";
            return Err(object.invalid(format!("spec.{field}"), reason));
        }
        Ok(Self {
            name: object.name().to_owned(),
            export_v4: rules("exportV4", spec.export_v4, true)?,
            import_v4: rules("importV4", spec.import_v4, true)?,
            export_v6: rules("exportV6", spec.export_v6, false)?,
            import_v6: rules("importV6", spec.import_v6, false)?,
        })
    }
}
