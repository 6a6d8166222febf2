//! From which pools a request may take its addresses (Calico's `determinePools`).

use std::collections::BTreeMap;

use ipnet::IpNet;
use manx_model::{AllowedUse, AssignmentMode, IpPool, NodeName};

use crate::request::{Family, Rules, Wanted};
use crate::{AssignRequest, Error};

/// Where in `rules.pools` the pools are that this request may use for a family, in the order in which they are tried.
/// Pools that the request names are used whatever they select; what they may be used for counts all the same.
pub(crate) fn choose(
    rules: Rules<'_>,
    node: &NodeName,
    request: &AssignRequest,
    family: Family,
) -> Result<Vec<usize>, Error> {
    let Wanted { pools: named, .. } = match family {
        Family::V4 => &request.ipv4,
        Family::V6 => &request.ipv6,
    };
    if !named.is_empty() {
        return named.iter().map(|name| find(rules.pools, name, family, request.usage)).collect();
    }
    let namespace = request.namespace_labels.as_ref();
    let why_not = |pool: &IpPool| why_not(pool, family, request.usage, rules.node_labels, namespace);
    let usable: Vec<usize> =
        (0..rules.pools.len()).filter(|index| why_not(&rules.pools[*index]).is_none()).collect();
    match usable.is_empty() {
        false => Ok(usable),
        true => Err(Error::NoPool {
            node: node.clone(),
            family,
            refused: rules
                .pools
                .iter()
                .filter_map(|pool| Some(format!("{}: {}", pool.name, why_not(pool)?)))
                .collect(),
        }),
    }
}

fn why_not(
    pool: &IpPool,
    family: Family,
    usage: AllowedUse,
    node: &BTreeMap<String, String>,
    namespace: Option<&BTreeMap<String, String>>,
) -> Option<String> {
    if Family::of(pool.cidr) != family {
        Some(format!("is not {family}"))
    } else if pool.disabled {
        Some("is disabled".into())
    } else if pool.assignment == AssignmentMode::Manual {
        Some("has assignmentMode Manual, and is not named".into())
    } else if !pool.node_selector.matches(node) {
        Some("its nodeSelector does not select the node".into())
    } else if !pool.selects(node, namespace) {
        Some("its namespaceSelector does not select the namespace".into())
    } else if !pool.allows(usage) {
        Some(format!("its allowedUses do not contain {usage}"))
    } else {
        None
    }
}

fn find(pools: &[IpPool], name: &str, family: Family, usage: AllowedUse) -> Result<usize, Error> {
    let cidr = name.parse::<IpNet>().ok();
    let found = pools.iter().position(|pool| pool.name == name || Some(pool.cidr) == cidr);
    let refused = |reason: String| Err(Error::NamedPool { pool: name.to_owned(), reason });
    match found.map(|index| (index, &pools[index])) {
        None => refused("and there is no such IPPool in use".into()),
        Some((_, pool)) if pool.disabled => refused("which is disabled".into()),
        Some((_, pool)) if Family::of(pool.cidr) != family => {
            refused(format!("{}, for an {family} address", pool.cidr))
        }
        Some((_, pool)) if !pool.allows(usage) => {
            refused(format!("whose allowedUses do not contain {usage}"))
        }
        Some((index, _)) => Ok(index),
    }
}

/// Whether a pool would give a new block to a node with these labels, for whatever pod.
pub(crate) fn selects_node(pool: &IpPool, node: &BTreeMap<String, String>) -> bool {
    pool.node_selector.matches(node)
}

#[cfg(test)]
mod tests;
