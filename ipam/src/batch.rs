//! The requests of one call: what each still wants, and what has been found or written for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::{AllocationAttribute, NodeName};

use crate::block::{self, Block};
use crate::request::{Family, Rules};
use crate::view::View;
use crate::{AssignRequest, Assigned, Error, handle, pools};

/// One address that is wanted.
#[derive(Debug)]
pub(crate) struct Item {
    /// Whose: an index into the requests.
    pub(crate) request: usize,
    pub(crate) want: Want,
    /// The pools (indices into the rules' pools) from which it may be taken, in this order; or why none can be had. Who
    /// holds an address keeps it all the same.
    pub(crate) pools: Result<Vec<usize>, Error>,
    answer: Option<Assigned>,
}

/// Which address would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Any of this family.
    Any(Family),
    /// This one.
    Fixed(IpAddr),
}

impl Item {
    /// Whether an address for one is as good as an address for the other.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.want == other.want && self.pools == other.pools
    }
}

/// The requests of one call, and how far they have come.
pub(crate) struct Batch<'a> {
    requests: &'a [AssignRequest],
    /// Of requests with one handle, the first stands for all.
    first: Vec<usize>,
    pub(crate) items: Vec<Item>,
    errors: BTreeMap<usize, Error>,
    /// What requests hold in blocks that the allocator does not remember.
    elsewhere: BTreeMap<usize, Vec<Assigned>>,
    /// The requests that held something before this call.
    held_before: BTreeSet<usize>,
    /// The requests whose handle may have been written by this call.
    pub(crate) written: BTreeSet<usize>,
    /// The requests whose handle is known to be stored: it was written, or read, after the blocks that it names were.
    pub(crate) sure: BTreeSet<usize>,
    /// The requests of which it is known what their handle holds.
    pub(crate) seen: BTreeSet<usize>,
    /// Blocks of others from which addresses may be borrowed, as they were found.
    pub(crate) lent: BTreeMap<IpNet, Block>,
    /// All blocks, once they had to be listed.
    pub(crate) view: Option<View>,
    /// Whether it is known that no handle holds anything where the allocator does not look.
    pub(crate) looked: bool,
    /// Writes whose fate was unknown.
    pub(crate) unknown: usize,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(requests: &'a [AssignRequest], rules: Rules<'_>, node: &NodeName) -> Self {
        let mut seen = BTreeMap::new();
        let first = requests
            .iter()
            .enumerate()
            .map(|(index, request)| *seen.entry(request.handle.as_str()).or_insert(index));
        let mut batch = Self {
            requests,
            first: first.collect(),
            items: Vec::new(),
            errors: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            held_before: BTreeSet::new(),
            written: BTreeSet::new(),
            sure: BTreeSet::new(),
            seen: BTreeSet::new(),
            lent: BTreeMap::new(),
            view: None,
            looked: false,
            unknown: 0,
        };
        for index in batch.requests() {
            let request = &requests[index];
            match handle::check(&request.handle) {
                Ok(()) => batch.items.extend(items(rules, node, request, index)),
                Err(error) => batch.refuse_request(index, error),
            }
        }
        batch
    }

    pub(crate) fn handle(&self, request: usize) -> &'a str {
        &self.requests[request].handle
    }

    /// Those that count; the others are answered as these are.
    pub(crate) fn requests(&self) -> impl Iterator<Item = usize> + use<> {
        let first: BTreeSet<usize> = self.first.iter().copied().collect();
        first.into_iter()
    }

    /// The address that this item names.
    pub(crate) fn fixed(&self, item: usize) -> Option<IpAddr> {
        match self.items[item].want {
            Want::Fixed(address) => Some(address),
            Want::Any(_) => None,
        }
    }

    /// The items without an answer, of requests that have not failed.
    pub(crate) fn open(&self) -> Vec<usize> {
        let open = |item: &Item| item.answer.is_none() && !self.errors.contains_key(&item.request);
        (0..self.items.len()).filter(|index| open(&self.items[*index])).collect()
    }

    /// The requests with open items.
    pub(crate) fn open_requests(&self) -> BTreeSet<usize> {
        self.open().into_iter().map(|index| self.items[index].request).collect()
    }

    /// Matches what each handle holds with what its request wants.
    pub(crate) fn answer(&mut self, held_by: impl Fn(&str) -> Vec<Assigned>) {
        self.items.iter_mut().for_each(|item| item.answer = None);
        for request in 0..self.requests.len() {
            let held = self.held(request, &held_by);
            if !held.is_empty() {
                answer(self.items.iter_mut().filter(|item| item.request == request), held);
            }
        }
    }

    /// What a request holds, as far as is known.
    pub(crate) fn held(&self, request: usize, held_by: impl Fn(&str) -> Vec<Assigned>) -> BTreeSet<Assigned> {
        let elsewhere = self.elsewhere.get(&request).into_iter().flatten().copied();
        held_by(self.handle(request)).into_iter().chain(elsewhere).collect()
    }

    /// Answers an item.
    pub(crate) fn give(&mut self, item: usize, assigned: Assigned) {
        self.items[item].answer = Some(assigned);
    }

    /// Whether these blocks hold something for a request that it is not known to hold.
    pub(crate) fn learns(&self, request: usize, blocks: &[Block], held: &[Assigned]) -> bool {
        let known = self.elsewhere.get(&request).into_iter().flatten();
        let known: BTreeSet<Assigned> = known.chain(held).copied().collect();
        blocks
            .iter()
            .flat_map(|block| addresses(block, self.handle(request)))
            .any(|found| !known.contains(&found))
    }

    pub(crate) fn found_before(&mut self, request: usize) {
        self.held_before.insert(request);
    }

    pub(crate) fn found_elsewhere(&mut self, request: usize, held: Vec<Assigned>) {
        self.held_before.insert(request);
        self.elsewhere.insert(request, held);
    }

    pub(crate) fn attribute(&self, item: usize, node: &NodeName) -> AllocationAttribute {
        let request = &self.requests[self.items[item].request];
        let mut secondary = request.attributes.clone();
        secondary.entry("node".to_owned()).or_insert_with(|| node.to_string());
        AllocationAttribute { handle_id: Some(request.handle.clone()), secondary, ..Default::default() }
    }

    /// Half of what a request wants is nothing: the first error is its answer.
    pub(crate) fn refuse(&mut self, item: usize, error: Error) {
        self.refuse_request(self.items[item].request, error);
    }

    pub(crate) fn refuse_request(&mut self, request: usize, error: Error) {
        self.errors.entry(request).or_insert(error);
    }

    pub(crate) fn refuse_open(&mut self, error: &Error) {
        for request in self.open_requests() {
            self.refuse_request(request, error.clone());
        }
    }

    /// The handles of requests that failed after something was written for them, and that held nothing before. A datastore
    /// that did not answer is not asked again: whoever is told of that releases the handle.
    pub(crate) fn to_undo(&self) -> Vec<String> {
        let failed = self
            .written
            .iter()
            .filter(|request| self.errors.get(request).is_some_and(|error| !error.is_unavailable()));
        let fresh = failed.filter(|request| !self.held_before.contains(request));
        fresh.map(|request| self.handle(*request).to_owned()).collect()
    }

    pub(crate) fn answers(self) -> Vec<Result<Vec<Assigned>, Error>> {
        let mut given: BTreeMap<usize, Vec<Assigned>> = BTreeMap::new();
        for item in &self.items {
            given.entry(item.request).or_default().extend(item.answer);
        }
        let answer = |first: &usize| match self.errors.get(first) {
            Some(error) => Err(error.clone()),
            None => Ok(given.get(first).cloned().unwrap_or_default()),
        };
        self.first.iter().map(answer).collect()
    }
}

/// What `handle` holds in `block`.
pub(crate) fn addresses(block: &Block, handle: &str) -> Vec<Assigned> {
    let cidr = block.spec.cidr;
    block::addresses_of(&block.spec, handle).map(|(_, address)| Assigned { address, block: cidr }).collect()
}

/// Addresses that were named come first, so that no other item takes one from under them.
fn answer<'i>(items: impl Iterator<Item = &'i mut Item>, mut held: BTreeSet<Assigned>) {
    let (fixed, any): (Vec<_>, Vec<_>) = items.partition(|item| matches!(item.want, Want::Fixed(_)));
    for item in fixed.into_iter().chain(any) {
        let found = held.iter().copied().find(|assigned| match item.want {
            Want::Any(family) => Family::of(assigned.block) == family,
            Want::Fixed(address) => assigned.address == address,
        });
        if let Some(found) = found {
            held.remove(&found);
            item.answer = Some(found);
        }
    }
}

fn items(rules: Rules<'_>, node: &NodeName, asked: &AssignRequest, request: usize) -> Vec<Item> {
    let item = |want, pools| Item { request, want, pools, answer: None };
    if !asked.fixed.is_empty() {
        let fixed = asked.fixed.iter();
        return fixed.map(|address| item(Want::Fixed(*address), pool_of(rules, *address))).collect();
    }
    let families = [(Family::V4, asked.ipv4.count), (Family::V6, asked.ipv6.count)];
    let wanted = families.into_iter().filter(|(_, count)| *count > 0).flat_map(|(family, count)| {
        std::iter::repeat_n((family, pools::choose(rules, node, asked, family)), count)
    });
    wanted.map(|(family, pools)| item(Want::Any(family), pools)).collect()
}

fn pool_of(rules: Rules<'_>, address: IpAddr) -> Result<Vec<usize>, Error> {
    let refused = |reason: String| Err(Error::FixedAddress { address, reason });
    if block::is_reserved(address, rules.reserved) {
        return refused("an IPReservation reserves it".to_owned());
    }
    match rules.pools.iter().position(|pool| pool.contains(address)) {
        None => refused("it is in no IPPool in use".to_owned()),
        Some(index) if rules.pools[index].disabled => {
            refused(format!("IPPool {}, which contains it, is disabled", rules.pools[index].name))
        }
        Some(index) => Ok(vec![index]),
    }
}
