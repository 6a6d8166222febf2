//! The allocator of one node, and what goes in and comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::{AllocationAttribute, Invalid, NodeName};

use crate::block::{self, Block};

/// Gives out the addresses of one node. Owned by one task of its agent; it remembers the node's blocks, so that an
/// address costs one write of a block (for a whole batch) and one of each handle, and no list.
///
/// What it remembers is only a guess: each write is a compare-and-swap, and what others changed is read again. Any of
/// its futures may be dropped at any point; the next call goes on from what is stored.
#[derive(Debug)]
pub struct Allocator {
    pub(crate) node: NodeName,
    /// The blocks with a confirmed affinity of this node, as last read or written.
    pub(crate) blocks: BTreeMap<IpNet, Block>,
    /// Confirmed blocks that cannot be read: routed as before, and not allocated from.
    pub(crate) unreadable: BTreeSet<IpNet>,
    /// Whether `blocks` is complete; not so before the first load, and after a claim that did not come to its end.
    pub(crate) loaded: bool,
}

/// Asks for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignRequest {
    /// By which the address is found and released again: a valid object name, as `k8s-pod-network.<containerid>`.
    pub handle: String,
    /// Who holds it: `node`, `pod`, `namespace`, `timestamp` of a pod; `node`, `type` of a tunnel. Without `node` being
    /// this node's name the address is not swept when it is left behind.
    pub attributes: BTreeMap<String, String>,
}

/// An address that a handle holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// The block from which it is.
    pub block: IpNet,
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
    /// The handles that claimed to hold addresses of this node's blocks and held none.
    pub dangling: Vec<String>,
}

impl Allocator {
    /// The allocator of `node`, which knows nothing yet; [`Self::load`] is done by the first call that needs it.
    pub fn new(node: NodeName) -> Self {
        Self { node, blocks: BTreeMap::new(), unreadable: BTreeSet::new(), loaded: false }
    }

    /// The blocks that this node owns: exported, and blackholed locally.
    pub fn confirmed_blocks(&self) -> BTreeSet<IpNet> {
        self.blocks.keys().chain(&self.unreadable).copied().collect()
    }

    /// What this node holds in its own blocks.
    pub fn allocations(&self) -> impl Iterator<Item = (IpAddr, &str, &AllocationAttribute)> {
        self.blocks.values().flat_map(|block| block::held(&block.spec)).filter_map(
            |(_, address, attribute)| {
                let ours = attribute.secondary.get("node").is_some_and(|node| node == self.node.as_str());
                ours.then_some((address, block::handle_of(attribute)?, attribute))
            },
        )
    }

    /// The address that `handle` holds in one of this node's blocks.
    pub(crate) fn held_by(&self, handle: &str) -> Option<Assigned> {
        self.blocks.iter().find_map(|(cidr, block)| {
            let (_, address) = block::addresses_of(&block.spec, handle).next()?;
            Some(Assigned { address, block: *cidr })
        })
    }
}
