//! Writing what was given before it was written: while the datastore was away (see [`crate::away`]), or ahead (see
//! [`crate::ahead`]).
//!
//! An address goes from whoever of this node holds it (its reserve, an earlier container of the pod) to the handle that it
//! was promised to in one write of its block, and is never free in between. What comes from the reserve is written
//! together first: each block once, with as many free addresses held back again, and all handles at once, as new ones.
//! Where that was wrong, and for everything else, what is stored is read before it is written. What a handle holds beside,
//! since a write before the absence came through after all, is released.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use futures::future::{join, join_all};
use ipnet::IpNet;
use manx_datastore::Datastore;
use manx_model::{AllocationAttribute, RESERVE};

use crate::affinity::bump;
use crate::assign::Door;
use crate::away::{Promise, is_same_pod};
use crate::block::{self, Block};
use crate::choose::block_of;
use crate::handle::{self, Handle, Prepared};
use crate::{Allocator, Error, Rules, TRIES};

/// A promise that cannot be kept: IPAM gives the address to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Who was given the address.
    pub handle: String,
    /// The address.
    pub address: IpAddr,
    /// Who has it by IPAM.
    pub holder: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handle, address, holder } = self;
        write!(
            f,
            "{handle} was given {address} before that was written, and {holder} has it by IPAM: \
             delete one of the two pods"
        )
    }
}

impl Allocator {
    /// Writes everything that was promised. Handles in `gone` have ended: what they hold may be written over. What
    /// cannot be written is returned, stays promised, and is tried again by the next call.
    ///
    /// # Errors
    /// [`Error::Datastore`], [`Error::Contention`]: do not release what [`Self::promised`] still names before it was repeated
    /// with success. One that cannot be written does not stop the rest, unless the datastore is away.
    pub async fn redeem(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        rules: Rules<'_>,
        gone: &BTreeSet<String>,
    ) -> Result<Vec<Broken>, Error> {
        let door = Door { store, now, rules };
        self.redeem_together(door).await?;
        let (mut broken, mut failed) = (Vec::new(), None);
        for (handle, promise) in self.away.promises.clone() {
            self.reserve_settled = false;
            if let Some(promise) = self.away.promises.get_mut(&handle) {
                promise.asked = true;
            }
            match self.redeem_one(door, &handle, &promise, gone).await {
                Ok(None) => drop(self.away.promises.remove(&handle)),
                Ok(Some(found)) => broken.push(found),
                Err(error) if error.is_unavailable() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) => return Err(error),
            None if broken.is_empty() => self.end_of_absence(),
            None => {}
        }
        Ok(broken)
    }

    /// Writes what was promised of the reserve and has not been asked for yet.
    async fn redeem_together(&mut self, door: Door<'_>) -> Result<(), Error> {
        match self.begin_to_redeem(door.now, door.rules) {
            Some(redeeming) => {
                let outcome = redeeming.write(door.store).await;
                self.redeemed(outcome).map(drop)
            }
            None => Ok(()),
        }
    }

    /// The write of what was promised of the reserve and has not been asked for yet, if there is any. While it is under way
    /// nothing but [`Self::assign_ahead`] is to be called; what came of it is to be told to [`Self::redeemed`].
    pub fn begin_to_redeem(&mut self, now: SystemTime, rules: Rules<'_>) -> Option<Redeeming> {
        let redeeming = self.redeeming(now, rules);
        if redeeming.handles.is_empty() {
            return None;
        }
        for handle in redeeming.handles.keys() {
            if let Some(promise) = self.away.promises.get_mut(handle) {
                promise.asked = true;
            }
        }
        self.away.writing = redeeming.blocks.iter().map(|block| block.spec.cidr).collect();
        self.away.written.retain(|written| !self.away.writing.contains(written));
        Some(redeeming)
    }

    /// Takes in what came of a write; `true` if all of it came through. What did not stays promised.
    ///
    /// # Errors
    /// The datastore is away.
    pub fn redeemed(&mut self, Redeemed { blocks, handles }: Redeemed) -> Result<bool, Error> {
        self.away.writing.clear();
        let (mut unwritten, mut whole, mut away) = (BTreeSet::new(), true, None);
        for (cidr, written) in blocks {
            match written {
                Ok(block) => {
                    self.away.written.insert(cidr);
                    self.remember(block);
                }
                Err(error) => {
                    unwritten.insert(cidr.to_string());
                    away = away.or(error.is_unavailable().then_some(error));
                }
            }
        }
        for (handle, counts, created) in handles {
            match created {
                Ok(Some(stored)) if counts.keys().all(|cidr| !unwritten.contains(cidr)) => {
                    self.away.promises.remove(&handle);
                    self.handles.insert(handle, stored);
                    continue;
                }
                Err(error) if error.is_unavailable() => away = Some(error),
                _ => {}
            }
            whole = false;
        }
        match away {
            Some(error) => Err(error),
            None => Ok(whole),
        }
    }

    /// What is held back in the blocks of this node, as far as is remembered, in the hands of those it was promised to.
    fn redeeming(&mut self, now: SystemTime, rules: Rules<'_>) -> Redeeming {
        let mut blocks: BTreeMap<IpNet, Block> = BTreeMap::new();
        let mut handles = BTreeMap::new();
        for (handle, promise) in self.away.promises.iter().filter(|(_, promise)| !promise.asked) {
            let Some(places) = self.held_back_of(promise) else { continue };
            let counts: &mut Counts = handles.entry(handle.clone()).or_default();
            for (cidr, ordinal) in places {
                let block = blocks.entry(cidr).or_insert_with(|| self.blocks[&cidr].clone());
                block::hand_over(&mut block.spec, &[ordinal], &promise.holder(handle));
                *counts.entry(cidr.to_string()).or_default() += 1;
            }
        }
        let held_back = self.holder(RESERVE);
        for (cidr, block) in &mut blocks {
            let given = self.reserved_in(&self.blocks[cidr]).count() - self.reserved_in(block).count();
            block::collect(&mut block.spec, now, rules.config.ip_cooldown_seconds);
            let hold_back = |_| block::allocate(&mut block.spec, &held_back, rules.reserved);
            if (0..given).map_while(hold_back).count() < given {
                self.reserve_settled = false;
            }
        }
        Redeeming { blocks: blocks.into_values().collect(), handles }
    }

    /// Where the addresses of a promise are, if each is held back in a block of this node.
    fn held_back_of(&self, promise: &Promise) -> Option<Vec<(IpNet, usize)>> {
        let place = |address: &IpAddr| {
            let (cidr, block) = self.blocks.iter().find(|(cidr, _)| cidr.contains(address))?;
            let (ordinal, _) = self.reserved_in(block).find(|(_, held)| held == address)?;
            Some((*cidr, ordinal))
        };
        promise.addresses.iter().map(place).collect()
    }

    async fn redeem_one(
        &mut self,
        door: Door<'_>,
        handle: &str,
        promise: &Promise,
        gone: &BTreeSet<String>,
    ) -> Result<Option<Broken>, Error> {
        // What was remembered of it is from before.
        self.handles.remove(handle);
        for _ in 0..TRIES {
            let stored = handle::read(door.store, handle).await?;
            let change = match self.change_for(door, handle, promise, gone, stored.as_ref()).await? {
                Ok(change) => change,
                Err(broken) => return Ok(Some(broken)),
            };
            match self.write_change(door, handle, stored, change).await {
                Ok(true) => return Ok(None),
                Ok(false) => {}
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::contention(format!("the blocks of handle {handle}")))
    }

    /// The blocks as they are to be written, decided by what is stored now.
    async fn change_for(
        &mut self,
        door: Door<'_>,
        handle: &str,
        promise: &Promise,
        gone: &BTreeSet<String>,
        stored: Option<&Handle>,
    ) -> Result<Result<Change, Broken>, Error> {
        let mut change = Change::default();
        let named: BTreeSet<IpNet> = stored.iter().flat_map(|stored| handle::blocks(&stored.spec)).collect();
        let own = promise.addresses.iter().filter_map(|address| self.block_for(door, *address));
        let cidrs: BTreeSet<IpNet> = own.chain(named).collect();
        let mut left: BTreeSet<IpAddr> = promise.addresses.iter().copied().collect();
        let holder = promise.holder(handle);
        for cidr in cidrs {
            let Some(mut block) = self.read_again(door.store, cidr).await? else { continue };
            let before = block.spec.clone();
            let cooldown = door.rules.config.ip_cooldown_seconds;
            let surplus: Vec<usize> = block::addresses_of(&block.spec, handle)
                .filter(|(_, address)| !promise.addresses.contains(address))
                .map(|(ordinal, _)| ordinal)
                .collect();
            block::release_ordinals(&mut block.spec, &surplus, door.now, cooldown);
            for address in &promise.addresses {
                if !cidr.contains(address) {
                    continue;
                }
                if let Some(broken) = self.take_over(&mut block, handle, &holder, *address, gone) {
                    return Ok(Err(broken));
                }
                left.remove(address);
                *change.counts.entry(cidr.to_string()).or_default() += 1;
            }
            if block.spec != before {
                change.blocks.push(block);
            }
        }
        Ok(match left.pop_first() {
            None => Ok(change),
            Some(address) => {
                let holder = "nobody's block".to_owned();
                Err(Broken { handle: handle.to_owned(), address, holder })
            }
        })
    }

    /// The block of an address: one that is remembered, else the one that its pool says.
    fn block_for(&self, door: Door<'_>, address: IpAddr) -> Option<IpNet> {
        let known = self.blocks.keys().chain(self.foreign.keys()).find(|cidr| cidr.contains(&address));
        known.copied().or_else(|| {
            let pool = door.rules.pools.iter().find(|pool| pool.contains(address))?;
            Some(block_of(pool, address))
        })
    }

    /// Makes `holder` the one who has `address`, if nobody has it who needs it.
    fn take_over(
        &self,
        block: &mut Block,
        handle: &str,
        holder: &AllocationAttribute,
        address: IpAddr,
        gone: &BTreeSet<String>,
    ) -> Option<Broken> {
        let found = block::held(&block.spec).find(|(_, held, _)| *held == address);
        let Some((ordinal, _, by)) = found else {
            block::allocate_exactly(&mut block.spec, holder, address);
            return None;
        };
        let by_handle = block::handle_of(by).unwrap_or_default();
        if by_handle == handle {
            return None;
        }
        let is_free_for_us = by.released_at.is_some()
            || self.is_reserve(by)
            || self.is_ours(by)
                && (gone.contains(by_handle) || is_same_pod(&by.secondary, &holder.secondary));
        if !is_free_for_us {
            let (handle, holder) = (handle.to_owned(), by_handle.to_owned());
            return Some(Broken { handle, address, holder });
        }
        block::hand_over(&mut block.spec, &[ordinal], holder);
        None
    }

    /// `false` when the handle turned out to be another than the one that was read.
    async fn write_change(
        &mut self,
        door: Door<'_>,
        handle: &str,
        stored: Option<Handle>,
        change: Change,
    ) -> Result<bool, Error> {
        if let Some(stored) = &stored {
            // Whoever takes a handle away that holds nothing rewrites its blocks first: it must be there after they were read.
            let again = handle::read(door.store, handle).await?;
            let version = |handle: &Handle| handle.object.metadata.resource_version.clone();
            if again.as_ref().map(version) != Some(version(stored)) {
                return Ok(false);
            }
        }
        // It names what is released, too, until that is done.
        let mut most = change.counts.clone();
        for (cidr, count) in stored.iter().flat_map(|stored| &stored.spec.block) {
            most.entry(cidr.clone()).or_insert(*count);
        }
        let Prepared::Ready(mut stored) = handle::prepare(door.store, handle, stored, &most).await? else {
            return Ok(false);
        };
        for block in change.blocks {
            self.write_block(door.store, block).await?;
        }
        if most != change.counts {
            match handle::prepare(door.store, handle, Some(stored), &change.counts).await? {
                Prepared::Ready(corrected) => stored = corrected,
                Prepared::Holds(..) => return Ok(false),
            }
        }
        self.handles.insert(handle.to_owned(), stored);
        Ok(true)
    }
}

/// How many addresses a handle is to hold of which block.
type Counts = BTreeMap<String, u32>;

/// What is to be written for many handles.
#[derive(Debug)]
pub struct Redeeming {
    blocks: Vec<Block>,
    /// The new handles.
    handles: BTreeMap<String, Counts>,
}

/// What came of it.
#[derive(Debug)]
pub struct Redeemed {
    blocks: Vec<(IpNet, Result<Block, Error>)>,
    handles: Vec<(String, Counts, Result<Option<Handle>, Error>)>,
}

impl Redeeming {
    /// Writes it, all at once.
    pub async fn write(self, store: &dyn Datastore) -> Redeemed {
        let blocks =
            self.blocks.into_iter().map(|block| async move { (block.spec.cidr, bump(store, block).await) });
        let handles = self.handles.into_iter().map(|(handle, counts)| async move {
            let created = handle::create(store, &handle, &counts).await;
            (handle, counts, created)
        });
        let (blocks, handles) = join(join_all(blocks), join_all(handles)).await;
        Redeemed { blocks, handles }
    }
}

/// What is to be written for one handle.
#[derive(Debug, Default)]
struct Change {
    blocks: Vec<Block>,
    counts: Counts,
}
