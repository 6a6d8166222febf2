//! Clearing one thing away, if it is still what it was when that was decided.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError};
use manx_model::{HandleSpec, IpamConfigSpec, Kind, NodeName, affinity_name};

use super::{Action, Collector, Leaked};
use crate::affinity::{Claimant, bump, delete, read_block};
use crate::block::{self, Block, addresses_of};
use crate::handle::{self, Handle};
use crate::{Error, TRIES};

impl Collector {
    /// Carries an action out; `false` when what it was decided on has changed, and nothing is to be done.
    ///
    /// # Errors
    /// [`Error::Datastore`]; what was left half done is found by a later observation.
    pub async fn carry_out(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        config: &IpamConfigSpec,
        action: &Action,
    ) -> Result<bool, Error> {
        let done = carry_out(store, now, config, action).await?;
        if let (true, Action::ReleaseHandle { held, .. }) = (done, action) {
            self.reclaimed += held.len() as u64;
        }
        self.candidates.remove(action);
        Ok(done)
    }
}

/// As [`Collector::carry_out`], for who has no collector.
pub(crate) async fn carry_out(
    store: &dyn Datastore,
    now: SystemTime,
    config: &IpamConfigSpec,
    action: &Action,
) -> Result<bool, Error> {
    let claimant = |node| Claimant { store, node, now };
    let done = match action {
        Action::ReleaseHandle { handle, held, .. } => {
            release_handle(store, now, config.ip_cooldown_seconds, handle, held).await
        }
        Action::ReleaseBlock { node, block, sequence } => {
            claimant(node).release(*block, Some(*sequence)).await
        }
        Action::DeleteBlock { block, sequence } => delete_block(store, *block, *sequence).await,
        Action::RemoveHandle { handle, version } => remove_handle(store, handle, version).await,
        Action::StoreHandle { handle, version, blocks } => {
            store_handle(store, handle, version.as_deref(), blocks).await
        }
        Action::RemoveAffinity { node, block, version } => {
            remove_affinity(store, node, *block, version).await
        }
        Action::Mend { node, block, .. } => claimant(node).mend(*block).await.map(|_| true),
    };
    match done {
        Err(error) if error.is_conflict() => Ok(false),
        done => done,
    }
}

/// All of it is looked at before any of it is released. The handle is marked before and deleted after: see
/// [`remove_handle`].
async fn release_handle(
    store: &dyn Datastore,
    now: SystemTime,
    cooldown: u32,
    handle: &str,
    held: &[Leaked],
) -> Result<bool, Error> {
    let stored = match handle::read(store, handle).await {
        Err(Error::Datastore(StoreError::Invalid(_))) => None,
        stored => stored?,
    };
    let marked = match stored {
        Some(stored) => Some(handle::mark(store, stored, true).await?),
        None => None,
    };
    let released = release_held(store, now, cooldown, handle, held).await?;
    match (marked, released) {
        (Some(marked), true) => delete(store, &marked.object).await?,
        (Some(marked), false) => drop(handle::mark(store, marked, false).await?),
        (None, _) => {}
    }
    Ok(released)
}

async fn release_held(
    store: &dyn Datastore,
    now: SystemTime,
    cooldown: u32,
    handle: &str,
    held: &[Leaked],
) -> Result<bool, Error> {
    let mut by_block: BTreeMap<IpNet, Vec<&Leaked>> = BTreeMap::new();
    held.iter().for_each(|leaked| by_block.entry(leaked.block).or_default().push(leaked));
    let mut freed = Vec::new();
    for (cidr, leaked) in by_block {
        let Some(mut block) = read_block(store, cidr).await? else { return Ok(false) };
        let ordinals: Vec<usize> =
            leaked.iter().filter_map(|leaked| still_held(&block, handle, leaked)).collect();
        if ordinals.len() != leaked.len() || addresses_of(&block.spec, handle).count() != leaked.len() {
            return Ok(false);
        }
        block::release_ordinals(&mut block.spec, &ordinals, now, cooldown);
        freed.push(block);
    }
    for block in freed {
        match bump(store, block).await {
            Err(error) if error.is_conflict() => return Ok(false),
            written => drop(written?),
        }
    }
    Ok(true)
}

fn still_held(block: &Block, handle: &str, leaked: &Leaked) -> Option<usize> {
    let (ordinal, _) = addresses_of(&block.spec, handle).find(|(_, address)| *address == leaked.address)?;
    let sequence = block.spec.sequence_number_for_allocation.get(&ordinal.to_string()).copied();
    (sequence == leaked.sequence).then_some(ordinal)
}

async fn delete_block(store: &dyn Datastore, cidr: IpNet, sequence: u64) -> Result<bool, Error> {
    match read_block(store, cidr).await? {
        Some(block) if block.spec.sequence_number == sequence && block::is_empty(&block.spec) => {
            delete(store, &block.object).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

async fn remove_affinity(
    store: &dyn Datastore,
    node: &NodeName,
    cidr: IpNet,
    version: &str,
) -> Result<bool, Error> {
    match store.get(Kind::BlockAffinity, &affinity_name(node, cidr)).await? {
        Some(object) if object.metadata.resource_version.as_deref() == Some(version) => {
            delete(store, &object).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

async fn store_handle(
    store: &dyn Datastore,
    name: &str,
    version: Option<&str>,
    blocks: &BTreeMap<IpNet, u32>,
) -> Result<bool, Error> {
    let stored = store.get(Kind::IPAMHandle, name).await?;
    if stored.as_ref().and_then(|object| object.metadata.resource_version.as_deref()) != version {
        return Ok(false);
    }
    let known = match stored {
        Some(object) => Some(Handle { spec: object.spec()?, object }),
        None => None,
    };
    let handle = known.as_ref().map_or(name, |known| &known.spec.handle_id);
    for (cidr, count) in blocks {
        let block = read_block(store, *cidr).await?;
        let held = block.map_or(0, |block| addresses_of(&block.spec, handle).count());
        if held != *count as usize {
            return Ok(false);
        }
    }
    let block = blocks.iter().map(|(cidr, count)| (cidr.to_string(), *count)).collect();
    let Some(Handle { object, spec }) = known else {
        return Ok(handle::create(store, name, &block).await?.is_some());
    };
    store.update(object.with_spec(&HandleSpec { block, deleted: false, ..spec })).await?;
    Ok(true)
}

/// A writer may stand between this handle and its block. So the handle is marked as deleted, then its blocks are
/// rewritten, which makes that writer's write fail and it read its handle again, and only then the handle goes. Where
/// a block turns out to hold something, the mark is taken back.
async fn remove_handle(store: &dyn Datastore, name: &str, version: &str) -> Result<bool, Error> {
    let Some(object) = store.get(Kind::IPAMHandle, name).await? else { return Ok(false) };
    if object.metadata.resource_version.as_deref() != Some(version) {
        return Ok(false);
    }
    let marked = handle::mark(store, Handle { spec: object.spec()?, object }, true).await?;
    for cidr in handle::blocks(&marked.spec) {
        if !is_shut_out(store, &marked.spec.handle_id, cidr).await? {
            handle::mark(store, marked.clone(), false).await?;
            return Ok(false);
        }
    }
    delete(store, &marked.object).await?;
    Ok(true)
}

/// Rewrites a block in which `handle` holds nothing; `false` when it holds something, or nobody can tell.
async fn is_shut_out(store: &dyn Datastore, handle: &str, cidr: IpNet) -> Result<bool, Error> {
    for _ in 0..TRIES {
        let block = match read_block(store, cidr).await {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(true),
            Err(Error::Datastore(StoreError::Invalid(_))) => return Ok(false),
            Err(error) => return Err(error),
        };
        if addresses_of(&block.spec, handle).next().is_some() {
            return Ok(false);
        }
        match bump(store, block).await {
            Ok(_) => return Ok(true),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::contention(format!("IPAMBlock {cidr}")))
}
