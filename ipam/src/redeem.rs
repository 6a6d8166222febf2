//! Writing what was given while the datastore was away (see [`crate::away`]).
//!
//! An address goes from whoever of this node holds it (its reserve, an earlier container of the pod) to the handle that it
//! was promised to in one write of its block, and is never free in between. What the handle holds beside, since a write
//! before the absence came through after all, is released.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use manx_datastore::Datastore;
use manx_model::AllocationAttribute;

use crate::assign::Door;
use crate::away::{Promise, is_same_pod};
use crate::block::{self, Block};
use crate::choose::block_of;
use crate::handle::{self, Handle, Prepared};
use crate::{Allocator, Error, Rules, TRIES};

/// A promise that cannot be kept: IPAM gives the address to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Who was given the address while the datastore was away.
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
            "{handle} was given {address} while the datastore was away, and {holder} has it by IPAM: \
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
        let holder = AllocationAttribute {
            handle_id: Some(handle.to_owned()),
            secondary: promise.attributes.clone(),
            ..AllocationAttribute::default()
        };
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

/// What is to be written for one handle.
#[derive(Debug, Default)]
struct Change {
    blocks: Vec<Block>,
    /// How many addresses the handle is to hold of which block.
    counts: BTreeMap<String, u32>,
}
