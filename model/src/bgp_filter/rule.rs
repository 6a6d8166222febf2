//! One rule of a filter.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{FilterAction, FilterOperation, FilterRule, MatchOperator, PeerType, PrefixCondition};
use crate::{Asn, Community, absent};

/// Calico takes no more operations in one rule.
const MAX_OPERATIONS: usize = 10;
/// The greatest priority that LOCAL_PREF can stand for.
const MAX_PRIORITY: u32 = i32::MAX as u32;
/// The longest name of an interface, in bytes (Linux' IFNAMSIZ less the end).
const MAX_INTERFACE: usize = 15;

/// A rule as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleSpec {
    #[serde(deserialize_with = "absent::empty")]
    cidr: Option<IpNet>,
    #[serde(deserialize_with = "absent::empty")]
    match_operator: Option<MatchOperator>,
    prefix_length: Option<PrefixLength>,
    #[serde(deserialize_with = "absent::empty")]
    source: Option<Source>,
    #[serde(deserialize_with = "absent::empty")]
    interface: Option<String>,
    #[serde(deserialize_with = "absent::empty")]
    peer_type: Option<PeerType>,
    communities: Option<Communities>,
    #[serde(deserialize_with = "absent::null")]
    as_path_prefix: Vec<Asn>,
    priority: Option<u32>,
    #[serde(deserialize_with = "absent::empty")]
    action: Option<Action>,
    #[serde(deserialize_with = "absent::null")]
    operations: Vec<OperationSpec>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct PrefixLength {
    min: Option<u8>,
    max: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Source {
    RemotePeers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Action {
    Accept,
    Reject,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Communities {
    values: Vec<Community>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OperationSpec {
    add_community: Option<AddCommunity>,
    #[serde(rename = "prependASPath")]
    prepend_as_path: Option<PrependAsPath>,
    set_priority: Option<SetPriority>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct AddCommunity {
    value: Community,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct PrependAsPath {
    prefix: Vec<Asn>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct SetPriority {
    value: u32,
}

/// The field that is wrong, and why.
type Wrong = (String, String);

/// The rule that `spec` describes, in a list for IPv4 or for IPv6.
pub(super) fn check(spec: RuleSpec, ipv4: bool) -> Result<FilterRule, Wrong> {
    let wrong = |field: &str, reason: &str| Err((field.to_owned(), reason.to_owned()));
    if let Some(field) = spec.rest.keys().next() {
        return wrong(field, "is not known here, and without it the rule would mean other routes");
    }
    let Some(action) = spec.action else { return wrong("action", "is missing; it is Accept or Reject") };
    let too_long = |interface: &String| interface.len() > MAX_INTERFACE;
    if spec.interface.as_ref().is_some_and(too_long) {
        return wrong("interface", "is longer than the name of an interface can be (15)");
    }
    if spec.priority.is_some_and(|priority| priority > MAX_PRIORITY) {
        return wrong("priority", "is more than 2147483647");
    }
    let community = match spec.communities.as_ref().map(|communities| &communities.values[..]) {
        None => None,
        Some([one]) => Some(*one),
        Some(_) => return wrong("communities.values", "must be exactly one"),
    };
    Ok(FilterRule {
        prefix: prefix(&spec, ipv4)?,
        learned: spec.source.is_some(),
        interface: spec.interface,
        peer_type: spec.peer_type,
        community,
        as_path_prefix: spec.as_path_prefix,
        priority: spec.priority,
        action: self::action(action, spec.operations)?,
    })
}

/// A length without a CIDR is one of any prefix.
fn prefix(spec: &RuleSpec, ipv4: bool) -> Result<Option<PrefixCondition>, Wrong> {
    let wrong = |field: &str, reason: String| Err((field.to_owned(), reason));
    let any: IpNet = if ipv4 { Ipv4Net::default().into() } else { Ipv6Net::default().into() };
    let (cidr, operator) = match (spec.cidr, spec.match_operator) {
        (Some(cidr), Some(operator)) => (cidr.trunc(), operator),
        (None, None) if spec.prefix_length.is_some() => (any, MatchOperator::In),
        (None, None) => return Ok(None),
        (Some(_), None) => return wrong("matchOperator", "is missing; it is required with cidr".into()),
        (None, Some(_)) => return wrong("cidr", "is missing; it is required with matchOperator".into()),
    };
    if cidr.addr().is_ipv4() != ipv4 {
        let family = if ipv4 { "IPv4" } else { "IPv6" };
        return wrong("cidr", format!("{cidr} is none of {family}, which this list is for"));
    }
    let PrefixLength { min, max } = spec.prefix_length.unwrap_or(PrefixLength { min: None, max: None });
    let longest = cidr.max_prefix_len();
    for (field, length) in [("prefixLength.min", min), ("prefixLength.max", max)] {
        if let Some(length) = length.filter(|length| *length > longest) {
            return wrong(field, format!("{length} is more than {longest}"));
        }
    }
    if let (Some(least), Some(greatest)) = (min, max)
        && least > greatest
    {
        return wrong("prefixLength.min", format!("{least} is more than max, {greatest}"));
    }
    Ok(Some(PrefixCondition { cidr, operator, min_length: min, max_length: max }))
}

fn action(action: Action, operations: Vec<OperationSpec>) -> Result<FilterAction, Wrong> {
    let wrong = |field: String, reason: &str| Err((field, reason.to_owned()));
    if operations.len() > MAX_OPERATIONS {
        return wrong("operations".into(), "are more than 10");
    }
    match action {
        Action::Reject if !operations.is_empty() => {
            wrong("operations".into(), "go with Accept only: a route that is rejected cannot be changed")
        }
        Action::Reject => Ok(FilterAction::Reject),
        Action::Accept => {
            let operations = operations.into_iter().enumerate().map(|(index, spec)| {
                operation(spec).map_err(|reason| (format!("operations[{index}]"), reason.to_owned()))
            });
            operations.collect::<Result<_, _>>().map(FilterAction::Accept)
        }
    }
}

fn operation(spec: OperationSpec) -> Result<FilterOperation, &'static str> {
    match (spec.add_community, spec.prepend_as_path, spec.set_priority) {
        (Some(AddCommunity { value }), None, None) => Ok(FilterOperation::AddCommunity(value)),
        (None, Some(PrependAsPath { prefix }), None) if prefix.is_empty() => {
            Err("prependASPath.prefix is empty")
        }
        (None, Some(PrependAsPath { prefix }), None) => Ok(FilterOperation::PrependAsPath(prefix)),
        (None, None, Some(SetPriority { value })) if value > MAX_PRIORITY => {
            Err("setPriority.value is more than 2147483647")
        }
        (None, None, Some(SetPriority { value })) => Ok(FilterOperation::SetPriority(value)),
        _ => Err("must be exactly one of addCommunity, prependASPath, setPriority"),
    }
}
