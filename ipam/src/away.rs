//! Giving addresses while the datastore is away: only such of which it says already that nobody else is given them.
//!
//! A node that cannot ask does not know what the others do meanwhile: one may borrow from its blocks, take an empty one,
//! or collect what a pod left behind. Three kinds of addresses are safe from all of them:
//!
//! 1. What the pod itself held when its container ended. Its release has not been asked for, so the datastore still has
//!    it as the pod's, which is on this node. What another pod held is not safe: who sees that the pod is gone collects
//!    its addresses.
//! 2. The reserve ([`crate::reserve`]), which nobody touches while the node exists.
//! 3. With strict affinity, the free addresses of a block that holds something of the node's own, a reserve or a
//!    tunnel's address, and so is never empty to others; if this allocator wrote the block last, as far as it knows.
//!
//! A release or a write whose fate is unknown disqualifies what it was about. What is given is a promise to be written
//! later ([`Allocator::redeem`]); who restarts meanwhile finds its promises in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use manx_model::{AllocationAttribute, AllowedUse, IpPool};

use crate::batch::Batch;
use crate::block::{self, Block};
use crate::{Allocator, AssignRequest, Assigned, Error, Rules};

/// What an allocator remembers of an absence of the datastore.
#[derive(Debug, Default)]
pub(crate) struct Away {
    /// By handle, what was given to it and is not written yet.
    pub(crate) promises: BTreeMap<String, Promise>,
    /// Handles whose container ended, since when; their release has not been asked for.
    left: BTreeMap<String, SystemTime>,
    /// Addresses that were promised to a container that has ended, since when.
    resting: BTreeMap<IpAddr, SystemTime>,
    /// Addresses that may have been written as those of a handle that has ended since: whose.
    doubtful: BTreeMap<IpAddr, String>,
    /// Handles whose release was asked for, and of which nobody knows what became.
    freeing: BTreeSet<String>,
    /// The blocks of which the last that is known is a write of ours.
    pub(crate) written: BTreeSet<IpNet>,
    /// The blocks of which a write of ours is under way ([`Allocator::begin_to_redeem`]).
    pub(crate) writing: BTreeSet<IpNet>,
}

/// Addresses that a container has, and of which the datastore does not know yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    /// As in [`AssignRequest::attributes`].
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// A write was asked for, and nobody knows what became of it.
    pub(crate) asked: bool,
}

impl Promise {
    /// As whom `handle` is to hold what it was promised.
    pub(crate) fn holder(&self, handle: &str) -> AllocationAttribute {
        AllocationAttribute {
            handle_id: Some(handle.to_owned()),
            secondary: self.attributes.clone(),
            ..AllocationAttribute::default()
        }
    }
}

/// What holds for requests that ask nobody.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) now: SystemTime,
    pub(crate) rules: Rules<'a>,
}

impl Terms<'_> {
    /// How many addresses the block has to give.
    pub(crate) fn free(&self, block: &Block) -> usize {
        block::free(&block.spec, self.now, self.rules.config.ip_cooldown_seconds, self.rules.reserved)
    }
}

impl Allocator {
    /// Gives each request its addresses without asking the datastore, answering in the order of `requests`. Who holds some
    /// keeps them. What is given is to be written by [`Self::redeem`].
    ///
    /// # Errors
    /// [`Error::Away`] says for each request why there is none for it.
    pub fn assign_away(
        &mut self,
        now: SystemTime,
        rules: Rules<'_>,
        requests: &[AssignRequest],
    ) -> Vec<Result<Vec<Assigned>, Error>> {
        let terms = Terms { now, rules };
        self.come_back_to(requests);
        let mut batch = Batch::new(requests, rules, &self.node);
        batch.answer(|handle| self.known_of(handle));
        let mut given: BTreeMap<usize, Vec<IpAddr>> = BTreeMap::new();
        for item in batch.open() {
            let request = batch.items[item].request;
            let taken: BTreeSet<IpAddr> = given.values().flatten().copied().collect();
            match self.spare(terms, &batch, item, &requests[request], &taken) {
                Ok(assigned) => {
                    batch.give(item, assigned);
                    given.entry(request).or_default().push(assigned.address);
                }
                Err(error) => {
                    batch.refuse(item, error);
                    given.remove(&request);
                }
            }
        }
        let answers = batch.answers();
        for request in given.into_keys() {
            if let Ok(assigned) = &answers[request] {
                self.promise_to(&requests[request], assigned);
            }
        }
        answers
    }

    /// This was given, and is not written yet.
    pub(crate) fn promise_to(&mut self, request: &AssignRequest, assigned: &[Assigned]) {
        let addresses = assigned.iter().map(|assigned| assigned.address).collect();
        let promise = Promise { attributes: request.attributes.clone(), addresses, asked: false };
        self.insert_promise(request.handle.clone(), promise);
    }

    /// The container of `handle` has these addresses, and the datastore does not know of it, as far as is known: whoever
    /// gave them out may have begun to write them.
    pub fn promise(&mut self, handle: String, attributes: BTreeMap<String, String>, addresses: Vec<IpAddr>) {
        self.insert_promise(handle, Promise { attributes, addresses, asked: true });
    }

    fn insert_promise(&mut self, handle: String, mut promise: Promise) {
        promise.attributes.entry("node".to_owned()).or_insert_with(|| self.node.to_string());
        self.away.promises.insert(handle, promise);
    }

    /// The container of `handle` has ended, and its release is asked for later: until then the pod may be given the same
    /// again.
    pub fn leave(&mut self, now: SystemTime, handle: &str) {
        if let Some(promise) = self.away.promises.remove(handle) {
            if promise.asked {
                let doubtful = promise.addresses.iter().map(|address| (*address, handle.to_owned()));
                self.away.doubtful.extend(doubtful);
                self.away.freeing.insert(handle.to_owned());
            }
            self.away.resting.extend(promise.addresses.into_iter().map(|address| (address, now)));
        }
        if !self.away.freeing.contains(handle) {
            self.away.left.entry(handle.to_owned()).or_insert(now);
        }
    }

    /// What was given and is not written yet: handle, attributes and addresses.
    pub fn promises(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, String>, &[IpAddr])> {
        let promises = self.away.promises.iter();
        promises.map(|(handle, promise)| (handle.as_str(), &promise.attributes, &promise.addresses[..]))
    }

    /// As [`Self::promises`]: handle and addresses.
    pub fn promised(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        self.promises().map(|(handle, _, addresses)| (handle, addresses))
    }

    /// Containers that are wanted again, with what they have.
    pub(crate) fn come_back_to(&mut self, requests: &[AssignRequest]) {
        for request in requests {
            self.away.left.remove(&request.handle);
        }
    }

    /// What a handle has or was promised, as far as that is certain.
    fn known_of(&self, handle: &str) -> Vec<Assigned> {
        if let Some(promise) = self.away.promises.get(handle) {
            let assigned = |address: &IpAddr| {
                let block = self.containing(*address)?;
                Some(Assigned { address: *address, block })
            };
            return promise.addresses.iter().filter_map(assigned).collect();
        }
        if self.is_freeing(handle) {
            return Vec::new();
        }
        let held = self.held_by(handle).into_iter();
        held.filter(|assigned| !self.is_promised(assigned.address)).collect()
    }

    fn containing(&self, address: IpAddr) -> Option<IpNet> {
        self.blocks.keys().chain(self.foreign.keys()).copied().find(|cidr| cidr.contains(&address))
    }

    fn is_promised(&self, address: IpAddr) -> bool {
        self.away.promises.values().any(|promise| promise.addresses.contains(&address))
    }

    /// One address for an item.
    fn spare(
        &self,
        terms: Terms<'_>,
        batch: &Batch<'_>,
        item: usize,
        request: &AssignRequest,
        taken: &BTreeSet<IpAddr>,
    ) -> Result<Assigned, Error> {
        let away = |reason: String| Error::Away { reason };
        if request.usage != AllowedUse::Workload {
            return Err(away("only pods are given an address until it is back".to_owned()));
        }
        let pools = batch.items[item].pools.as_ref().map_err(|error| away(error.to_string()))?;
        let pools: Vec<&IpPool> = pools.iter().map(|index| &terms.rules.pools[*index]).collect();
        let fits = |found: &Assigned| {
            batch.fixed(item).is_none_or(|wanted| wanted == found.address)
                && !taken.contains(&found.address)
                && self.may_give(terms, found.address)
        };
        let mut found = None;
        for kind in [Self::of_pod, Self::held_back, Self::nobody_elses] {
            let mut blocks = pools.iter().flat_map(|pool| self.in_pool(pool));
            found = found.or_else(|| {
                blocks.find_map(|block| kind(self, terms, block, request).into_iter().find(fits))
            });
        }
        found.ok_or_else(|| away(nothing_left(batch.fixed(item), &pools)))
    }

    /// Whether nothing speaks against giving an address that is this node's to give.
    pub(crate) fn may_give(&self, terms: Terms<'_>, address: IpAddr) -> bool {
        !self.is_promised(address)
            && !block::is_reserved(address, terms.rules.reserved)
            && !self.is_doubtful(address)
            && self.has_rested(terms, address)
    }

    /// Whether a release of this handle was asked for, and nobody knows what became of it.
    pub(crate) fn is_freeing(&self, handle: &str) -> bool {
        self.away.freeing.contains(handle)
    }

    fn in_pool<'s>(&'s self, pool: &IpPool) -> impl Iterator<Item = &'s Block> + use<'s> {
        let cidr = pool.cidr;
        let blocks = self.blocks.values().chain(self.foreign.values());
        blocks.filter(move |block| cidr.contains(&block.spec.cidr))
    }

    fn is_doubtful(&self, address: IpAddr) -> bool {
        self.away.doubtful.get(&address).is_some_and(|handle| self.away.freeing.contains(handle))
    }

    fn has_rested(&self, terms: Terms<'_>, address: IpAddr) -> bool {
        self.away.resting.get(&address).is_none_or(|since| is_over(terms, *since))
    }

    /// What earlier containers of the same pod held.
    fn of_pod(&self, terms: Terms<'_>, block: &Block, request: &AssignRequest) -> Vec<Assigned> {
        let left = |by: &AllocationAttribute| {
            let since = block::handle_of(by).and_then(|handle| self.away.left.get(handle));
            since.is_some_and(|since| is_over(terms, *since))
                && is_same_pod(&by.secondary, &request.attributes)
                && self.is_ours(by)
        };
        let held = block::held(&block.spec).filter(|(_, _, by)| left(by));
        held.map(|(_, address, _)| Assigned { address, block: block.spec.cidr }).collect()
    }

    fn held_back(&self, _: Terms<'_>, block: &Block, _: &AssignRequest) -> Vec<Assigned> {
        let held = self.reserved_in(block);
        held.map(|(_, address)| Assigned { address, block: block.spec.cidr }).collect()
    }

    /// With strict affinity: what is free in a block that stays ours.
    fn nobody_elses(&self, terms: Terms<'_>, block: &Block, _: &AssignRequest) -> Vec<Assigned> {
        let (config, cidr) = (terms.rules.config, block.spec.cidr);
        let stays = |by: &AllocationAttribute| {
            self.is_ours(by) && by.secondary.contains_key("type") && !by.secondary.contains_key("pod")
        };
        let safe = config.strict_affinity
            && self.blocks.contains_key(&cidr)
            && self.away.written.contains(&cidr)
            && block::held(&block.spec).any(|(_, _, by)| stays(by));
        if !safe {
            return Vec::new();
        }
        let cool = block::held(&block.spec)
            .filter(|(_, _, by)| block::is_cool(by, terms.now, config.ip_cooldown_seconds))
            .map(|(_, address, _)| address);
        let free = block.spec.unallocated.iter().map(|ordinal| block::address(cidr, *ordinal));
        free.chain(cool).map(|address| Assigned { address, block: cidr }).collect()
    }

    pub(crate) fn is_ours(&self, by: &AllocationAttribute) -> bool {
        by.secondary.get("node").is_some_and(|node| node == self.node.as_str())
    }

    /// These are about to be released: what they hold may be free from now on.
    pub(crate) fn begin_to_free(&mut self, handles: &[String]) {
        for handle in handles {
            self.away.left.remove(handle);
            self.away.freeing.insert(handle.clone());
        }
    }

    /// These hold nothing any more, which is certain.
    pub(crate) fn freed<'h>(&mut self, handles: impl Iterator<Item = &'h str>) {
        for handle in handles {
            self.away.freeing.remove(handle);
        }
    }

    /// Everything that was promised is written: what rested does so in the datastore.
    pub(crate) fn end_of_absence(&mut self) {
        self.away.resting.clear();
        let Away { doubtful, freeing, .. } = &mut self.away;
        doubtful.retain(|_, handle| freeing.contains(handle));
    }
}

/// Whether an address that came back at `since` may be given out again.
fn is_over(terms: Terms<'_>, since: SystemTime) -> bool {
    let rested = terms.now.duration_since(since).unwrap_or_default().as_secs();
    rested >= u64::from(terms.rules.config.ip_cooldown_seconds)
}

/// Whether both name a pod, and the same one.
pub(crate) fn is_same_pod(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    ["namespace", "pod"].iter().all(|key| one.get(*key).is_some_and(|said| other.get(*key) == Some(said)))
}

fn nothing_left(fixed: Option<IpAddr>, pools: &[&IpPool]) -> String {
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    let pools = names.join(", ");
    match fixed {
        Some(address) => {
            format!("address {address} is not held back by this node, and may be another's by now")
        }
        None => format!("this node holds no more addresses back in pools [{pools}] (MANX_IPAM_RESERVE)"),
    }
}
