//! Who has what: the numbers behind `manx ipam show`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::{Invalid, IpPool, Object};

use crate::block::{self, Block};
use crate::collector::{owner_of, size};

/// All pools with their blocks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// The pools, in the order in which they were given.
    pub pools: Vec<PoolUsage>,
    /// Blocks that are in none of them.
    pub outside: Vec<BlockUsage>,
    /// Blocks that cannot be read.
    pub unreadable: Vec<Invalid>,
}

/// One pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolUsage {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub cidr: IpNet,
    /// How many these are.
    pub size: u128,
    /// Its blocks.
    pub blocks: Vec<BlockUsage>,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUsage {
    /// Its addresses.
    pub cidr: IpNet,
    /// The node that owns it, or `virtual:…`; `None` when nobody does.
    pub owner: Option<String>,
    /// How many addresses it has.
    pub size: usize,
    /// How many are free.
    pub free: usize,
    /// How many were released and cool down.
    pub cooling: usize,
    /// The addresses that are held, in order.
    pub held: Vec<Holder>,
}

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The address.
    pub address: IpAddr,
    /// The handle; empty where the allocation has none.
    pub handle: String,
    /// The node on which it is used, where that is said.
    pub node: Option<String>,
    /// It is used on another node than the block's owner.
    pub borrowed: bool,
    /// Everything that is said about the holder: `pod`, `namespace`, `type`, ….
    pub attributes: BTreeMap<String, String>,
}

impl PoolUsage {
    /// Addresses that are held.
    pub fn in_use(&self) -> usize {
        self.blocks.iter().map(|block| block.held.len()).sum()
    }

    /// Addresses that are held by another node than their block's owner.
    pub fn borrowed(&self) -> usize {
        self.blocks.iter().map(BlockUsage::borrowed).sum()
    }

    /// Held addresses, in percent of the pool.
    pub fn percent(&self) -> f64 {
        self.in_use() as f64 * 100.0 / self.size as f64
    }
}

impl BlockUsage {
    /// Addresses that are held by another node than the owner.
    pub fn borrowed(&self) -> usize {
        self.held.iter().filter(|holder| holder.borrowed).count()
    }

    /// Held addresses, in percent of the block.
    pub fn percent(&self) -> f64 {
        self.held.len() as f64 * 100.0 / self.size as f64
    }
}

/// Sorts the IPAMBlocks into the pools.
pub fn usage(pools: &[IpPool], blocks: &[Object]) -> Usage {
    let mut usage = Usage::default();
    let empty = |pool: &IpPool| PoolUsage {
        name: pool.name.clone(),
        cidr: pool.cidr,
        size: size(pool),
        blocks: Vec::new(),
    };
    usage.pools.extend(pools.iter().map(empty));
    for object in blocks {
        let block = match Block::read(object.clone()) {
            Ok(Some(block)) => of_block(&block),
            Ok(None) => continue,
            Err(invalid) => {
                usage.unreadable.push(invalid);
                continue;
            }
        };
        match usage.pools.iter_mut().find(|pool| pool.cidr.contains(&block.cidr)) {
            Some(pool) => pool.blocks.push(block),
            None => usage.outside.push(block),
        }
    }
    let lists = usage.pools.iter_mut().map(|pool| &mut pool.blocks).chain([&mut usage.outside]);
    lists.for_each(|blocks| blocks.sort_by_key(|block| block.cidr));
    usage
}

fn of_block(block: &Block) -> BlockUsage {
    let spec = &block.spec;
    let host = owner_of(spec);
    let held = block::held(spec).filter(|(_, _, attribute)| attribute.released_at.is_none());
    let holder = |(_, address, attribute): (usize, IpAddr, &manx_model::AllocationAttribute)| {
        let node = attribute.secondary.get("node").cloned();
        Holder {
            address,
            handle: block::handle_of(attribute).unwrap_or_default().to_owned(),
            borrowed: node.is_some() && node.as_deref() != host,
            node,
            attributes: attribute.secondary.clone(),
        }
    };
    let held: Vec<Holder> = held.map(holder).collect();
    let cooling = spec.allocations.iter().flatten().count() - held.len();
    BlockUsage {
        cidr: spec.cidr,
        owner: host.map(str::to_owned).or_else(|| spec.affinity.clone()),
        size: spec.allocations.len(),
        free: spec.unallocated.len(),
        cooling,
        held,
    }
}
