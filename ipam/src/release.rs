//! Giving addresses back, by handle.
//!
//! The blocks are written first, beside each other, then the handle is deleted in the version that is remembered: a
//! compare-and-swap in itself. A release that comes alone has all of them written beside each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use futures::future::{join, join_all};
use ipnet::IpNet;
use manx_datastore::{Datastore, Error as StoreError};
use manx_model::IpamConfigSpec;

use crate::affinity::{bump, delete, read_block};
use crate::block::{self, Block, addresses_of};
use crate::handle::{self, Handle};
use crate::{Allocator, Error, TRIES};

/// How often a release goes on after a write whose fate is unknown.
const MAX_UNKNOWN: usize = 3;

/// What each handle held in a block.
type Freed<'h> = BTreeMap<&'h str, Vec<IpAddr>>;

/// A block, as it was last seen.
struct Seen {
    block: Option<Block>,
    /// It was read or written since we remembered it.
    news: bool,
    /// The last that is known of it is a write of ours.
    written: bool,
}

/// What is given back by one call.
#[derive(Default)]
struct Releasing<'h> {
    answers: BTreeMap<&'h str, Result<Vec<IpAddr>, Error>>,
    /// Which handles may hold addresses of which block.
    blocks: BTreeMap<IpNet, BTreeSet<&'h str>>,
    /// The blocks in which a handle certainly holds nothing any more.
    cleared: BTreeMap<&'h str, BTreeSet<IpNet>>,
}

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
        self.begin_to_free(handles);
        let mut releasing = Releasing::default();
        let mut todo: BTreeSet<&str> = handles.iter().map(String::as_str).collect();
        for _ in 0..TRIES {
            self.where_held(store, &todo, &mut releasing).await;
            let beside = self.take_beside(&releasing);
            let deleting = async {
                match &beside {
                    Some((_, known)) => delete(store, &known.object).await.map(|()| true),
                    None => Ok(false),
                }
            };
            let blocks = std::mem::take(&mut releasing.blocks);
            let freeing = self.release_blocks(store, now, config.ip_cooldown_seconds, blocks);
            let (deleted, released) = join(deleting, freeing).await;
            for (cidr, handles, released) in released {
                releasing.settle(cidr, &handles, released);
            }
            if let (Some((handle, _)), Ok(true)) = (&beside, deleted) {
                releasing.cleared.remove(handle);
            }
            todo = self.forget_handles(store, &mut releasing).await;
            if todo.is_empty() {
                break;
            }
        }
        let answer = |handle: &String| releasing.answers.get(handle.as_str()).cloned();
        let answers: Vec<_> = handles.iter().map(|handle| answer(handle).unwrap_or(Ok(Vec::new()))).collect();
        let freed = handles.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        self.freed(freed.map(|(handle, _)| handle.as_str()));
        answers
    }

    /// Where the handles may hold addresses: what their objects say, and what we remember. Only an object that is not
    /// remembered is read; a damaged one counts as none.
    async fn where_held<'h>(
        &mut self,
        store: &dyn Datastore,
        unique: &BTreeSet<&'h str>,
        releasing: &mut Releasing<'h>,
    ) {
        let unknown: Vec<&str> =
            unique.iter().copied().filter(|handle| !self.handles.contains_key(*handle)).collect();
        let read = join_all(unknown.iter().map(|handle| handle::read(store, handle))).await;
        for (handle, stored) in unknown.into_iter().zip(read) {
            match stored {
                Ok(Some(stored)) => drop(self.handles.insert(handle.to_owned(), stored)),
                Ok(None) | Err(Error::Datastore(StoreError::Invalid(_))) => {}
                Err(error) => drop(releasing.answers.insert(handle, Err(error))),
            }
        }
        for handle in unique.iter().copied() {
            if matches!(releasing.answers.get(handle), Some(Err(_))) {
                continue;
            }
            let stored = self.handles.get(handle);
            let named = stored.into_iter().flat_map(|stored| handle::blocks(&stored.spec));
            let remembered = self.held_by(handle).into_iter().map(|held| held.block);
            named.chain(remembered).for_each(|cidr| {
                releasing.blocks.entry(cidr).or_default().insert(handle);
            });
            releasing.answers.entry(handle).or_insert(Ok(Vec::new()));
            if stored.is_some() {
                releasing.cleared.insert(handle, BTreeSet::new());
            }
        }
    }

    /// The handle of a release that comes alone, if all that it names is in blocks of our own: it is deleted beside their
    /// write. Whoever is killed in between leaves an address without its handle, which the next start finds, or the reverse,
    /// which the repeated release finds.
    fn take_beside<'h>(&mut self, releasing: &Releasing<'h>) -> Option<(&'h str, Handle)> {
        let mut handles = releasing.cleared.keys();
        let (handle, None) = (*handles.next()?, handles.next()) else { return None };
        let own = |cidr: &IpNet| self.blocks.contains_key(cidr);
        let named = handle::blocks(&self.handles.get(handle)?.spec).collect::<Vec<_>>();
        (releasing.blocks.keys().all(own) && named.iter().all(own)).then_some(())?;
        Some((handle, self.handles.remove(handle)?))
    }

    /// Deletes the handles that hold nothing any more, all at once; returns those that turn out to name other blocks.
    async fn forget_handles<'h>(
        &mut self,
        store: &dyn Datastore,
        releasing: &mut Releasing<'h>,
    ) -> BTreeSet<&'h str> {
        let clear = std::mem::take(&mut releasing.cleared).into_iter();
        let clear: Vec<_> =
            clear.filter(|(handle, _)| matches!(releasing.answers.get(handle), Some(Ok(_)))).collect();
        // Whatever comes of it, what we knew is old.
        let known: Vec<Option<Handle>> =
            clear.iter().map(|(handle, _)| self.handles.remove(*handle)).collect();
        let forgetting = clear
            .iter()
            .zip(known)
            .map(|((handle, cleared), known)| handle::forget(store, handle, known, cleared));
        let forgotten = join_all(forgetting).await;
        let mut left = BTreeSet::new();
        for ((handle, _), forgotten) in clear.iter().zip(forgotten) {
            match forgotten {
                Ok(true) => {}
                Ok(false) => {
                    left.insert(*handle);
                }
                Err(error) => drop(releasing.answers.insert(handle, Err(error))),
            }
        }
        left
    }

    /// Takes back what the handles of each block hold in it, in one write of each block, whoever owns it. They are written
    /// beside each other, and what becomes of one says nothing about another.
    pub(crate) async fn release_blocks<'h>(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        cooldown: u32,
        blocks: BTreeMap<IpNet, BTreeSet<&'h str>>,
    ) -> Vec<(IpNet, BTreeSet<&'h str>, Result<Freed<'h>, Error>)> {
        let mut freeing = Vec::new();
        for (cidr, handles) in blocks {
            // Whoever drops us leaves it unknown what was written.
            let written = self.away.written.remove(&cidr);
            let mut seen = Seen { block: self.remembered(cidr).cloned(), news: false, written };
            freeing.push(async move {
                let freed = free(store, now, cooldown, cidr, &handles, &mut seen).await;
                (cidr, handles, freed, seen)
            });
        }
        let freed = join_all(freeing).await.into_iter().map(|(cidr, handles, freed, seen)| {
            if seen.written {
                self.away.written.insert(cidr);
            }
            match seen.block {
                _ if !seen.news => {}
                Some(block) => self.remember(block),
                None => self.forget_block(cidr),
            }
            (cidr, handles, freed)
        });
        freed.collect()
    }

    /// The block as it is stored, which is also what we remember from now on.
    pub(crate) async fn read_again(
        &mut self,
        store: &dyn Datastore,
        cidr: IpNet,
    ) -> Result<Option<Block>, Error> {
        let stored = read_block(store, cidr).await?;
        match &stored {
            Some(block) => self.remember(block.clone()),
            None => self.forget_block(cidr),
        }
        Ok(stored)
    }
}

/// Takes back what the handles hold in a block.
async fn free<'h>(
    store: &dyn Datastore,
    now: SystemTime,
    cooldown: u32,
    cidr: IpNet,
    handles: &BTreeSet<&'h str>,
    seen: &mut Seen,
) -> Result<Freed<'h>, Error> {
    let mut released = Freed::new();
    let mut unknown = 0;
    // What we remember serves for a first try, if it has all that is to be released; it may be old, not new.
    let holds =
        |block: &&Block| handles.iter().all(|handle| addresses_of(&block.spec, handle).next().is_some());
    let mut remembered = seen.block.as_ref().filter(holds).cloned();
    for _ in 0..TRIES {
        let mut block = match remembered.take() {
            Some(block) => block,
            None => {
                seen.block = read_block(store, cidr).await?;
                seen.news = true;
                match seen.block.clone() {
                    Some(block) => block,
                    None => return Ok(released),
                }
            }
        };
        let freed: Freed<'_> = handles
            .iter()
            .map(|handle| (*handle, block::release(&mut block.spec, handle, now, cooldown)))
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect();
        if freed.is_empty() {
            return Ok(released);
        }
        released = freed;
        seen.written = false;
        match bump(store, block).await {
            Ok(block) => {
                *seen = Seen { block: Some(block), news: true, written: true };
                return Ok(released);
            }
            Err(error) if error.is_conflict() => {}
            Err(error) if error.is_unavailable() && unknown < MAX_UNKNOWN => unknown += 1,
            Err(error) => return Err(error),
        }
    }
    Err(Error::contention(format!("block {cidr}")))
}

impl<'h> Releasing<'h> {
    fn settle(&mut self, cidr: IpNet, handles: &BTreeSet<&'h str>, released: Result<Freed<'h>, Error>) {
        for handle in handles {
            match &released {
                Err(error) => drop(self.answers.insert(handle, Err(error.clone()))),
                Ok(released) => {
                    self.cleared.entry(handle).or_default().insert(cidr);
                    if let Some(Ok(addresses)) = self.answers.get_mut(handle) {
                        addresses.extend(released.get(handle).into_iter().flatten());
                    }
                }
            }
        }
    }
}
