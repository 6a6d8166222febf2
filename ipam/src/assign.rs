//! Giving out addresses: a batch of requests, one write of a block.

use std::collections::BTreeSet;
use std::time::SystemTime;

use ipnet::IpNet;
use manx_datastore::{Datastore, Only};
use manx_model::{BlockSpec, IpPool, IpamConfigSpec, Kind};

use crate::affinity::{Claimant, Mended, bump};
use crate::batch::Batch;
use crate::block::{self, Block};
use crate::choose::{Taken, candidates, serves};
use crate::{Allocator, AssignRequest, Assigned, Error, TRIES};

/// Blocks that one node may own where IPAMConfig says 0 (Calico's number).
const DEFAULT_MAX_BLOCKS: usize = 20;

/// How often a batch goes on after a write whose fate is unknown.
const MAX_UNKNOWN: usize = 3;

impl Allocator {
    /// Gives an address to each handle, answering in the order of `requests`. A handle that holds an address already,
    /// anywhere, is given the same one. All requests that fit one block share one write of it.
    ///
    /// `pools` do not overlap (see [`crate::check_overlaps`]), are tried in their order, and are those that may be used for
    /// these requests; disabled ones are skipped.
    ///
    /// # Errors
    /// For each request its own. After [`manx_datastore::Error::Unavailable`] the address may have been given nevertheless:
    /// ask again, or release the handle.
    pub async fn assign(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        pools: &[IpPool],
        config: &IpamConfigSpec,
        requests: &[AssignRequest],
    ) -> Vec<Result<Assigned, Error>> {
        let mut batch = Batch::new(requests);
        let door = Door { store, now, pools, config };
        if let Err(error) = self.assign_batch(door, &mut batch).await {
            batch.fail_open(&error);
        }
        batch.undo_handles(store).await;
        batch.answers()
    }

    async fn assign_batch(&mut self, door: Door<'_>, batch: &mut Batch<'_>) -> Result<(), Error> {
        self.ensure_loaded(door.store, door.now).await?;
        self.reread_held(door, batch).await?;
        for _ in 0..TRIES {
            self.answer_held(batch);
            let mut open = batch.open();
            if open.is_empty() {
                return Ok(());
            }
            let (cidr, free) = match self.block_with_space(door) {
                Some(found) => found,
                None if batch.find_elsewhere(door.store).await => continue,
                None => self.claim_another(door).await?,
            };
            open.truncate(free);
            let ready = batch.prepare_handles(door.store, &open, cidr).await;
            if !ready.is_empty() {
                self.write_block(door, cidr, batch, &ready).await?;
            }
        }
        Err(Error::contention(format!("a block of node {}", self.node)))
    }

    /// What is remembered of a handle may have been released by somebody else since: look again before repeating it.
    async fn reread_held(&mut self, door: Door<'_>, batch: &Batch<'_>) -> Result<(), Error> {
        let held = batch.open().into_iter().filter_map(|index| self.held_by(&batch.requests[index].handle));
        let blocks: BTreeSet<IpNet> = held.map(|assigned| assigned.block).collect();
        for cidr in blocks {
            self.reread(door.store, door.now, cidr).await?;
        }
        Ok(())
    }

    fn answer_held(&self, batch: &mut Batch<'_>) {
        for (request, answer) in batch.requests.iter().zip(&mut batch.answers) {
            if answer.is_none() {
                *answer = self.held_by(&request.handle).map(Ok);
            }
        }
    }

    /// The first block of ours with a free address, pool by pool, and how many it has.
    fn block_with_space(&self, door: Door<'_>) -> Option<(IpNet, usize)> {
        door.pools.iter().find_map(|pool| {
            self.blocks.iter().filter(|(cidr, _)| serves(pool, **cidr)).find_map(|(cidr, block)| {
                let free = block::free(&block.spec, door.now, door.config.ip_cooldown_seconds);
                (free > 0).then_some((*cidr, free))
            })
        })
    }

    async fn write_block(
        &mut self,
        door: Door<'_>,
        cidr: IpNet,
        batch: &mut Batch<'_>,
        ready: &[usize],
    ) -> Result<(), Error> {
        let Some(block) = self.blocks.get(&cidr) else { return Ok(()) };
        let mut spec = block.spec.clone();
        block::collect(&mut spec, door.now, door.config.ip_cooldown_seconds);
        for index in ready {
            block::allocate(&mut spec, &batch.attribute(*index));
        }
        match self.write(door.store, cidr, spec).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_conflict() => self.reread(door.store, door.now, cidr).await,
            Err(error) => {
                // The write may have happened: nothing is taken back before the block has been seen.
                let reread = match error.is_unavailable() && batch.unknown < MAX_UNKNOWN {
                    true => self.reread(door.store, door.now, cidr).await,
                    false => Err(error.clone()),
                };
                batch.unknown += 1;
                if self.unreadable.contains(&cidr) {
                    batch.prepared.clear();
                }
                reread.map_err(|_| {
                    batch.prepared.clear();
                    self.loaded = false;
                    error
                })
            }
        }
    }

    /// Claims one more block; it has free addresses.
    async fn claim_another(&mut self, door: Door<'_>) -> Result<(IpNet, usize), Error> {
        self.may_claim(door)?;
        let taken = self.taken(door.store).await?;
        let claimant = Claimant { store: door.store, node: &self.node, now: door.now };
        for pool in door.pools.iter().filter(|pool| !pool.disabled) {
            for cidr in candidates(pool, &self.node).filter(|cidr| !taken.overlaps(*cidr)) {
                // Whoever drops us now leaves a claim behind of which we do not know.
                self.loaded = false;
                let claimed = claimant.claim(cidr).await?;
                self.loaded = true;
                if let Some(block) = claimed {
                    let free = block::free(&block.spec, door.now, door.config.ip_cooldown_seconds);
                    self.blocks.insert(cidr, block);
                    return Ok((cidr, free));
                }
            }
        }
        let (node, pools) = (self.node.clone(), door.pool_names());
        Err(match door.config.strict_affinity {
            true => Error::StrictAffinity { node, pools },
            false => Error::PoolsExhausted { node, pools },
        })
    }

    fn may_claim(&self, door: Door<'_>) -> Result<(), Error> {
        let node = || self.node.clone();
        let limit = match door.config.max_blocks_per_host {
            0 => DEFAULT_MAX_BLOCKS,
            limit => limit as usize,
        };
        if door.pools.iter().all(|pool| pool.disabled) {
            Err(Error::NoPool { node: node() })
        } else if !door.config.auto_allocate_blocks {
            Err(Error::AutoAllocateBlocks { node: node() })
        } else if self.blocks.len() + self.unreadable.len() >= limit {
            Err(Error::BlockLimit { node: node(), limit })
        } else {
            Ok(())
        }
    }

    /// One list of all blocks, those that cannot be read included: their addresses may be in use.
    async fn taken(&self, store: &dyn Datastore) -> Result<Taken, Error> {
        let mut taken = Taken::default();
        for listed in store.list(Kind::IPAMBlock, &Only::All).await? {
            match listed.and_then(|object| Ok((object.spec::<BlockSpec>()?, object))) {
                Ok((spec, _)) if spec.deleted => {}
                Ok((spec, object)) => {
                    taken.add_name(object.name());
                    taken.add(spec.cidr);
                }
                Err(invalid) => taken.add_name(invalid.name),
            }
        }
        Ok(taken)
    }

    /// Writes a block of ours by compare-and-swap with what we remember of it.
    pub(crate) async fn write(
        &mut self,
        store: &dyn Datastore,
        cidr: IpNet,
        spec: BlockSpec,
    ) -> Result<(), Error> {
        let Some(block) = self.blocks.get(&cidr) else { return Ok(()) };
        let written = bump(store, Block { object: block.object.clone(), spec }).await?;
        self.blocks.insert(cidr, written);
        Ok(())
    }

    /// Reads one of our blocks again; one that is no longer ours is forgotten.
    pub(crate) async fn reread(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        cidr: IpNet,
    ) -> Result<(), Error> {
        let mended = self.mend(store, now, cidr).await?;
        self.blocks.remove(&cidr);
        match mended {
            Mended::Ours(block) => {
                self.blocks.insert(cidr, *block);
            }
            Mended::Unreadable(_) => {
                self.unreadable.insert(cidr);
            }
            Mended::Nothing => {}
        }
        Ok(())
    }
}

/// What a batch is carried out with.
#[derive(Clone, Copy)]
struct Door<'a> {
    store: &'a dyn Datastore,
    now: SystemTime,
    pools: &'a [IpPool],
    config: &'a IpamConfigSpec,
}

impl Door<'_> {
    fn pool_names(&self) -> Vec<String> {
        self.pools.iter().filter(|pool| !pool.disabled).map(|pool| pool.name.clone()).collect()
    }
}
