//! Giving addresses back: by handle, and what a crash has left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use futures::future::join_all;
use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError, Only};
use manx_model::{AllocationAttribute, HandleSpec, IpamConfigSpec, Kind};

use crate::affinity::{bump, read_block};
use crate::block::{self, Block, addresses_of};
use crate::handle::{self, Handle};
use crate::{Allocator, Error, SweepReport, TRIES};

/// How often a release goes on after a write whose fate is unknown.
const MAX_UNKNOWN: usize = 3;

impl Allocator {
    /// Releases all addresses of each handle, answering in the order of `handles`; an unknown handle has none. All
    /// handles of one block share one write of it.
    ///
    /// # Errors
    /// For each handle its own. The release can be asked for again.
    pub async fn release(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        config: &IpamConfigSpec,
        handles: &[String],
    ) -> Vec<Result<Vec<IpAddr>, Error>> {
        if let Err(error) = self.ensure_loaded(store, now).await {
            return handles.iter().map(|_| Err(error.clone())).collect();
        }
        let mut answers: BTreeMap<&str, Result<Vec<IpAddr>, Error>> = BTreeMap::new();
        let mut by_block: BTreeMap<IpNet, BTreeSet<&str>> = BTreeMap::new();
        let stored = join_all(handles.iter().map(|handle| handle::read(store, handle))).await;
        for (handle, stored) in handles.iter().zip(stored) {
            let answer = self.blocks_of(handle, stored).map(|blocks| {
                blocks.into_iter().for_each(|cidr| {
                    by_block.entry(cidr).or_default().insert(handle);
                });
                Vec::new()
            });
            answers.insert(handle, answer);
        }
        for (cidr, handles) in by_block {
            self.release_from(store, now, config, cidr, &handles, &mut answers).await;
        }
        handles.iter().map(|handle| answers.get(handle.as_str()).cloned().unwrap_or(Ok(Vec::new()))).collect()
    }

    /// Where `handle` may hold addresses: what its object says, and what we remember. A damaged object counts as none.
    fn blocks_of(&self, handle: &str, stored: Result<Option<Handle>, Error>) -> Result<Vec<IpNet>, Error> {
        let stored = match stored {
            Err(Error::Datastore(StoreError::Invalid(_))) => None,
            stored => stored?,
        };
        let named = stored.iter().flat_map(|stored| handle::blocks(&stored.spec));
        let remembered =
            self.blocks.iter().filter(|(_, block)| addresses_of(&block.spec, handle).next().is_some());
        Ok(named.chain(remembered.map(|(cidr, _)| *cidr)).collect())
    }

    async fn release_from<'h>(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        config: &IpamConfigSpec,
        cidr: IpNet,
        handles: &BTreeSet<&'h str>,
        answers: &mut BTreeMap<&'h str, Result<Vec<IpAddr>, Error>>,
    ) {
        let released = self.release_block(store, now, config.ip_cooldown_seconds, cidr, handles).await;
        let forgotten = match &released {
            Ok(_) => join_all(handles.iter().map(|handle| handle::forget(store, handle, cidr))).await,
            Err(error) => handles.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut released = released.unwrap_or_default();
        for (handle, forgotten) in handles.iter().zip(forgotten) {
            let Some(answer) = answers.get_mut(handle) else { continue };
            match (forgotten, &mut *answer) {
                (Err(error), _) => *answer = Err(error),
                (Ok(()), Ok(addresses)) => addresses.extend(released.remove(handle).unwrap_or_default()),
                (Ok(()), Err(_)) => {}
            }
        }
    }

    /// Takes the addresses of `handles` back in one write of the block, whoever owns it.
    async fn release_block<'h>(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        cooldown: u32,
        cidr: IpNet,
        handles: &BTreeSet<&'h str>,
    ) -> Result<BTreeMap<&'h str, Vec<IpAddr>>, Error> {
        let mut released: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        let mut unknown = 0;
        // What we remember serves for a first try, if it has all that is to be released; it may be old, not new.
        let holds =
            |block: &&Block| handles.iter().all(|handle| addresses_of(&block.spec, handle).next().is_some());
        let mut remembered = self.blocks.get(&cidr).filter(holds).cloned();
        for _ in 0..TRIES {
            let block = match remembered.take() {
                Some(block) => block,
                None => match self.read_again(store, cidr).await? {
                    Some(block) => block,
                    None => return Ok(released),
                },
            };
            let mut spec = block.spec.clone();
            let freed: BTreeMap<&str, Vec<IpAddr>> = handles
                .iter()
                .map(|handle| (*handle, block::release(&mut spec, handle, now, cooldown)))
                .filter(|(_, addresses)| !addresses.is_empty())
                .collect();
            if freed.is_empty() {
                return Ok(released);
            }
            released = freed;
            match bump(store, Block { object: block.object, spec }).await {
                Ok(written) => {
                    self.remember(cidr, written);
                    return Ok(released);
                }
                Err(error) if error.is_conflict() => {}
                Err(error) if error.is_unavailable() && unknown < MAX_UNKNOWN => unknown += 1,
                Err(error) => return Err(error),
            }
        }
        Err(Error::contention(format!("block {cidr}")))
    }

    /// The block as it is stored, which is also what we remember from now on if it is ours.
    async fn read_again(&mut self, store: &dyn Datastore, cidr: IpNet) -> Result<Option<Block>, Error> {
        let stored = read_block(store, cidr).await?;
        match &stored {
            Some(block) => self.remember(cidr, block.clone()),
            None => self.forget_block(cidr),
        }
        Ok(stored)
    }

    /// Takes in a newer version of a block of ours; one that is no longer ours is forgotten.
    fn remember(&mut self, cidr: IpNet, block: Block) {
        if !self.blocks.contains_key(&cidr) {
            return;
        }
        match block.spec.affinity.as_deref() == Some(&block::owner(&self.node)) {
            true => drop(self.blocks.insert(cidr, block)),
            false => self.forget_block(cidr),
        }
    }

    /// The next call that needs our blocks looks at what became of this one.
    fn forget_block(&mut self, cidr: IpNet) {
        if self.blocks.remove(&cidr).is_some() {
            self.loaded = false;
        }
    }

    /// Releases what this node holds and `keep` refuses (left behind by crashes), and the handles that name this node's
    /// blocks, or blocks that do not exist, and hold nothing there.
    ///
    /// # Errors
    /// The first that stopped it; what was done before stays done, and it can be repeated.
    pub async fn sweep(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        config: &IpamConfigSpec,
        keep: impl Fn(&str, &AllocationAttribute) -> bool,
    ) -> Result<SweepReport, Error> {
        self.ensure_loaded(store, now).await?;
        let left: BTreeSet<String> = self
            .allocations()
            .filter(|(_, handle, attribute)| !keep(handle, attribute))
            .map(|(_, handle, _)| handle.to_owned())
            .collect();
        let left: Vec<String> = left.into_iter().collect();
        let mut report = SweepReport::default();
        for (handle, released) in left.iter().zip(self.release(store, now, config, &left).await) {
            report.released.extend(released?.into_iter().map(|address| (address, handle.clone())));
        }
        report.dangling = self.sweep_handles(store).await?;
        Ok(report)
    }

    async fn sweep_handles(&mut self, store: &dyn Datastore) -> Result<Vec<String>, Error> {
        let mut dangling: BTreeMap<IpNet, Vec<Handle>> = BTreeMap::new();
        for object in store.list(Kind::IPAMHandle, &Only::All).await?.into_iter().flatten() {
            let Ok(spec) = object.spec::<HandleSpec>() else { continue };
            let name = object.name().to_owned();
            if spec.deleted {
                handle::read(store, &name).await?;
                continue;
            }
            for cidr in handle::blocks(&spec) {
                dangling.entry(cidr).or_default().push(Handle { object: object.clone(), spec: spec.clone() });
            }
        }
        let mut swept = Vec::new();
        for (cidr, handles) in dangling {
            self.sweep_handles_of(store, cidr, handles, &mut swept).await?;
        }
        swept.sort();
        swept.dedup();
        Ok(swept)
    }

    /// Removes the entries of `handles` for `cidr` that have nothing behind them. A writer may stand between its handle and
    /// its block: the block is rewritten first, which makes that writer's own write of it fail (CALICO.md 2.7 does the
    /// same), and only a handle that is still the version that was listed before is touched.
    async fn sweep_handles_of(
        &mut self,
        store: &dyn Datastore,
        cidr: IpNet,
        handles: Vec<Handle>,
        swept: &mut Vec<String>,
    ) -> Result<(), Error> {
        let ours = self.blocks.contains_key(&cidr);
        let empty = |block: &Block, handle: &Handle| {
            addresses_of(&block.spec, &handle.spec.handle_id).next().is_none()
        };
        let remembered = self.blocks.get(&cidr);
        if remembered.is_some_and(|block| !handles.iter().any(|handle| empty(block, handle))) {
            return Ok(());
        }
        let block = match read_block(store, cidr).await {
            Ok(Some(_)) if !ours => return Ok(()),
            Ok(Some(block)) if handles.iter().any(|handle| empty(&block, handle)) => {
                match bump(store, block).await {
                    Ok(block) => Some(block),
                    Err(error) if error.is_conflict() => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            Ok(None) => None,
            Ok(Some(_)) | Err(Error::Datastore(StoreError::Invalid(_))) => return Ok(()),
            Err(error) => return Err(error),
        };
        for handle in handles {
            if block.as_ref().is_some_and(|block| !empty(block, &handle)) {
                continue;
            }
            let name = handle.object.name().to_owned();
            match handle::remove(store, handle, cidr).await {
                Ok(()) => swept.push(name),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(block) = block {
            self.remember(cidr, block);
        }
        Ok(())
    }
}
