//! Addresses that a node holds back for pods that cannot wait: that come while the datastore is away (see [`crate::away`]),
//! or that are to have theirs before it is written (see [`crate::ahead`]).
//!
//! They are held in the datastore, under a handle of the node's own, so that nobody else is given them meanwhile: not a
//! node that borrows, nor one that takes empty blocks. In each pool one block has them, while it has plenty of free
//! addresses when they are taken; a request that finds nothing else free takes them.
//!
//! They are given back in two writes: the first only marks them, and is on this node's disk before the second frees
//! them. So what an agent remembers that starts without the datastore never calls held back what is free in fact.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use manx_datastore::Datastore;
use manx_model::{AllocationAttribute, AllowedUse, IpPool, RESERVE, is_reserve_handle, reserve_handle};

use crate::affinity::delete;
use crate::assign::Door;
use crate::block::{self, Block};
use crate::handle::{self, Prepared};
use crate::{Allocator, Error, Rules, TRIES, pools};

/// How many addresses of a block are held back at most, if nothing else is configured.
pub const DEFAULT_RESERVE: usize = 8;

/// One in so many addresses of a block is held back.
const SHARE: usize = 8;

/// The `type` of addresses that are about to be given back.
const GIVEN_UP: &str = "manxReserveGivenUp";

impl Allocator {
    /// Takes or gives back addresses so that the reserve is what it should be: of one block in each pool that this
    /// node's pods may use, an eighth of its addresses, at most `most`. It is filled while half of the block is free.
    /// No call is made where nothing is to be done, but for the first time.
    ///
    /// # Errors
    /// [`Error::Datastore`], [`Error::Contention`]; it can be repeated.
    pub async fn keep_reserve(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        rules: Rules<'_>,
        most: usize,
    ) -> Result<(), Error> {
        self.ensure_loaded(store, now).await?;
        let door = Door { store, now, rules };
        let (wanted, held) = (self.wanted_reserve(door, most), self.reserve());
        if self.reserve_settled && wanted == held && !self.has_given_up() {
            return Ok(());
        }
        self.reserve_settled = false;
        let kept = self.change_reserve(door, &wanted, &held).await;
        match &kept {
            Ok(()) => self.reserve_settled = true,
            Err(error) => self.forget_reserve(door, error).await,
        }
        kept
    }

    /// Gives back what is held back in these pools, for a request that finds nothing else; `false` when there is nothing.
    pub(crate) async fn spend_reserve(&mut self, door: Door<'_>, pools: &[usize]) -> Result<bool, Error> {
        let held = self.reserve();
        let asked = |cidr: &IpNet| pools.iter().any(|index| door.rules.pools[*index].cidr.contains(cidr));
        let left: BTreeMap<IpNet, usize> =
            held.iter().filter(|(cidr, _)| !asked(cidr)).map(|(cidr, count)| (*cidr, *count)).collect();
        if left == held {
            return Ok(false);
        }
        self.reserve_settled = false;
        match self.change_reserve(door, &left, &held).await {
            Ok(()) => {
                self.reserve_settled = true;
                Ok(true)
            }
            Err(error) => {
                self.forget_reserve(door, &error).await;
                // What others changed is known now; the request looks again.
                if error.is_conflict() { Ok(true) } else { Err(error) }
            }
        }
    }

    /// The addresses that are held back in a block, with their ordinals.
    pub(crate) fn reserved_in<'a>(&'a self, block: &'a Block) -> impl Iterator<Item = (usize, IpAddr)> {
        self.of_kind(block, RESERVE)
    }

    /// Whether it is this node's reserve by which an address is held.
    pub(crate) fn is_reserve(&self, attribute: &AllocationAttribute) -> bool {
        block::handle_of(attribute).is_some_and(|handle| is_reserve_handle(handle, &self.node))
    }

    /// Whether this address is held back.
    pub(crate) fn reserves(&self, address: IpAddr) -> bool {
        let mut blocks = self.blocks.values().chain(self.foreign.values());
        blocks.any(|block| self.reserved_in(block).any(|(_, held)| held == address))
    }

    fn of_kind<'a>(&'a self, block: &'a Block, kind: &'a str) -> impl Iterator<Item = (usize, IpAddr)> {
        block::held(&block.spec)
            .filter(move |(_, _, by)| {
                self.is_reserve(by) && by.secondary.get("type").is_some_and(|said| said == kind)
            })
            .map(|(ordinal, address, _)| (ordinal, address))
    }

    /// How many addresses are held back in which block, whoever owns it.
    fn reserve(&self) -> BTreeMap<IpNet, usize> {
        let count = |block: &Block| block::held(&block.spec).filter(|(_, _, by)| self.is_reserve(by)).count();
        let blocks = self.blocks.iter().chain(&self.foreign).map(|(cidr, block)| (*cidr, count(block)));
        blocks.filter(|(_, count)| *count > 0).collect()
    }

    fn has_given_up(&self) -> bool {
        self.blocks
            .values()
            .chain(self.foreign.values())
            .any(|block| self.of_kind(block, GIVEN_UP).count() > 0)
    }

    fn wanted_reserve(&self, door: Door<'_>, most: usize) -> BTreeMap<IpNet, usize> {
        let usable = |pool: &&IpPool| {
            !pool.disabled
                && pool.allows(AllowedUse::Workload)
                && pools::selects_node(pool, door.rules.node_labels)
        };
        let pools = door.rules.pools.iter().filter(usable);
        pools.filter_map(|pool| self.wanted_in(door, pool, most)).filter(|(_, count)| *count > 0).collect()
    }

    /// The block of a pool that is to have a reserve, and how large.
    fn wanted_in(&self, door: Door<'_>, pool: &IpPool, most: usize) -> Option<(IpNet, usize)> {
        let own: Vec<&Block> =
            self.blocks.values().filter(|block| pool.cidr.contains(&block.spec.cidr)).collect();
        let has = |block: &Block| self.reserved_in(block).count();
        let is_used = |block: &Block| block::held(&block.spec).any(|(_, _, by)| !self.is_reserve(by));
        let has_plenty = |block: &Block| door.free(block) * 2 >= block.spec.allocations.len();
        let find = |fits: &dyn Fn(&Block) -> bool| own.iter().find(|block| fits(block)).copied();
        // An empty block is there for others to take; one with nothing but a reserve is given up for a better one.
        let home = find(&|block| has(block) > 0 && is_used(block))
            .or_else(|| find(&|block| is_used(block) && has_plenty(block)))
            .or_else(|| find(&|block| has(block) > 0))?;
        let full = (home.spec.allocations.len() / SHARE).min(most);
        let count = if has_plenty(home) { full } else { has(home).min(full) };
        Some((home.spec.cidr, count))
    }

    /// The handle says all of it first, and in the end what is so.
    async fn change_reserve(
        &mut self,
        door: Door<'_>,
        wanted: &BTreeMap<IpNet, usize>,
        held: &BTreeMap<IpNet, usize>,
    ) -> Result<(), Error> {
        let mut most = held.clone();
        for (cidr, count) in wanted {
            let said = most.entry(*cidr).or_default();
            *said = (*said).max(*count);
        }
        if !held.is_empty() {
            // Somebody may have released an address of it, and said so.
            self.handles.remove(&reserve_handle(&self.node));
        }
        self.say_reserve(door, &most, held.is_empty()).await?;
        let blocks: BTreeSet<IpNet> = most.keys().copied().collect();
        for cidr in blocks {
            self.change_block(door, cidr, wanted.get(&cidr).copied().unwrap_or(0)).await?;
        }
        match self.reserve() {
            left if left == most => Ok(()),
            left => self.say_reserve(door, &left, false).await,
        }
    }

    async fn change_block(&mut self, door: Door<'_>, cidr: IpNet, wanted: usize) -> Result<(), Error> {
        let Some(mut block) = self.remembered(cidr).cloned() else { return Ok(()) };
        let reserved: Vec<usize> = self.reserved_in(&block).map(|(ordinal, _)| ordinal).collect();
        let surplus = &reserved[wanted.min(reserved.len())..];
        if !surplus.is_empty() {
            block::hand_over(&mut block.spec, surplus, &self.holder(GIVEN_UP));
            block = self.write_block(door.store, block).await?;
        }
        let given_up: Vec<usize> = self.of_kind(&block, GIVEN_UP).map(|(ordinal, _)| ordinal).collect();
        let missing = wanted.saturating_sub(reserved.len());
        if given_up.is_empty() && missing == 0 {
            return Ok(());
        }
        if !given_up.is_empty() {
            door.store.settle().await?;
            block::free_at_once(&mut block.spec, &given_up);
        }
        block::collect(&mut block.spec, door.now, door.rules.config.ip_cooldown_seconds);
        block::allocate_last(&mut block.spec, &self.holder(RESERVE), missing, door.rules.reserved);
        self.write_block(door.store, block).await.map(drop)
    }

    /// Stores how many addresses the handle holds of which block; without any there is none.
    async fn say_reserve(
        &mut self,
        door: Door<'_>,
        counts: &BTreeMap<IpNet, usize>,
        is_new: bool,
    ) -> Result<(), Error> {
        let name = reserve_handle(&self.node);
        let mut known = match self.handles.remove(&name) {
            None if !is_new => handle::read(door.store, &name).await?,
            known => known,
        };
        if counts.is_empty() {
            return match known {
                Some(known) => delete(door.store, &known.object).await,
                None => Ok(()),
            };
        }
        let counts = counts.iter().map(|(cidr, count)| (cidr.to_string(), *count as u32)).collect();
        for _ in 0..TRIES {
            match handle::prepare(door.store, &name, known.take(), &counts).await? {
                Prepared::Ready(stored) => {
                    self.handles.insert(name, stored);
                    return Ok(());
                }
                Prepared::Holds(stored, _) => known = Some(stored),
            }
        }
        Err(Error::contention(format!("IPAMHandle {name}")))
    }

    /// What the reserve was decided by may be old. Where the datastore does not answer, the next write finds that out.
    async fn forget_reserve(&mut self, door: Door<'_>, error: &Error) {
        self.handles.remove(&reserve_handle(&self.node));
        if error.is_unavailable() {
            return;
        }
        let blocks: Vec<IpNet> = self.blocks.keys().copied().collect();
        for cidr in blocks {
            if self.reread(door.store, door.now, cidr).await.is_err() {
                return;
            }
        }
    }

    /// The attribute of what is held back.
    pub(crate) fn holder(&self, kind: &str) -> AllocationAttribute {
        let said = [("node", self.node.as_str()), ("type", kind)];
        let secondary = said.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        AllocationAttribute {
            handle_id: Some(reserve_handle(&self.node)),
            secondary,
            ..AllocationAttribute::default()
        }
    }
}
