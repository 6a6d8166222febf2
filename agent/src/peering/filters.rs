//! BGPFilters as the speaker wants them.

use std::collections::BTreeMap;
use std::sync::Arc;

use manx_bgp::policy::{
    Action, Conditions, Filter, Glob, MatchOperator, Operation, PeerType, PrefixMatch, Rule,
};
use manx_bgp::wire::{AnyCommunity, Community, LargeCommunity};
use manx_model::{BgpFilter, FilterAction, FilterOperation, FilterRule, PrefixCondition};

/// The filters of all peers, each translated once and then shared.
pub(super) struct Filters<'a> {
    known: &'a BTreeMap<String, Arc<BgpFilter>>,
    translated: BTreeMap<String, Directions>,
}

/// Both directions of a filter.
#[derive(Clone)]
struct Directions {
    import: Arc<Filter>,
    export: Arc<Filter>,
}

impl<'a> Filters<'a> {
    pub(super) fn new(known: &'a BTreeMap<String, Arc<BgpFilter>>) -> Self {
        Self { known, translated: BTreeMap::new() }
    }

    /// The filters of these names, in order, for import and for export. One that is not there rejects everything: routes
    /// that it was to keep back must not pass because it is missing, and the session need not end for that.
    pub(super) fn of(&mut self, names: &[String]) -> (Vec<Arc<Filter>>, Vec<Arc<Filter>>) {
        let both = names.iter().map(|name| self.one(name));
        both.map(|Directions { import, export }| (import, export)).unzip()
    }

    fn one(&mut self, name: &str) -> Directions {
        if let Some(translated) = self.translated.get(name) {
            return translated.clone();
        }
        let directions = match self.known.get(name) {
            Some(filter) => Directions {
                import: direction(name, &filter.import_v4, &filter.import_v6),
                export: direction(name, &filter.export_v4, &filter.export_v6),
            },
            None => {
                let nothing = reject_all(name);
                Directions { import: Arc::clone(&nothing), export: nothing }
            }
        };
        self.translated.insert(name.to_owned(), directions.clone());
        directions
    }
}

fn direction(name: &str, ipv4: &[FilterRule], ipv6: &[FilterRule]) -> Arc<Filter> {
    let rules = |rules: &[FilterRule]| rules.iter().map(rule).collect();
    Arc::new(Filter { name: name.to_owned(), ipv4: rules(ipv4), ipv6: rules(ipv6) })
}

fn reject_all(name: &str) -> Arc<Filter> {
    let reject = || vec![Rule { conditions: Conditions::default(), action: Action::Reject }];
    Arc::new(Filter { name: name.to_owned(), ipv4: reject(), ipv6: reject() })
}

fn rule(rule: &FilterRule) -> Rule {
    let conditions = Conditions {
        prefix: rule.prefix.map(prefix),
        learned: rule.learned,
        interface: rule.interface.clone().map(Glob),
        peer_type: rule.peer_type.map(|kind| match kind {
            manx_model::PeerType::External => PeerType::External,
            manx_model::PeerType::Internal => PeerType::Internal,
        }),
        community: rule.community.map(community),
        as_path_prefix: rule.as_path_prefix.clone(),
        priority: rule.priority,
    };
    let action = match &rule.action {
        FilterAction::Reject => Action::Reject,
        FilterAction::Accept(operations) => Action::Accept(operations.iter().map(operation).collect()),
    };
    Rule { conditions, action }
}

fn prefix(condition: PrefixCondition) -> PrefixMatch {
    let PrefixCondition { cidr, operator, min_length, max_length } = condition;
    let operator = match operator {
        manx_model::MatchOperator::Equal => MatchOperator::Equal,
        manx_model::MatchOperator::NotEqual => MatchOperator::NotEqual,
        manx_model::MatchOperator::In => MatchOperator::In,
        manx_model::MatchOperator::NotIn => MatchOperator::NotIn,
    };
    PrefixMatch { operator, cidr, min_length, max_length }
}

fn operation(operation: &FilterOperation) -> Operation {
    match operation {
        FilterOperation::AddCommunity(added) => Operation::AddCommunity(community(*added)),
        FilterOperation::PrependAsPath(path) => Operation::PrependAsPath(path.clone()),
        FilterOperation::SetPriority(priority) => Operation::SetPriority(*priority),
    }
}

/// A community as the speaker wants it.
pub(super) fn community(community: manx_model::Community) -> AnyCommunity {
    match community {
        manx_model::Community::Standard(high, low) => {
            AnyCommunity::Standard(Community(u32::from(high) << 16 | u32::from(low)))
        }
        manx_model::Community::Large(global, first, second) => {
            AnyCommunity::Large(LargeCommunity([global, first, second]))
        }
    }
}
