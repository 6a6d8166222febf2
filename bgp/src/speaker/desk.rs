//! Where what one peer is told is made up: once for all routes that are told alike.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::policy::{Additions, Candidate, Exported, Recipient, Rules, decide, originated, tell};
use crate::wire::Attributes;

pub(super) struct Desk<'a> {
    to: Recipient,
    rules: Rules<'a>,
    own: Arc<Attributes>,
    made: HashMap<Alike<'a>, Exported>,
    /// What has been made, so that what is equal is at one place and can be told apart by its address.
    distinct: HashSet<Exported>,
}

/// What routes that are told alike have in common: attributes; for learned ones the peer and the next hop; what is added.
type Alike<'a> = (*const Attributes, Option<(IpAddr, IpAddr)>, Additions<'a>);

impl<'a> Desk<'a> {
    pub(super) fn new(to: Recipient, rules: Rules<'a>) -> Self {
        let own = originated(rules.node);
        Self { to, rules, own, made: HashMap::new(), distinct: HashSet::new() }
    }

    /// What the peer is told about a prefix of ours.
    pub(super) fn own(&mut self, prefix: &IpNet) -> Option<Exported> {
        let own = self.own.clone();
        self.export(prefix, Candidate::Own(&own))
    }

    /// What the peer is told about a route.
    pub(super) fn export(&mut self, prefix: &IpNet, route: Candidate<'_>) -> Option<Exported> {
        let additions = decide(route, prefix, &self.to, self.rules)?;
        let from = match route {
            Candidate::Own(_) => None,
            Candidate::Learned(path, _) => Some((path.from.address, path.next_hop)),
        };
        let key = (Arc::as_ptr(route.attributes()), from, additions);
        let Self { to, made, distinct, .. } = self;
        let exported = made.entry(key).or_insert_with_key(|(_, _, additions)| {
            let exported = tell(route, to, additions);
            let same = distinct.get(&exported).cloned();
            same.unwrap_or_else(|| {
                distinct.insert(exported.clone());
                exported
            })
        });
        Some(exported.clone())
    }
}
