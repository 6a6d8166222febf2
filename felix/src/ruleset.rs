//! What a node's nftables should have of ours: one table, `ip manx`, as a value.
//!
//! Its shape is always the same; what changes is who is in the sets:
//!
//! ```text
//! postrouting  a pod of a pool with natOutgoing speaks to the world outside: it gets the node's address
//! input        protocol 4 is taken from nodes only, and never from a pod
//! forward      protocol 4 of pods goes nowhere, unless that is allowed
//! ```
//!
//! The chain that translates is there although no pool asks for it: with the last such chain of a kernel the translation
//! of connections that are under way ends. Whether a connection is translated is decided with its first packet,
//! so that a change of pools concerns new ones only.
//!
//! Nothing in it is about a single pod: pods are the interfaces whose name begins with the prefix.

mod addresses;
mod decide;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use manx_model::PortRange;

pub use addresses::AddressSet;
pub use decide::{RulesetFacts, RulesetParameters, ruleset_to_write};

/// The name of our table, family `ip`. No other table is ever touched, and nobody else's rules are in this one.
pub const TABLE: &str = "manx";

/// Everything that the table holds. As text, it is what `nft -f` would take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets of IPv4 addresses, by name.
    pub sets: BTreeMap<String, AddressSet>,
    /// Chains, by name. None is empty.
    pub chains: BTreeMap<String, Chain>,
}

/// The table as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRuleset {
    /// What could be read of it.
    pub ruleset: Ruleset,
    /// Somebody has put something in it, or changed something, that we never write.
    pub altered: bool,
}

/// A chain at a hook; what no rule decides is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where packets come by.
    pub hook: Hook,
    /// Its place among the chains of this hook: lower ones come first.
    pub priority: i32,
    /// In order.
    pub rules: Vec<Rule>,
}

/// Where a chain sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets to this node itself, before a tunnel unwraps them.
    Input,
    /// Packets on their way through this node.
    Forward,
    /// The first packet of each connection that leaves this node, for translation of its source.
    Translate,
}

/// What happens to the packets that all of `matches` fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Conditions.
    pub matches: Vec<Match>,
    /// What happens.
    pub action: Action,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The packet came in by a device whose name begins so; at most 15 bytes.
    FromDevice(String),
    /// The protocol in the IP header.
    Protocol(u8),
    /// The source is in the set of this name, or is not.
    Source(Membership),
    /// The destination is.
    Destination(Membership),
}

/// Whether an address is in a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The set's name.
    pub set: String,
    /// In it, or not in it.
    pub within: bool,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is counted, and dropped.
    Drop,
    /// Its source becomes an address of this node, and a port by chance: of the range, where there is one.
    Masquerade(Option<PortRange>),
    /// Its source becomes this address, and a port as above.
    Translate(Ipv4Addr, Option<PortRange>),
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table ip {TABLE} {{")?;
        for (name, addresses) in &self.sets {
            write!(f, "  set {name} {{ type ipv4_addr; flags interval; ")?;
            match addresses.ranges().is_empty() {
                true => writeln!(f, "}}")?,
                false => writeln!(f, "elements = {{ {addresses} }}; }}")?,
            }
        }
        for (name, chain) in &self.chains {
            writeln!(f, "  chain {name} {{")?;
            writeln!(f, "    type {} priority {};", chain.hook, chain.priority)?;
            chain.rules.iter().try_for_each(|rule| writeln!(f, "    {rule}"))?;
            writeln!(f, "  }}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "filter hook input",
            Self::Forward => "filter hook forward",
            Self::Translate => "nat hook postrouting",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matches.iter().try_for_each(|condition| write!(f, "{condition} "))?;
        self.action.fmt(f)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromDevice(prefix) => write!(f, "iifname \"{prefix}*\""),
            Self::Protocol(protocol) => write!(f, "ip protocol {protocol}"),
            Self::Source(membership) => write!(f, "ip saddr {membership}"),
            Self::Destination(membership) => write!(f, "ip daddr {membership}"),
        }
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", if self.within { "" } else { "!= " }, self.set)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => write!(f, "counter drop"),
            Self::Masquerade(None) => write!(f, "masquerade fully-random"),
            Self::Masquerade(Some(ports)) => {
                write!(f, "masquerade to :{}-{} fully-random", ports.first(), ports.last())
            }
            Self::Translate(address, None) => write!(f, "snat to {address} fully-random"),
            Self::Translate(address, Some(ports)) => {
                write!(f, "snat to {address}:{}-{} fully-random", ports.first(), ports.last())
            }
        }
    }
}

#[cfg(test)]
mod tests;
