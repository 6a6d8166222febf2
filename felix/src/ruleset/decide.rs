//! From facts to the table, and whether it is to be written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use manx_model::{IpPool, PortRange};

use super::{Action, AddressSet, Chain, FoundRuleset, Hook, Match, Membership, Rule, Ruleset};

/// The addresses of all pools: what goes there is not translated.
const POOLS: &str = "pools";
/// The addresses of pools with `natOutgoing`.
const NAT_POOLS: &str = "nat-pools";
/// Who may send us protocol 4.
const NODES: &str = "nodes";

/// IP in IP (RFC 2003).
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// NF_IP_PRI_FILTER.
const FILTER: i32 = 0;
/// Behind NF_IP_PRI_NAT_SRC (100), where kube-proxy translates: of all chains that would, the first does.
const BEHIND_SOURCE_NAT: i32 = 110;

/// The facts from which the table follows.
#[derive(Clone, Copy, Debug)]
pub struct RulesetFacts<'a> {
    /// Whether `pools`, `nodes` and `parameters` are complete. Until then nobody is taken out of a set.
    pub complete: bool,
    /// The pools, disabled ones, too.
    pub pools: &'a [IpPool],
    /// The addresses of the cluster's nodes, this one's included.
    pub nodes: &'a BTreeSet<Ipv4Addr>,
    /// The beginning of the names of pods' interfaces.
    pub interface_prefix: &'a str,
    /// What FelixConfiguration and the environment say.
    pub parameters: &'a RulesetParameters,
}

/// Felix' parameters, as far as the table depends on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesetParameters {
    /// The source that packets get (`natOutgoingAddress`); `None`: that of the interface by which they leave.
    pub nat_address: Option<Ipv4Addr>,
    /// The ports that TCP and UDP get (`natPortRange`); `None`: any.
    pub nat_ports: Option<PortRange>,
    /// What goes to a node is not translated either (`natOutgoingExclusions: IPPoolsAndHostIPs`).
    pub exclude_nodes: bool,
    /// Who may send us protocol 4 besides nodes (`externalNodesList`).
    pub external_nodes: Vec<Ipv4Net>,
    /// Pods may send protocol 4 through this node (`allowIPIPPacketsFromWorkloads`); never to the node itself, of which
    /// a pod is no peer.
    pub ipip_from_pods: bool,
}

/// The table that is to be written in place of what was found, or `None` where that is right, or where too little is known
/// to do better: a set without the nodes that are still to come would drop what they send.
pub fn ruleset_to_write(facts: &RulesetFacts<'_>, found: Option<&FoundRuleset>) -> Option<Ruleset> {
    let wanted = match facts.complete {
        true => wanted(facts),
        false => grown(facts, found.filter(|found| !found.altered)?),
    };
    let is_right = found.is_some_and(|found| !found.altered && found.ruleset == wanted);
    (!is_right).then_some(wanted)
}

fn wanted(facts: &RulesetFacts<'_>) -> Ruleset {
    Ruleset { sets: sets(facts), chains: chains(facts) }
}

/// What was found, with everybody added who is known by now.
fn grown(facts: &RulesetFacts<'_>, found: &FoundRuleset) -> Ruleset {
    let mut grown = found.ruleset.clone();
    for (name, addresses) in sets(facts) {
        if let Some(present) = grown.sets.get_mut(&name) {
            *present = present.union(&addresses);
        }
    }
    grown
}

fn sets(facts: &RulesetFacts<'_>) -> BTreeMap<String, AddressSet> {
    let cidr = |pool: &IpPool| match pool.cidr {
        IpNet::V4(cidr) => Some(cidr),
        IpNet::V6(_) => None,
    };
    let translated = facts.pools.iter().filter(|pool| pool.nat_outgoing);
    let nodes = facts.nodes.iter().copied().map(Ipv4Net::from);
    let nodes = nodes.chain(facts.parameters.external_nodes.iter().copied());
    [
        (POOLS, facts.pools.iter().filter_map(cidr).collect()),
        (NAT_POOLS, translated.filter_map(cidr).collect()),
        (NODES, nodes.collect()),
    ]
    .map(|(name, addresses)| (name.to_owned(), addresses))
    .into()
}

fn chains(facts: &RulesetFacts<'_>) -> BTreeMap<String, Chain> {
    let from_pod = || vec![Match::FromDevice(facts.interface_prefix.to_owned()), Match::Protocol(IPIP)];
    let from_stranger = vec![Match::Protocol(IPIP), Match::Source(outside(NODES))];
    let drop = |matches| Rule { matches, action: Action::Drop };
    let input = vec![drop(from_pod()), drop(from_stranger)];
    let mut chains = BTreeMap::from([
        ("input".to_owned(), Chain { hook: Hook::Input, priority: FILTER, rules: input }),
        (
            "postrouting".to_owned(),
            Chain {
                hook: Hook::Translate,
                priority: BEHIND_SOURCE_NAT,
                rules: translations(facts.parameters),
            },
        ),
    ]);
    if !facts.parameters.ipip_from_pods {
        let forward = Chain { hook: Hook::Forward, priority: FILTER, rules: vec![drop(from_pod())] };
        chains.insert("forward".to_owned(), forward);
    }
    chains
}

/// A range of ports is for TCP and UDP, as it is in Calico; other protocols are translated without.
fn translations(parameters: &RulesetParameters) -> Vec<Rule> {
    let mut outgoing = vec![Match::Source(within(NAT_POOLS)), Match::Destination(outside(POOLS))];
    if parameters.exclude_nodes {
        outgoing.push(Match::Destination(outside(NODES)));
    }
    let action = |ports| match parameters.nat_address {
        Some(address) => Action::Translate(address, ports),
        None => Action::Masquerade(ports),
    };
    let with_ports = parameters.nat_ports.into_iter().flat_map(|ports| {
        [TCP, UDP].map(|protocol| Rule {
            matches: [&[Match::Protocol(protocol)], &outgoing[..]].concat(),
            action: action(Some(ports)),
        })
    });
    let mut rules: Vec<Rule> = with_ports.collect();
    rules.push(Rule { matches: outgoing, action: action(None) });
    rules
}

fn within(set: &str) -> Membership {
    Membership { set: set.to_owned(), within: true }
}

fn outside(set: &str) -> Membership {
    Membership { set: set.to_owned(), within: false }
}
