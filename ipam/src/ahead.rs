//! Giving addresses ahead of their being written.
//!
//! What a node holds back ([`crate::reserve`]) is given to nobody else, so a pod need not wait until the datastore says that it
//! has one of these: it is promised, and written while the pod goes on. The same write of the block holds another address
//! back. Whoever is killed in between finds the promise in the kernel, as after an absence of the datastore
//! ([`crate::away`]).
//!
//! Only what is sure to come to the same end as [`Allocator::assign`] is given so: the handle is new, as far as is known;
//! the pool is the one that would be taken from; the block has a free address to be held back instead, so that the reserve
//! is as large as before; and this allocator has written the block before, so that no write of an agent that was killed can
//! come about in it any more. What comes while such a write is under way is given ahead, too, and is in the next one. A caller
//! whose write has failed gives nothing ahead: who comes next is to hear why.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use manx_model::AllowedUse;

use crate::away::{Away, Terms};
use crate::batch::Batch;
use crate::block::Block;
use crate::{Allocator, AssignRequest, Assigned, Rules};

/// What is given of each block.
type Given = BTreeMap<IpNet, Vec<IpAddr>>;

impl Allocator {
    /// Gives each request its addresses from the reserve, without asking the datastore, answering in the order of
    /// `requests`; `None`, and nothing is given, if that cannot be done for all of them. What is given is to be written
    /// ([`Self::begin_to_redeem`], [`Self::redeem`]) before anything else is asked of this allocator.
    pub fn assign_ahead(
        &mut self,
        now: SystemTime,
        rules: Rules<'_>,
        requests: &[AssignRequest],
    ) -> Option<Vec<Vec<Assigned>>> {
        if !self.loaded || !requests.iter().all(|asked| self.is_new(asked)) {
            return None;
        }
        let terms = Terms { now, rules };
        let mut batch = Batch::new(requests, rules, &self.node);
        let mut given = self.given();
        for item in batch.open() {
            let assigned = self.held_back_for(terms, batch.items[item].pools.as_deref().ok()?, &given)?;
            given.entry(assigned.block).or_default().push(assigned.address);
            batch.give(item, assigned);
        }
        let answers: Vec<Vec<Assigned>> = batch.answers().into_iter().collect::<Result<_, _>>().ok()?;
        for (request, assigned) in requests.iter().zip(&answers) {
            self.promise_to(request, assigned);
        }
        Some(answers)
    }

    /// Whether an ordinary request comes for the first time, as far as is known.
    fn is_new(&self, request: &AssignRequest) -> bool {
        let AssignRequest { handle, ipv4, ipv6, fixed, usage, .. } = request;
        *usage == AllowedUse::Workload
            && fixed.is_empty()
            && ipv4.count + ipv6.count > 0
            && !self.handles.contains_key(handle)
            && !self.away.promises.contains_key(handle)
            && !self.is_freeing(handle)
            && self.held_by(handle).is_empty()
    }

    /// What is promised already: each takes one that is free now, to be held back instead.
    fn given(&self) -> Given {
        let mut given = Given::new();
        for address in self.promised().flat_map(|(_, addresses)| addresses) {
            if let Some(block) = self.blocks.keys().find(|block| block.contains(address)) {
                given.entry(*block).or_default().push(*address);
            }
        }
        given
    }

    /// An address that is held back in the first of the pools in which this node has one to give.
    fn held_back_for(&self, terms: Terms<'_>, pools: &[usize], given: &Given) -> Option<Assigned> {
        let given_of = |block: &Block| given.get(&block.spec.cidr).map_or(&[][..], Vec::as_slice);
        let has_room = |block: &&Block| terms.free(block) > given_of(block).len();
        let with_room = pools.iter().find_map(|index| {
            let pool = &terms.rules.pools[*index];
            let own = self.blocks.values().filter(|block| pool.cidr.contains(&block.spec.cidr));
            let with_room: Vec<&Block> = own.filter(has_room).collect();
            (!with_room.is_empty()).then_some(with_room)
        });
        let Away { written, writing, .. } = &self.away;
        let is_sure = |cidr: &IpNet| written.contains(cidr) || writing.contains(cidr);
        let sure = with_room?.into_iter().filter(|block| is_sure(&block.spec.cidr));
        sure.flat_map(|block| self.reserved_in(block).map(move |(_, address)| (block, address)))
            .find(|(block, address)| !given_of(block).contains(address) && self.may_give(terms, *address))
            .map(|(block, address)| Assigned { address, block: block.spec.cidr })
    }
}
