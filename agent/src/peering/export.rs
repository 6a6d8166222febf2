//! What this node tells all its peers, as far as pools and BGPConfigurations decide it.

use std::collections::BTreeSet;

use ipnet::IpNet;
use manx_bgp::policy::NodeExport;
use manx_bgp::wire::AnyCommunity;
use manx_model::{BgpConfigurationSpec, Complaint, Kind, PrefixAdvertisement};

use super::filters::community;
use super::view::View;
use crate::services;

/// The export policy of the node, but for its own blocks.
pub(super) fn export(view: &View<'_>) -> (NodeExport, Vec<Complaint>) {
    let (communities, complaints) = communities(view);
    let (hidden, told): (Vec<_>, Vec<_>) = view.pools().iter().partition(|pool| pool.disable_bgp_export);
    let cidrs =
        |pools: Vec<&manx_model::IpPool>| pools.into_iter().map(|pool| pool.cidr).collect::<BTreeSet<_>>();
    let mut transit = cidrs(told);
    // A reflector passes on what others say about services.
    transit.extend(services::ranges(&view.default));
    (NodeExport { hidden: cidrs(hidden), transit, communities, ..NodeExport::default() }, complaints)
}

/// What a node has for itself counts instead of what the cluster has; names are always the cluster's.
fn communities(view: &View<'_>) -> (Vec<(IpNet, Vec<AnyCommunity>)>, Vec<Complaint>) {
    let own = view.own_configuration().map(|spec| &spec.prefix_advertisements);
    let (object, advertisements) = match own.filter(|list| !list.is_empty()) {
        Some(own) => (format!("node.{}", view.facts.node), own),
        None => ("default".to_owned(), &view.default.prefix_advertisements),
    };
    let mut complaints = Vec::new();
    let mut communities = Vec::new();
    for (index, PrefixAdvertisement { cidr, communities: names }) in advertisements.iter().enumerate() {
        let mut found = Vec::new();
        for name in names {
            match named(&view.default, name) {
                Some(community) => found.push(community),
                None => complaints.push(Complaint::new(
                    Kind::BGPConfiguration,
                    &object,
                    format!(
                        "spec.prefixAdvertisements[{index}].communities: {name:?} is neither a community, as 65000:1, \
                         nor the name of one in BGPConfiguration default: {cidr} is told without it"
                    ),
                )),
            }
        }
        communities.push((*cidr, found));
    }
    (communities, complaints)
}

fn named(default: &BgpConfigurationSpec, name: &str) -> Option<AnyCommunity> {
    let by_name = default.communities.iter().find(|entry| entry.name == name).map(|entry| entry.value);
    by_name.or_else(|| name.parse().ok()).map(community)
}
