//! What a node tells when no filter has decided: the part of the export policy that all its peers share.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::rib::DEFAULT_LOCAL_PREF;
use crate::wire::AnyCommunity;

/// The export policy of a node. In each set, a prefix stands for itself and all within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeExport {
    /// Told to nobody: pools with `disableBGPExport`.
    pub hidden: BTreeSet<IpNet>,
    /// Our own blocks. A path that was learned to a part of one is not told: the block, which we originate, says enough. What
    /// is originated explicitly, as an address borrowed from another node's block, is told all the same.
    pub blocks: BTreeSet<IpNet>,
    /// Where paths that were learned are passed on to peers with [`ExportPolicy::Transit`]: enabled pools, and on a route
    /// reflector the ranges of services.
    pub transit: BTreeSet<IpNet>,
    /// Communities by prefix: what is told of these and within gets them (`prefixAdvertisements`).
    pub communities: Vec<(IpNet, Vec<AnyCommunity>)>,
    /// LOCAL_PREF of what we originate, as peers inside our AS are told it. Calico 3.32 and later says 2147483647 less the
    /// metric of its routes.
    pub local_pref: u32,
}

/// What a peer is told that no filter has decided about, as far as [`NodeExport`] allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportPolicy {
    /// What we originate: a node does not offer itself as transit unless it is asked to.
    #[default]
    Own,
    /// Besides, best paths of others within [`NodeExport::transit`].
    Transit,
    /// Besides, best paths of others.
    All,
}

impl Default for NodeExport {
    /// Nothing is hidden, no blocks, no transit, no communities; LOCAL_PREF 100.
    fn default() -> Self {
        Self {
            hidden: BTreeSet::new(),
            blocks: BTreeSet::new(),
            transit: BTreeSet::new(),
            communities: Vec::new(),
            local_pref: DEFAULT_LOCAL_PREF,
        }
    }
}

impl NodeExport {
    /// Whether a peer with this policy is told a prefix that we originate, or have `learned`.
    pub fn permits(&self, policy: ExportPolicy, prefix: &IpNet, learned: bool) -> bool {
        let passed_on = match policy {
            ExportPolicy::Own => false,
            ExportPolicy::Transit => within(prefix, &self.transit),
            ExportPolicy::All => true,
        };
        !within(prefix, &self.hidden) && (!learned || (passed_on && !within(prefix, &self.blocks)))
    }

    /// The communities that a prefix gets.
    pub fn communities(&self, prefix: &IpNet) -> Vec<AnyCommunity> {
        let meant = self.communities.iter().filter(|(net, _)| net.contains(prefix));
        meant.flat_map(|(_, communities)| communities).copied().collect()
    }
}

/// Whether a prefix, or one that contains it, is in the set.
fn within(prefix: &IpNet, set: &BTreeSet<IpNet>) -> bool {
    !set.is_empty() && std::iter::successors(Some(*prefix), IpNet::supernet).any(|net| set.contains(&net))
}

#[cfg(test)]
mod tests {
    use super::{ExportPolicy, NodeExport};

    #[test]
    fn own_routes_go_out_unless_hidden_and_learned_ones_where_they_may_pass() {
        let set = |prefixes: &[&str]| prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        let node = NodeExport {
            hidden: set(&["10.9.0.0/16"]),
            blocks: set(&["10.0.1.0/26"]),
            transit: set(&["10.0.0.0/8"]),
            ..NodeExport::default()
        };
        use ExportPolicy::{All, Own, Transit};
        // Whether it goes out: originated; learned, by policy.
        let cases = [
            ("10.0.1.0/26", true, [false, false, false]),
            ("10.0.1.1/32", true, [false, false, false]),
            ("10.0.1.64/26", true, [false, true, true]),
            ("10.0.0.0/8", true, [false, true, true]),
            ("10.9.1.0/26", false, [false, false, false]),
            ("10.9.0.0/16", false, [false, false, false]),
            ("11.0.0.0/8", true, [false, false, true]),
            ("0.0.0.0/0", true, [false, false, true]),
        ];
        for (prefix, originated, learned) in cases {
            let prefix = prefix.parse().unwrap();
            for policy in [Own, Transit, All] {
                assert_eq!(node.permits(policy, &prefix, false), originated, "{prefix}");
            }
            assert_eq!([Own, Transit, All].map(|it| node.permits(it, &prefix, true)), learned, "{prefix}");
        }
    }

    #[test]
    fn a_prefix_gets_the_communities_of_every_range_that_it_is_within() {
        let communities = |words: &[&str]| words.iter().map(|word| word.parse().unwrap()).collect();
        let node = NodeExport {
            communities: vec![
                ("10.0.0.0/8".parse().unwrap(), communities(&["1:1"])),
                ("10.1.0.0/16".parse().unwrap(), communities(&["1:2", "1:2:3"])),
            ],
            ..NodeExport::default()
        };
        let of = |prefix: &str| node.communities(&prefix.parse().unwrap());
        assert_eq!(of("10.1.2.0/24"), communities(&["1:1", "1:2", "1:2:3"]));
        assert_eq!(of("10.2.0.0/16"), communities(&["1:1"]));
        assert_eq!(of("0.0.0.0/0"), []);
    }
}
