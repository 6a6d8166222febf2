//! What is wrong with everything that is stored, and how it can be mended: for an operator who asks.
//!
//! Only what is certainly wrong has a fix. What a pod or a node may just be doing (an address whose pod is not seen yet, a
//! claim that is under way) is told and left alone while it is younger than the grace; so is what takes a person to
//! decide, as an address in two blocks. Each fix is compare-and-swap on what it was decided on.

use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use manx_datastore::Datastore;
use manx_model::{
    AffinitySpec, BlockSpec, HOSTNAME_HASH, HandleSpec, IpamConfigSpec, Kind, Object, cidr_name,
};

use crate::affinity::bump;
use crate::block::{self, Block, mend_lists};
use crate::collector::{Action, Observed, act, leftovers, owner_of};
use crate::time::seconds_since;
use crate::{Error, Finding, audit};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What, in a sentence.
    pub what: String,
    /// How it can be mended; `None` where that is for a person, or for time, to decide.
    pub fix: Option<Fix>,
}

/// How something can be mended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fix {
    /// As a collector would.
    Collect(Action),
    /// Free the addresses of a block that are neither held nor free, and list each free one once.
    MendBlock {
        /// The block.
        block: IpNet,
        /// The version that was found.
        version: String,
    },
}

/// Everything that is wrong, in a stable order. What is younger than `grace` has no fix.
pub fn check(observed: Observed<'_>, grace: Duration, now: SystemTime) -> Vec<Problem> {
    let ages = Ages { observed, grace, now };
    let mut problems = Vec::new();
    structure(observed, &mut problems);
    for (action, at_once) in leftovers(observed) {
        let Some(what) = wrong(observed, &action, at_once) else { continue };
        let fix = (at_once || ages.is_old(&action)).then_some(Fix::Collect(action));
        problems.push(Problem { what, fix });
    }
    unlabelled(observed, &mut problems);
    outside(observed, &mut problems);
    problems.sort();
    problems
}

/// Mends one thing; `false` when it has changed since it was found, and nothing was done.
///
/// # Errors
/// [`Error::Datastore`]; it can be repeated.
pub async fn fix(
    store: &dyn Datastore,
    now: SystemTime,
    config: &IpamConfigSpec,
    fix: &Fix,
) -> Result<bool, Error> {
    match fix {
        Fix::Collect(action) => act(store, now, config, action).await,
        Fix::MendBlock { block, version } => mend_block(store, *block, version).await,
    }
}

async fn mend_block(store: &dyn Datastore, cidr: IpNet, version: &str) -> Result<bool, Error> {
    let Some(object) = store.get(Kind::IPAMBlock, &cidr_name(cidr)).await? else { return Ok(false) };
    if object.metadata.resource_version.as_deref() != Some(version) {
        return Ok(false);
    }
    let mut spec: BlockSpec = object.spec()?;
    mend_lists(&mut spec);
    match bump(store, Block { object, spec }).await {
        Err(error) if error.is_conflict() => Ok(false),
        written => written.map(|_| true),
    }
}

/// What does not fit together, apart from what [`leftovers`] names.
fn structure(observed: Observed<'_>, problems: &mut Vec<Problem>) {
    let blocks: Vec<BlockSpec> = specs(observed.blocks, problems);
    let affinities: Vec<AffinitySpec> = specs(observed.affinities, problems);
    let handles: Vec<HandleSpec> = specs(observed.handles, problems);
    for finding in audit(&blocks, &affinities, &handles) {
        let fix = match &finding {
            Finding::AddressTwice { .. } => None,
            Finding::BrokenBlock { block, .. } | Finding::LostAddress { block, .. } => {
                mending(observed, *block)
            }
            _ => continue,
        };
        problems.push(Problem { what: finding.to_string(), fix });
    }
}

/// A block whose lists come right by themselves, as far as they can.
fn mending(observed: Observed<'_>, block: IpNet) -> Option<Fix> {
    let object = observed.blocks.iter().find(|object| object.name() == cidr_name(block))?;
    let mut spec: BlockSpec = object.spec().ok()?;
    mend_lists(&mut spec);
    block::check(&spec).ok()?;
    Some(Fix::MendBlock { block, version: object.metadata.resource_version.clone()? })
}

fn specs<S: serde::de::DeserializeOwned>(objects: &[Object], problems: &mut Vec<Problem>) -> Vec<S> {
    let mut specs = Vec::new();
    for object in objects {
        match object.spec() {
            Ok(spec) => specs.push(spec),
            Err(invalid) => problems.push(Problem { what: invalid.to_string(), fix: None }),
        }
    }
    specs
}

/// What is wrong where this is to be done; an empty block of a living node is nothing wrong.
fn wrong(observed: Observed<'_>, action: &Action, gone: bool) -> Option<String> {
    Some(match action {
        Action::ReleaseHandle { handle, pod, held } => {
            let addresses: Vec<String> = held.iter().map(|held| held.address.to_string()).collect();
            let whose = match pod {
                Some(pod) if observed.pods.contains_key(pod) => {
                    format!("pod {}/{} is elsewhere, has ended or has another address", pod.0, pod.1)
                }
                Some((namespace, pod)) => format!("pod {namespace}/{pod} does not exist"),
                None => "its node does not exist".to_owned(),
            };
            format!("{} is held by handle {handle}, and {whose}", addresses.join(" and "))
        }
        Action::ReleaseBlock { node, block, .. } if gone => {
            format!("block {block} belongs to node {node}, which does not exist")
        }
        Action::ReleaseBlock { .. } => return None,
        Action::DeleteBlock { block, .. } => {
            format!("block {block} is empty, and nobody has an affinity for it")
        }
        Action::RemoveHandle { handle, .. } => format!("handle {handle} holds nothing"),
        Action::StoreHandle { handle, version, blocks } => {
            let held: Vec<String> = blocks.iter().map(|(cidr, count)| format!("{count} of {cidr}")).collect();
            let wrong = if version.is_some() { "says something else" } else { "is not stored" };
            format!("handle {handle} holds {}, and {wrong}", held.join(" and "))
        }
        Action::RemoveAffinity { node, block, .. } => {
            format!("node {node} has an affinity for block {block}, which is not its own")
        }
        Action::Mend { node, block, version: None } => {
            format!("block {block} belongs to node {node}, which has no affinity for it")
        }
        Action::Mend { node, block, .. } => {
            format!("the affinity of node {node} for block {block} is half done, or for a block of another")
        }
    })
}

/// Affinities of before Calico 3.31, which a newer Calico node does not see.
fn unlabelled(observed: Observed<'_>, problems: &mut Vec<Problem>) {
    for object in observed.affinities {
        let Ok(AffinitySpec { node, cidr: block, kind, .. }) = object.spec::<AffinitySpec>() else {
            continue;
        };
        if kind.as_deref() != Some("virtual") && !object.metadata.labels.contains_key(HOSTNAME_HASH) {
            let what = format!(
                "the affinity of node {node} for block {block} lacks the labels by which Calico finds it"
            );
            let version = object.metadata.resource_version.clone();
            problems.push(Problem { what, fix: Some(Fix::Collect(Action::Mend { node, block, version })) });
        }
    }
}

/// Blocks of pools that were deleted: empty, they can go.
fn outside(observed: Observed<'_>, problems: &mut Vec<Problem>) {
    for object in observed.blocks {
        let Ok(Some(Block { spec, .. })) = Block::read(object.clone()) else { continue };
        let block = spec.cidr;
        if observed.pools.iter().any(|pool| pool.cidr.contains(&block)) {
            continue;
        }
        let owner = owner_of(&spec).and_then(|owner| owner.parse().ok());
        let release =
            |node| Fix::Collect(Action::ReleaseBlock { node, block, sequence: spec.sequence_number });
        let fix = owner.filter(|_| block::is_empty(&spec)).map(release);
        let told = problems.iter().any(|problem| fix.is_some() && problem.fix == fix);
        problems.push(Problem { what: format!("block {block} is in no IPPool"), fix: fix.filter(|_| !told) });
    }
}

/// How long things have been as they are, as far as they say.
struct Ages<'a> {
    observed: Observed<'a>,
    grace: Duration,
    now: SystemTime,
}

impl Ages<'_> {
    fn is_old(&self, action: &Action) -> bool {
        match action {
            Action::ReleaseHandle { handle, .. } => self.allocated_long_ago(handle),
            // At worst somebody releases it meanwhile: then it is a handle that holds nothing.
            Action::StoreHandle { version: None, .. } => true,
            Action::StoreHandle { handle, .. } => self.created_long_ago(self.observed.handles, handle),
            Action::RemoveHandle { handle, .. } => self.created_long_ago(self.observed.handles, handle),
            Action::RemoveAffinity { node, block, .. } | Action::Mend { node, block, version: Some(_) } => {
                self.created_long_ago(self.observed.affinities, &manx_model::affinity_name(node, *block))
            }
            // A block and its affinity come and go in an order that never leaves these behind for long.
            Action::Mend { block, .. }
            | Action::DeleteBlock { block, .. }
            | Action::ReleaseBlock { block, .. } => {
                self.created_long_ago(self.observed.blocks, &cidr_name(*block))
            }
        }
    }

    /// By the attribute `timestamp`, which every pod's allocation has.
    fn allocated_long_ago(&self, handle: &str) -> bool {
        let blocks = self.observed.blocks.iter().filter_map(|object| object.spec::<BlockSpec>().ok());
        let mut times = Vec::new();
        for block in blocks {
            let of_handle = block::held(&block).filter(|(_, _, by)| block::handle_of(by) == Some(handle));
            times.extend(of_handle.map(|(_, _, by)| by.secondary.get("timestamp").cloned()));
        }
        times.iter().all(|time| time.as_deref().is_some_and(|time| self.long_ago(time)))
    }

    /// An object of a store that keeps no creation time is as old as it likes: what is done to it is compare-and-swap.
    fn created_long_ago(&self, objects: &[Object], name: &str) -> bool {
        let object = objects.iter().find(|object| object.name() == name);
        let created = object.and_then(|object| object.metadata.rest.get("creationTimestamp")?.as_str());
        created.is_none_or(|created| self.long_ago(created))
    }

    fn long_ago(&self, time: &str) -> bool {
        seconds_since(time, self.now).is_some_and(|seconds| seconds >= self.grace.as_secs() as i64)
    }
}
