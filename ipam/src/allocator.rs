//! The allocator of one node, and what goes in and comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use manx_datastore::Datastore;
use manx_model::{AllocationAttribute, Invalid, NodeName};

use crate::affinity::bump;
use crate::away::Away;
use crate::batch::addresses;
use crate::block::{self, Block};
use crate::handle::Handle;
use crate::{Assigned, Error};

/// Gives out the addresses of one node. Owned by one task of its agent; it remembers the node's blocks and the handles
/// that it wrote, so that an address costs one write of a block (for a whole batch) and one of each handle, and no list.
///
/// What it remembers is only a guess: each write is a compare-and-swap, and what others changed is read again. Any of
/// its futures may be dropped at any point; the next call goes on from what is stored.
#[derive(Debug)]
pub struct Allocator {
    pub(crate) node: NodeName,
    /// The blocks with a confirmed affinity of this node, as last read or written.
    pub(crate) blocks: BTreeMap<IpNet, Block>,
    /// Blocks that are not this node's, in which it holds addresses, as last read or written.
    pub(crate) foreign: BTreeMap<IpNet, Block>,
    /// Confirmed blocks that cannot be read: routed as before, and not allocated from.
    pub(crate) unreadable: BTreeSet<IpNet>,
    /// The handles that this allocator wrote or read, in their last known version.
    pub(crate) handles: BTreeMap<String, Handle>,
    /// Whether `blocks` is complete; not so before the first load, and after a claim that did not come to its end.
    pub(crate) loaded: bool,
    /// Whether what the handle of the reserve says is known to be so.
    pub(crate) reserve_settled: bool,
    /// What was given and is not written yet.
    pub(crate) away: Away,
}

/// What [`Allocator::load`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The blocks that this node owns.
    pub confirmed: Vec<IpNet>,
    /// Among them, those whose claim had been left half done and was finished.
    pub finished: Vec<IpNet>,
    /// Blocks that were given up: half-done claims and releases, and affinities for blocks of another node.
    pub given_up: Vec<IpNet>,
    /// Objects that cannot be read, and were left as they are.
    pub refused: Vec<Invalid>,
}

/// What [`Allocator::sweep`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// The addresses that were released, with their handles.
    pub released: Vec<(IpAddr, String)>,
}

impl Allocator {
    /// The allocator of `node`, which knows nothing yet; [`Self::load`] is done by the first call that needs it.
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            blocks: BTreeMap::new(),
            foreign: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            handles: BTreeMap::new(),
            loaded: false,
            reserve_settled: false,
            away: Away::default(),
        }
    }

    /// The node whose addresses these are.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The blocks that this node owns: exported, and blackholed locally.
    pub fn confirmed_blocks(&self) -> BTreeSet<IpNet> {
        self.blocks.keys().chain(&self.unreadable).copied().collect()
    }

    /// What this node holds: in its own blocks, and what it borrowed.
    pub fn allocations(&self) -> impl Iterator<Item = (IpAddr, &str, &AllocationAttribute)> {
        self.blocks.values().chain(self.foreign.values()).flat_map(|block| self.ours_in(block))
    }

    /// What this node holds in blocks that are not its own: address and handle. Each is to be originated as a route of its
    /// own, since the block's owner attracts the rest.
    pub fn borrowed(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        let ours = self.foreign.values().flat_map(|block| self.ours_in(block));
        ours.map(|(address, handle, _)| (address, handle))
    }

    pub(crate) fn ours_in<'a>(
        &'a self,
        block: &'a Block,
    ) -> impl Iterator<Item = (IpAddr, &'a str, &'a AllocationAttribute)> {
        block::held(&block.spec).filter_map(|(_, address, attribute)| {
            let ours = attribute.secondary.get("node").is_some_and(|node| node == self.node.as_str());
            ours.then_some((address, block::handle_of(attribute)?, attribute))
        })
    }

    /// The addresses that `handle` holds in the blocks that are remembered.
    pub(crate) fn held_by(&self, handle: &str) -> Vec<Assigned> {
        let blocks = self.blocks.values().chain(self.foreign.values());
        blocks.flat_map(|block| addresses(block, handle)).collect()
    }

    /// The block as it was last read or written, whoever owns it.
    pub(crate) fn remembered(&self, cidr: IpNet) -> Option<&Block> {
        self.blocks.get(&cidr).or_else(|| self.foreign.get(&cidr))
    }

    /// Takes in a newer version of a block: of one of ours, or of another in which this node holds addresses. One that is
    /// no longer ours makes the next call that needs our blocks look at what became of it.
    pub(crate) fn remember(&mut self, block: Block) {
        let cidr = block.spec.cidr;
        let owned = block.spec.affinity.as_deref() == Some(&block::owner(&self.node));
        match self.blocks.contains_key(&cidr) {
            true if owned => drop(self.blocks.insert(cidr, block)),
            // Its claim is not confirmed, as far as we know.
            false if owned => {}
            known => {
                if known {
                    self.forget_block(cidr);
                }
                if self.ours_in(&block).next().is_some() {
                    self.foreign.insert(cidr, block);
                } else {
                    self.foreign.remove(&cidr);
                }
            }
        }
    }

    /// Writes a block, and keeps in mind whether it is known what came of it.
    pub(crate) async fn write_block(&mut self, store: &dyn Datastore, block: Block) -> Result<Block, Error> {
        let cidr = block.spec.cidr;
        self.away.written.remove(&cidr);
        let written = bump(store, block).await?;
        self.away.written.insert(cidr);
        self.remember(written.clone());
        Ok(written)
    }

    /// There is no such block any more.
    pub(crate) fn forget_block(&mut self, cidr: IpNet) {
        self.foreign.remove(&cidr);
        if self.blocks.remove(&cidr).is_some() {
            self.loaded = false;
        }
    }
}
