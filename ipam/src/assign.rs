//! Giving out addresses: a batch of requests, one write of each block.
//!
//! It goes in rounds. Each plans a place for every address that is still wanted, in the blocks at hand; where one has no
//! place, another block is brought to hand first ([`crate::grow`]). Then the handles are written, all at once, and the
//! blocks; both together for a request that comes alone, if its handle is new and the blocks are our own, as with nearly
//! every pod. What is stored then, not what was written, is the answer: the next round looks which handle holds what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use futures::future::{join, join_all};
use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError};

use crate::affinity::{Mended, bump, read_block};
use crate::away::Terms;
use crate::batch::{Batch, addresses};
use crate::block::{self, Block};
use crate::handle::{self, Prepared};
use crate::plan::Plan;
use crate::{Allocator, AssignRequest, Assigned, Error, Rules, TRIES};

/// How often a batch goes on after a write whose fate is unknown.
const MAX_UNKNOWN: usize = 3;

/// With what a batch is carried out.
#[derive(Clone, Copy)]
pub(crate) struct Door<'a> {
    pub(crate) store: &'a dyn Datastore,
    pub(crate) now: SystemTime,
    pub(crate) rules: Rules<'a>,
}

impl Door<'_> {
    /// As [`Terms::free`].
    pub(crate) fn free(&self, block: &Block) -> usize {
        Terms { now: self.now, rules: self.rules }.free(block)
    }
}

impl Allocator {
    /// Gives each request its addresses, answering in the order of `requests`. A handle that holds some already, anywhere,
    /// is given the same ones. All addresses of one block share one write of it; handles are written all at once.
    ///
    /// # Errors
    /// For each request its own. A request that can have only a part of what it wants gets nothing: what was taken for
    /// it is given back, unless its handle held something before. After [`manx_datastore::Error::Unavailable`] addresses may
    /// have been given nevertheless: ask again, or release the handle.
    pub async fn assign(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        rules: Rules<'_>,
        requests: &[AssignRequest],
    ) -> Vec<Result<Vec<Assigned>, Error>> {
        self.come_back_to(requests);
        let mut batch = Batch::new(requests, rules, &self.node);
        let door = Door { store, now, rules };
        if let Err(error) = self.assign_batch(door, &mut batch).await {
            batch.refuse_open(&error);
        }
        let undo = batch.to_undo();
        if !undo.is_empty() {
            // What fails here is left to the collector; the error that led here is the one to report.
            self.release(store, now, rules.config, &undo).await;
        }
        batch.answers()
    }

    async fn assign_batch(&mut self, door: Door<'_>, batch: &mut Batch<'_>) -> Result<(), Error> {
        self.ensure_loaded(door.store, door.now).await?;
        self.reread_held(door, batch).await?;
        // Each round answers, refuses, brings a block to hand, or has lost a race.
        for _ in 0..TRIES + 2 * batch.items.len() {
            batch.answer(|handle| self.held_by(handle));
            if batch.open().is_empty() {
                return Ok(());
            }
            let plan = self.plan(door, batch);
            match plan.missing.first() {
                None => self.carry_out(door, batch, plan).await,
                Some(missing) => {
                    if let Err(error) = self.grow(door, batch, *missing).await {
                        refuse_alike(batch, &plan.missing, *missing, &error);
                    }
                }
            }
        }
        Err(Error::contention(format!("a block of node {}", self.node)))
    }

    /// What is remembered of a handle may have been released by somebody else since: look again before repeating it.
    async fn reread_held(&mut self, door: Door<'_>, batch: &mut Batch<'_>) -> Result<(), Error> {
        let mut blocks = BTreeSet::new();
        for request in batch.requests() {
            blocks.extend(self.held_by(batch.handle(request)).iter().map(|assigned| assigned.block));
        }
        // Who is remembered to hold a named address may have released it.
        let fixed: Vec<_> = (0..batch.items.len()).filter_map(|item| batch.fixed(item)).collect();
        let taken = |block: &&Block| block::held(&block.spec).any(|(_, address, _)| fixed.contains(&address));
        blocks.extend(self.blocks.values().filter(taken).map(|block| block.spec.cidr));
        for cidr in blocks {
            self.reread(door.store, door.now, cidr).await?;
        }
        for request in batch.requests() {
            let handle = batch.handle(request);
            let held = self.held_by(handle);
            if held.is_empty() {
                continue;
            }
            batch.found_before(request);
            // Whoever took the addresses may have been killed before the handle was there.
            if !self.handles.contains_key(handle) {
                let mut blocks: BTreeMap<String, u32> = BTreeMap::new();
                held.iter().for_each(|held| *blocks.entry(held.block.to_string()).or_default() += 1);
                if let Some(created) = handle::create(door.store, handle, &blocks).await? {
                    self.handles.insert(handle.to_owned(), created);
                }
            }
        }
        Ok(())
    }

    async fn carry_out(&mut self, door: Door<'_>, batch: &mut Batch<'_>, mut plan: Plan) {
        if let Some(request) = self.alone_and_new(batch, &plan) {
            return self.write_together(door, batch, plan, request).await;
        }
        self.write_handles(door.store, batch, &plan).await;
        for items in plan.places.values_mut() {
            items.retain(|item| batch.sure.contains(&batch.items[*item].request));
        }
        plan.places.retain(|_, items| !items.is_empty());
        let (places, blocks) = self.change_blocks(door, batch, plan.places);
        let written = join_all(blocks.into_iter().map(|block| bump(door.store, block))).await;
        self.blocks_written(door, batch, places, written).await;
    }

    /// The request of the plan, if it is a single one of whose handle nothing is known, and all is taken from this node's own
    /// blocks. Where many come at once, those that come while the handles are written share the next write of the block.
    fn alone_and_new(&self, batch: &Batch<'_>, plan: &Plan) -> Option<usize> {
        let mut requests = plan.places.values().flatten().map(|item| batch.items[*item].request);
        let request = requests.next()?;
        let is_alone_and_new = requests.all(|other| other == request)
            && !batch.written.contains(&request)
            && !self.handles.contains_key(batch.handle(request))
            && batch.held(request, |handle| self.held_by(handle)).is_empty()
            && plan.places.keys().all(|cidr| self.blocks.contains_key(cidr));
        is_alone_and_new.then_some(request)
    }

    /// Writes a new handle and own blocks in the time of one write. Whoever is killed in between leaves an address without its
    /// handle, or the reverse: the next start finds either. Where the handle is there already, the blocks are as they were
    /// again: what it holds is looked for first.
    async fn write_together(&mut self, door: Door<'_>, batch: &mut Batch<'_>, plan: Plan, request: usize) {
        let (handle, wanted) =
            (batch.handle(request), plan.by_request(batch).remove(&request).unwrap_or_default());
        batch.written.insert(request);
        let (places, blocks) = self.change_blocks(door, batch, plan.places);
        let written = join_all(blocks.into_iter().map(|block| bump(door.store, block)));
        let (created, written) = join(handle::create(door.store, handle, &wanted), written).await;
        let exists = matches!(created, Ok(None));
        match created {
            Ok(Some(stored)) => {
                batch.sure.insert(request);
                batch.seen.insert(request);
                self.handles.insert(handle.to_owned(), stored);
            }
            Ok(None) => {}
            Err(error) => batch.refuse_request(request, error),
        }
        let taken = places.iter().zip(&written).filter(|(_, written)| exists && written.is_ok());
        // It held nothing there before.
        let taken: BTreeMap<IpNet, BTreeSet<&str>> =
            taken.map(|((cidr, _), _)| (*cidr, [handle].into())).collect();
        self.blocks_written(door, batch, places, written).await;
        let cooldown = door.rules.config.ip_cooldown_seconds;
        for (_, _, freed) in self.release_blocks(door.store, door.now, cooldown, taken).await {
            if let Err(error) = freed {
                batch.refuse_request(request, error);
            }
        }
    }

    /// Writes the handles of the planned requests, all at once. The request of one that turns out to hold something already
    /// is planned anew.
    async fn write_handles(&mut self, store: &dyn Datastore, batch: &mut Batch<'_>, plan: &Plan) {
        let mut wanted = plan.by_request(batch);
        for (request, blocks) in &mut wanted {
            for held in batch.held(*request, |handle| self.held_by(handle)) {
                *blocks.entry(held.block.to_string()).or_default() += 1;
            }
        }
        batch.written.extend(wanted.keys());
        // Whoever drops us now leaves versions behind of which we do not know. What is remembered from before this call says
        // nothing about what the handle holds.
        let known: Vec<_> =
            wanted.keys().map(|request| self.handles.remove(batch.handle(*request))).collect();
        let writes = wanted.iter().zip(known).map(|((request, blocks), known)| {
            let handle = batch.handle(*request);
            let (sure, seen) = (batch.sure.contains(request), batch.seen.contains(request));
            async move {
                let known = match (sure, seen) {
                    (true, _) => known,
                    (false, true) => handle::read(store, handle).await?,
                    (false, false) => None,
                };
                handle::prepare(store, handle, known, blocks).await
            }
        });
        let written = join_all(writes).await;
        for (request, written) in wanted.keys().zip(written) {
            let handle = batch.handle(*request).to_owned();
            batch.sure.remove(request);
            match written {
                Ok(Prepared::Ready(stored)) => {
                    batch.sure.insert(*request);
                    batch.seen.insert(*request);
                    self.handles.insert(handle, stored);
                }
                Ok(Prepared::Holds(stored, blocks)) => {
                    batch.seen.insert(*request);
                    self.handles.insert(handle, stored);
                    self.take_in_elsewhere(batch, *request, blocks);
                }
                Err(error) => batch.refuse_request(*request, error),
            }
        }
    }

    /// What a request turned out to hold.
    pub(crate) fn take_in_elsewhere(&mut self, batch: &mut Batch<'_>, request: usize, blocks: Vec<Block>) {
        let handle = batch.handle(request);
        batch.found_elsewhere(request, blocks.iter().flat_map(|block| addresses(block, handle)).collect());
        blocks.into_iter().for_each(|block| self.remember(block));
    }

    /// The blocks with the planned items in them, not written yet.
    fn change_blocks(
        &mut self,
        door: Door<'_>,
        batch: &Batch<'_>,
        places: BTreeMap<IpNet, Vec<usize>>,
    ) -> (Vec<(IpNet, Vec<usize>)>, Vec<Block>) {
        let changed = places.into_iter().filter_map(|(cidr, items)| {
            let block = self.at_hand(batch, cidr)?;
            let spec = self.allocated(door, batch, block, &items);
            Some(((cidr, items), Block { object: block.object.clone(), spec }))
        });
        let (places, blocks): (Vec<_>, Vec<_>) = changed.unzip();
        self.away.written.retain(|written| places.iter().all(|(cidr, _)| cidr != written));
        (places, blocks)
    }

    async fn blocks_written(
        &mut self,
        door: Door<'_>,
        batch: &mut Batch<'_>,
        places: Vec<(IpNet, Vec<usize>)>,
        written: Vec<Result<Block, Error>>,
    ) {
        for ((cidr, items), written) in places.into_iter().zip(written) {
            match written {
                Ok(block) => {
                    self.away.written.insert(cidr);
                    self.take_in(batch, block);
                }
                Err(error) => self.block_not_written(door, batch, cidr, &items, error).await,
            }
        }
    }

    fn allocated(
        &self,
        door: Door<'_>,
        batch: &Batch<'_>,
        block: &Block,
        items: &[usize],
    ) -> manx_model::BlockSpec {
        let mut spec = block.spec.clone();
        block::collect(&mut spec, door.now, door.rules.config.ip_cooldown_seconds);
        for item in items {
            let holder = batch.attribute(*item, &self.node);
            match batch.fixed(*item) {
                Some(address) => block::allocate_exactly(&mut spec, &holder, address),
                None => block::allocate(&mut spec, &holder, door.rules.reserved),
            };
        }
        spec
    }

    /// A newer version of a block that may be one of those that others lend.
    fn take_in(&mut self, batch: &mut Batch<'_>, block: Block) {
        if let Some(lent) = batch.lent.get_mut(&block.spec.cidr) {
            lent.clone_from(&block);
        }
        self.remember(block);
    }

    /// Somebody was faster, or the write may have happened: nothing is decided before the block has been seen.
    async fn block_not_written(
        &mut self,
        door: Door<'_>,
        batch: &mut Batch<'_>,
        cidr: IpNet,
        items: &[usize],
        error: Error,
    ) {
        batch.sure.retain(|request| items.iter().all(|item| batch.items[*item].request != *request));
        let unknown = error.is_unavailable() && batch.unknown < MAX_UNKNOWN;
        batch.unknown += usize::from(unknown);
        let reread = match unknown || error.is_conflict() {
            true => self.reread_at_hand(door, batch, cidr).await,
            false => Err(error.clone()),
        };
        if let (Ok(()), false) = (&reread, unknown && self.unreadable.contains(&cidr)) {
            return;
        }
        self.loaded = false;
        items.iter().for_each(|item| batch.refuse(*item, error.clone()));
    }

    async fn reread_at_hand(
        &mut self,
        door: Door<'_>,
        batch: &mut Batch<'_>,
        cidr: IpNet,
    ) -> Result<(), Error> {
        if self.blocks.contains_key(&cidr) {
            return self.reread(door.store, door.now, cidr).await;
        }
        match read_block(door.store, cidr).await {
            Ok(Some(block)) => self.take_in(batch, block),
            Ok(None) => {
                batch.lent.remove(&cidr);
                self.forget_block(cidr);
            }
            Err(error) => {
                batch.lent.remove(&cidr);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads a block again in which this node holds something; one of ours that no longer is ours is forgotten.
    pub(crate) async fn reread(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        cidr: IpNet,
    ) -> Result<(), Error> {
        let mended = match self.blocks.contains_key(&cidr) {
            true => self.mend(store, now, cidr).await?,
            false => Mended::Nothing,
        };
        self.blocks.remove(&cidr);
        match mended {
            Mended::Ours(block) => drop(self.blocks.insert(cidr, *block)),
            Mended::Unreadable(_) => drop(self.unreadable.insert(cidr)),
            Mended::Nothing => match read_block(store, cidr).await {
                Ok(Some(block)) => self.remember(block),
                Ok(None) | Err(Error::Datastore(StoreError::Invalid(_))) => self.forget_block(cidr),
                Err(error) => return Err(error),
            },
        }
        Ok(())
    }
}

/// One reason for all that wanted the same in vain.
fn refuse_alike(batch: &mut Batch<'_>, missing: &[usize], of: usize, error: &Error) {
    let alike: Vec<usize> =
        missing.iter().copied().filter(|item| batch.items[*item].is_like(&batch.items[of])).collect();
    alike.into_iter().for_each(|item| batch.refuse(item, error.clone()));
}
