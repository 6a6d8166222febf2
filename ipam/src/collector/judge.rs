//! What is left behind, by one look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::{
    AffinitySpec, AffinityState, AllocationAttribute, BlockSpec, HandleSpec, IpPool, NodeName, Object,
    RESERVE,
};

use super::{Action, Leaked, Observed};
use crate::block::{self, Block};
use crate::{Family, handle};

/// Each leftover, and whether there is no need to wait.
pub(crate) fn leftovers(observed: Observed<'_>) -> BTreeMap<Action, bool> {
    let world = World::read(observed);
    let mut found = BTreeMap::new();
    world.leaks(&mut found);
    world.blocks(&mut found);
    world.affinities(&mut found);
    world.handles(&mut found);
    found
}

/// What could be read of it all.
struct World<'a> {
    observed: Observed<'a>,
    blocks: BTreeMap<IpNet, BlockSpec>,
    /// Names of blocks that cannot be read.
    unreadable: BTreeSet<&'a str>,
    affinities: Vec<(AffinitySpec, &'a Object)>,
    claims: BTreeSet<(NodeName, IpNet)>,
    nodes: BTreeSet<&'a str>,
}

/// What one allocation turns out to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Gone,
    Suspect,
    Valid,
}

/// One allocation of a handle.
struct Held<'w> {
    leaked: Leaked,
    attribute: &'w AllocationAttribute,
}

impl<'a> World<'a> {
    fn read(observed: Observed<'a>) -> Self {
        let (mut blocks, mut unreadable) = (BTreeMap::new(), BTreeSet::new());
        for object in observed.blocks {
            match Block::read(object.clone()) {
                Ok(Some(block)) => drop(blocks.insert(block.spec.cidr, block.spec)),
                Ok(None) => {}
                Err(_) => drop(unreadable.insert(object.name())),
            }
        }
        let affinities = observed.affinities.iter().filter_map(|object| Some((object.spec().ok()?, object)));
        let hosts =
            affinities.filter(|(spec, _): &(AffinitySpec, _)| spec.kind.as_deref() != Some("virtual"));
        let affinities: Vec<(AffinitySpec, &Object)> = hosts.collect();
        let claims = affinities.iter().map(|(claim, _)| (claim.node.clone(), claim.cidr)).collect();
        let nodes = observed.nodes.iter().map(NodeName::as_str).collect();
        Self { observed, blocks, unreadable, affinities, claims, nodes }
    }

    fn exists(&self, node: &str) -> bool {
        self.nodes.contains(node)
    }

    fn by_handle(&self) -> BTreeMap<&str, Vec<Held<'_>>> {
        let mut by_handle: BTreeMap<&str, Vec<Held<'_>>> = BTreeMap::new();
        for (cidr, spec) in &self.blocks {
            for (ordinal, address, attribute) in block::held(spec) {
                let Some(handle) = block::handle_of(attribute) else { continue };
                let sequence = spec.sequence_number_for_allocation.get(&ordinal.to_string()).copied();
                let leaked = Leaked { address, block: *cidr, sequence };
                by_handle.entry(handle).or_default().push(Held { leaked, attribute });
            }
        }
        by_handle
    }

    /// All of a handle or nothing; what a node holds for itself only when nothing else of it is left.
    fn leaks(&self, found: &mut BTreeMap<Action, bool>) {
        let by_handle = self.by_handle();
        let all = by_handle.values().flatten();
        let busy: BTreeSet<&str> = all
            .filter(|held| !is_nodes_own(held.attribute))
            .filter_map(|held| node_of(held.attribute))
            .collect();
        for (handle, held) in &by_handle {
            let verdicts = held.iter().map(|held| self.verdict(held, &busy));
            let Some(verdict) = verdicts.max().filter(|verdict| *verdict != Verdict::Valid) else { continue };
            let action = Action::ReleaseHandle {
                handle: (*handle).to_owned(),
                pod: held.iter().find_map(|held| pod_of(held.attribute)),
                held: held.iter().map(|held| held.leaked).collect(),
            };
            found.insert(action, verdict == Verdict::Gone);
        }
    }

    fn verdict(&self, held: &Held<'_>, busy: &BTreeSet<&str>) -> Verdict {
        let Some(node) = node_of(held.attribute) else { return Verdict::Valid };
        let node_gone = !self.exists(node);
        if is_nodes_own(held.attribute) {
            return if node_gone && !busy.contains(node) { Verdict::Gone } else { Verdict::Valid };
        }
        let valid = match pod_of(held.attribute) {
            Some(pod) => self.pod_has(&pod, node, held.leaked.address),
            None => !node_gone,
        };
        match (valid, node_gone) {
            (true, _) => Verdict::Valid,
            (false, true) => Verdict::Gone,
            (false, false) => Verdict::Suspect,
        }
    }

    fn pod_has(&self, pod: &(String, String), node: &str, address: IpAddr) -> bool {
        self.observed.pods.get(pod).is_some_and(|pod| {
            let here = pod.node.as_deref().is_none_or(|at| at == node);
            here && !pod.finished && (pod.addresses.is_empty() || pod.addresses.contains(&address))
        })
    }

    /// Empty blocks: those of gone nodes, those without an affinity, and all but one of each node's that needs any.
    fn blocks(&self, found: &mut BTreeMap<Action, bool>) {
        let mut kept: BTreeSet<(&str, Family)> = BTreeSet::new();
        let in_use = self.blocks.values().filter(|spec| !block::is_empty(spec));
        kept.extend(in_use.filter_map(|spec| Some((owner_of(spec)?, Family::of(spec.cidr)))));
        for (cidr, spec) in &self.blocks {
            let (block, sequence) = (*cidr, spec.sequence_number);
            let empty = block::is_empty(spec);
            let Some(owner) = owner_of(spec) else {
                if empty && spec.affinity.is_none() {
                    found.insert(Action::DeleteBlock { block, sequence }, false);
                }
                continue;
            };
            let Ok(node) = owner.parse::<NodeName>() else { continue };
            let claimed = self.claims.contains(&(node.clone(), block));
            let gone = !self.exists(owner);
            match (claimed, empty) {
                (false, true) => {
                    found.insert(Action::DeleteBlock { block, sequence }, gone);
                }
                (false, false) if !gone => {
                    found.insert(Action::Mend { node, block, version: None }, false);
                }
                (true, true)
                    if gone
                        || self.observed.blockless.contains(&node)
                        || !kept.insert((owner, Family::of(block))) =>
                {
                    found.insert(Action::ReleaseBlock { node, block, sequence }, gone);
                }
                _ => {}
            }
        }
    }

    fn affinities(&self, found: &mut BTreeMap<Action, bool>) {
        for (spec, object) in &self.affinities {
            let (node, block) = (spec.node.clone(), spec.cidr);
            if self.unreadable.contains(manx_model::cidr_name(block).as_str()) {
                continue;
            }
            let Some(version) = object.metadata.resource_version.clone() else { continue };
            let gone = !self.exists(node.as_str());
            let stored = self.blocks.get(&block);
            let ours = stored.is_some_and(|stored| owner_of(stored) == Some(node.as_str()));
            let settled = spec.state == AffinityState::Confirmed && spec.deleted != "true";
            if gone && !ours || settled && stored.is_none() {
                found.insert(Action::RemoveAffinity { node, block, version }, gone);
            } else if !settled || !ours {
                found.insert(Action::Mend { node, block, version: Some(version) }, false);
            }
        }
    }

    /// Handles that hold nothing in any block that they name, those that say something else than the blocks, and those
    /// that are missing.
    fn handles(&self, found: &mut BTreeMap<Action, bool>) {
        let released = |action: &Action| match action {
            Action::ReleaseHandle { handle, .. } => Some(handle.clone()),
            _ => None,
        };
        let released: BTreeSet<String> = found.keys().filter_map(released).collect();
        let mut holders = self.by_handle();
        for object in self.observed.handles {
            let by_name = holders.remove(object.name());
            let Ok(spec) = object.spec::<HandleSpec>() else { continue };
            let held = holders.remove(spec.handle_id.as_str()).or(by_name);
            let Some(version) = object.metadata.resource_version.clone() else { continue };
            let unknown = |cidr: IpNet| self.unreadable.contains(manx_model::cidr_name(cidr).as_str());
            if handle::blocks(&spec).any(unknown) {
                continue;
            }
            let handle = object.name().to_owned();
            match held.map(|held| counts(&held)) {
                None => drop(found.insert(Action::RemoveHandle { handle, version }, false)),
                // A mark that stays on a handle in use is that of a collector that was cut off.
                Some(blocks)
                    if (spec.deleted || !says(&spec, &blocks)) && !released.contains(&spec.handle_id) =>
                {
                    found.insert(Action::StoreHandle { handle, version: Some(version), blocks }, false);
                }
                Some(_) => {}
            }
        }
        for (handle, held) in holders.into_iter().filter(|(handle, _)| !released.contains(*handle)) {
            let (handle, blocks) = (handle.to_owned(), counts(&held));
            found.insert(Action::StoreHandle { handle, version: None, blocks }, false);
        }
    }
}

/// How many addresses a handle holds of which block.
fn counts(held: &[Held<'_>]) -> BTreeMap<IpNet, u32> {
    let mut blocks = BTreeMap::new();
    held.iter().for_each(|held| *blocks.entry(held.leaked.block).or_default() += 1);
    blocks
}

/// Whether a handle says this, and nothing else.
fn says(spec: &HandleSpec, blocks: &BTreeMap<IpNet, u32>) -> bool {
    let said: Option<BTreeMap<IpNet, u32>> =
        spec.block.iter().map(|(cidr, count)| Some((cidr.parse().ok()?, *count))).collect();
    said.as_ref() == Some(blocks)
}

fn node_of(attribute: &AllocationAttribute) -> Option<&str> {
    attribute.secondary.get("node").map(String::as_str)
}

fn pod_of(attribute: &AllocationAttribute) -> Option<(String, String)> {
    Some((attribute.secondary.get("namespace")?.clone(), attribute.secondary.get("pod")?.clone()))
}

/// Whether the node holds it for itself: for a tunnel, or back for an outage.
fn is_nodes_own(attribute: &AllocationAttribute) -> bool {
    let kind = attribute.secondary.get("type");
    kind.is_some_and(|kind| kind.ends_with("TunnelAddress") || kind.starts_with(RESERVE))
}

pub(crate) fn owner_of(block: &BlockSpec) -> Option<&str> {
    block.affinity.as_deref()?.strip_prefix("host:")
}

/// The numbers behind Calico's `ipam_*` metrics. The keys are a pool's name (`no_ippool` where there is none, as
/// in Calico) and a node's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// `ipam_allocations_in_use`, by the node that holds them.
    pub in_use: BTreeMap<(String, String), usize>,
    /// `ipam_allocations_borrowed`, by the node that borrowed them.
    pub borrowed: BTreeMap<(String, String), usize>,
    /// `ipam_blocks`, by owner.
    pub blocks: BTreeMap<(String, String), usize>,
    /// `ipam_ippool_size`: addresses of each pool.
    pub pool_size: BTreeMap<String, u128>,
    /// `ipam_allocations_gc_candidates`: leftovers that wait for their grace, or to be cleared away.
    pub candidates: usize,
    /// `ipam_allocations_gc_reclamations`: addresses that were reclaimed.
    pub reclaimed: u64,
}

pub(super) fn metrics(observed: Observed<'_>) -> Metrics {
    let world = World::read(observed);
    let mut metrics = Metrics::default();
    for pool in observed.pools {
        metrics.pool_size.insert(pool.name.clone(), size(pool));
    }
    for (cidr, spec) in &world.blocks {
        let pool = observed.pools.iter().find(|pool| pool.cidr.contains(cidr));
        let pool = pool.map_or("no_ippool", |pool| pool.name.as_str());
        let key = |node: &str| (pool.to_owned(), node.to_owned());
        let owner = owner_of(spec).unwrap_or("no_affinity");
        *metrics.blocks.entry(key(owner)).or_default() += 1;
        for (_, _, attribute) in block::held(spec).filter(|(_, _, by)| block::handle_of(by).is_some()) {
            let node = node_of(attribute).unwrap_or("unknown_node");
            *metrics.in_use.entry(key(node)).or_default() += 1;
            if node != owner {
                *metrics.borrowed.entry(key(node)).or_default() += 1;
            }
        }
    }
    metrics
}

/// How many addresses a pool has.
pub(crate) fn size(pool: &IpPool) -> u128 {
    let bits = pool.cidr.max_prefix_len() - pool.cidr.prefix_len();
    1u128.checked_shl(bits.into()).unwrap_or(u128::MAX)
}
