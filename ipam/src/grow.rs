//! When the blocks at hand are full: a new block, an empty one of another node, or a loan (CALICO: `autoAssign`).
//!
//! All of it works on one list of all blocks for each batch; nothing of it happens while a block of ours has space.

use std::net::IpAddr;

use futures::future::join_all;
use ipnet::IpNet;

use crate::affinity::{Claimant, read_block};
use crate::assign::Door;
use crate::batch::Batch;
use crate::block::{self, Block};
use crate::choose::{block_of, candidates};
use crate::view::{View, reclaimable};
use crate::{Allocator, Error, Family, handle, pools};

/// Blocks that one node may own where IPAMConfig says 0 (Calico's number).
const DEFAULT_MAX_BLOCKS: usize = 20;

impl Allocator {
    /// Brings a block to hand from which `item` can be served, or finds that something is held already, or says why neither.
    pub(crate) async fn grow(
        &mut self,
        door: Door<'_>,
        batch: &mut Batch<'_>,
        item: usize,
    ) -> Result<(), Error> {
        let (pools, fixed) = (batch.items[item].pools.clone(), batch.fixed(item));
        let first = !std::mem::replace(&mut batch.looked, true);
        if first {
            self.release_unselected(door).await?;
        }
        let refusal = match &pools {
            Err(error) => Some(error.clone()),
            Ok(_) if fixed.is_some() => None,
            Ok(pools) => self.refusal(door, pools),
        };
        // What is held or free already must not cost a block, nor an error.
        if first && self.look_again(door, batch, refusal.is_none() && fixed.is_none()).await? {
            return Ok(());
        }
        match (fixed, refusal) {
            (None, Some(refusal)) => match pools {
                Ok(pools) if self.spend_reserve(door, &pools).await? => Ok(()),
                _ => Err(refusal),
            },
            (Some(_), Some(refusal)) => Err(refusal),
            (None, None) => self.grow_in(door, batch, &pools?).await,
            (Some(address), None) => {
                let pools = pools?;
                if self.reserves(address) && self.spend_reserve(door, &pools).await? {
                    return Ok(());
                }
                let pool = pools.first().map(|index| &door.rules.pools[*index]);
                let cidr = pool.map_or(address.into(), |pool| block_of(pool, address));
                self.grow_to(door, batch, cidr, address).await
            }
        }
    }

    /// Why there is no use in looking at all blocks.
    fn refusal(&self, door: Door<'_>, pools: &[usize]) -> Option<Error> {
        let config = door.rules.config;
        let limit = match config.max_blocks_per_host {
            0 => DEFAULT_MAX_BLOCKS,
            limit => limit as usize,
        };
        let family = pools.first().map(|index| Family::of(door.rules.pools[*index].cidr));
        let owned = self.blocks.keys().chain(&self.unreadable);
        if !config.auto_allocate_blocks && config.strict_affinity {
            Some(Error::AutoAllocateBlocks { node: self.node.clone() })
        } else if owned.filter(|block| Some(Family::of(**block)) == family).count() >= limit {
            Some(Error::BlockLimit { node: self.node.clone(), limit })
        } else {
            None
        }
    }

    /// Whether an open request holds something that is not remembered, or our blocks have changed: by the list of all blocks
    /// where that is needed anyway, else handle by handle and block by block.
    async fn look_again(&mut self, door: Door<'_>, batch: &mut Batch<'_>, list: bool) -> Result<bool, Error> {
        let (mut found, mut ours) = (Vec::new(), Vec::new());
        if list {
            let view = View::read(door.store).await?;
            for request in batch.open_requests() {
                found.push((request, view.held_by(batch.handle(request)).cloned().collect::<Vec<_>>()));
            }
            ours.extend(self.blocks.keys().filter_map(|cidr| view.block(*cidr)).cloned());
            batch.view = Some(view);
        } else {
            for request in batch.open_requests() {
                let Some(stored) = handle::read(door.store, batch.handle(request)).await? else { continue };
                found.push((request, handle::holdings(door.store, &stored.spec).await?));
            }
            let reads = self.blocks.keys().map(|cidr| read_block(door.store, *cidr));
            ours.extend(join_all(reads).await.into_iter().flatten().flatten());
        }
        let mut any = false;
        for (request, blocks) in found {
            if batch.learns(request, &blocks, &self.held_by(batch.handle(request))) {
                any = true;
                self.take_in_elsewhere(batch, request, blocks);
            }
        }
        for block in ours {
            let newer = |old: &Block| old.spec.sequence_number < block.spec.sequence_number;
            if self.blocks.get(&block.spec.cidr).is_some_and(newer) {
                any = true;
                self.remember(block);
            }
        }
        Ok(any)
    }

    /// A new block, or one to borrow from.
    async fn grow_in(&mut self, door: Door<'_>, batch: &mut Batch<'_>, pools: &[usize]) -> Result<(), Error> {
        let view = match batch.view.take() {
            Some(view) => view,
            None => View::read(door.store).await?,
        };
        let view = batch.view.insert(view);
        if door.rules.config.auto_allocate_blocks
            && (self.claim_new(door, view, pools).await? || self.reclaim(door, view, pools).await?)
        {
            return Ok(());
        }
        // A borrowed address costs every node a route: what is held back comes first.
        if self.spend_reserve(door, pools).await? {
            return Ok(());
        }
        let (node, names) = (self.node.clone(), door.names(pools));
        if door.rules.config.strict_affinity {
            return Err(Error::StrictAffinity { node, pools: names });
        }
        match self.lender(door, batch, pools) {
            Some(block) => drop(batch.lent.insert(block.spec.cidr, block)),
            None => return Err(Error::PoolsExhausted { node, pools: names }),
        }
        Ok(())
    }

    /// Claims the first block of the pools that is not there, and not reserved as a whole.
    async fn claim_new(&mut self, door: Door<'_>, view: &mut View, pools: &[usize]) -> Result<bool, Error> {
        for pool in pools.iter().map(|index| &door.rules.pools[*index]) {
            let usable = |cidr: &IpNet| block::gives_any(*cidr, door.rules.reserved);
            for cidr in candidates(pool, &self.node).filter(usable) {
                if !view.overlaps(cidr) && self.claim(door, view, cidr).await? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Takes an empty block from a node that does not seem to need it.
    async fn reclaim(&mut self, door: Door<'_>, view: &mut View, pools: &[usize]) -> Result<bool, Error> {
        for pool in pools.iter().map(|index| &door.rules.pools[*index]) {
            let empty: Vec<_> = view
                .of_others(pool, &self.node)
                .into_iter()
                .filter_map(|block| Some((reclaimable(&block.spec, door.now)?, block.clone())))
                .filter(|(_, block)| door.free(block) > 0)
                .collect();
            for (node, block) in empty {
                let (cidr, owner) =
                    (block.spec.cidr, Claimant { store: door.store, node: &node, now: door.now });
                if owner.release(cidr, Some(block.spec.sequence_number)).await?
                    && self.claim(door, view, cidr).await?
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn claim(&mut self, door: Door<'_>, view: &mut View, cidr: IpNet) -> Result<bool, Error> {
        let claimant = Claimant { store: door.store, node: &self.node, now: door.now };
        // Whoever drops us now leaves a claim behind of which we do not know.
        self.loaded = false;
        let claimed = claimant.claim(cidr).await?;
        self.loaded = true;
        view.add(cidr);
        let Some(block) = claimed else { return Ok(false) };
        let usable = door.free(&block) > 0;
        self.foreign.remove(&cidr);
        self.blocks.insert(cidr, block);
        Ok(usable)
    }

    /// The next block of others that has something to give.
    fn lender(&self, door: Door<'_>, batch: &Batch<'_>, pools: &[usize]) -> Option<Block> {
        let view = batch.view.as_ref()?;
        let pools = pools.iter().map(|index| &door.rules.pools[*index]);
        let mut blocks = pools.flat_map(|pool| view.of_others(pool, &self.node));
        let found = blocks.find(|block| {
            let cidr = block.spec.cidr;
            !batch.lent.contains_key(&cidr)
                && !self.blocks.contains_key(&cidr)
                && door.free(self.remembered(cidr).unwrap_or(block)) > 0
        });
        found.cloned()
    }

    /// Brings the block to hand that a named address is in: it is claimed where there is none, else borrowed from.
    async fn grow_to(
        &mut self,
        door: Door<'_>,
        batch: &mut Batch<'_>,
        cidr: IpNet,
        address: IpAddr,
    ) -> Result<(), Error> {
        let config = door.rules.config;
        let found = match read_block(door.store, cidr).await? {
            Some(found) => Some(found),
            None => {
                let view = View::read(door.store).await?;
                let other_size = view.containing(address).cloned();
                if other_size.is_none() && view.overlaps(cidr) {
                    let reason =
                        format!("its block {cidr} overlaps another, which cannot be read or is smaller");
                    return Err(Error::FixedAddress { address, reason });
                }
                batch.view = Some(view);
                other_size
            }
        };
        let node = || self.node.clone();
        match found {
            Some(block) if (Claimant { store: door.store, node: &self.node, now: door.now }).owns(&block) => {
                // It is ours, and we do not know it: a claim that was left half done, perhaps.
                self.loaded = false;
                self.ensure_loaded(door.store, door.now).await
            }
            Some(_) if config.strict_affinity => {
                Err(Error::StrictAffinity { node: node(), pools: Vec::new() })
            }
            Some(block) => {
                batch.lent.insert(block.spec.cidr, block);
                Ok(())
            }
            None if !config.auto_allocate_blocks => Err(Error::AutoAllocateBlocks { node: node() }),
            None => {
                let mut view = batch.view.take().unwrap_or_default();
                let claimed = self.claim(door, &mut view, cidr).await;
                batch.view = Some(view);
                claimed.map(drop)
            }
        }
    }

    /// Gives up our empty blocks in pools that no longer select this node.
    async fn release_unselected(&mut self, door: Door<'_>) -> Result<(), Error> {
        let unselected = |cidr: &IpNet| {
            let pool = door.rules.pools.iter().find(|pool| pool.cidr.contains(cidr));
            pool.is_some_and(|pool| !pools::selects_node(pool, door.rules.node_labels))
        };
        let idle =
            self.blocks.iter().filter(|(cidr, block)| unselected(cidr) && block::is_empty(&block.spec));
        let idle: Vec<IpNet> = idle.map(|(cidr, _)| *cidr).collect();
        for cidr in idle {
            let claimant = Claimant { store: door.store, node: &self.node, now: door.now };
            self.loaded = false;
            let released = claimant.release(cidr, None).await?;
            self.loaded = true;
            if released {
                self.blocks.remove(&cidr);
            }
        }
        Ok(())
    }
}

impl Door<'_> {
    fn names(&self, pools: &[usize]) -> Vec<String> {
        pools.iter().map(|index| self.rules.pools[*index].name.clone()).collect()
    }
}
