//! All blocks that there are, listed once when a node needs another one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use ipnet::IpNet;
use manx_datastore::{Datastore, Only};
use manx_model::{BlockSpec, IpPool, Kind, NodeName, cidr_name};

use crate::Error;
use crate::block::{self, Block};
use crate::choose::distance;
use crate::time::seconds_since;

/// A claim must be this old, in seconds, before another node may take the empty block (Calico's number).
const CLAIM_SETTLES: i64 = 60;

/// All blocks.
#[derive(Debug, Default)]
pub(crate) struct View {
    taken: Taken,
    blocks: BTreeMap<IpNet, Block>,
}

impl View {
    /// One list of all blocks, those that cannot be read included: their addresses may be in use.
    pub(crate) async fn read(store: &dyn Datastore) -> Result<Self, Error> {
        let mut view = Self::default();
        for listed in store.list(Kind::IPAMBlock, &Only::All).await? {
            let object = match listed {
                Ok(object) => object,
                Err(invalid) => {
                    view.taken.add_name(invalid.name);
                    continue;
                }
            };
            match object.spec::<BlockSpec>() {
                Ok(spec) if spec.deleted => continue,
                Ok(spec) => view.taken.add(spec.cidr),
                Err(_) => {}
            }
            view.taken.add_name(object.name());
            if let Ok(Some(block)) = Block::read(object) {
                view.blocks.insert(block.spec.cidr, block);
            }
        }
        Ok(view)
    }

    /// Whether a block with addresses of `cidr` is there.
    pub(crate) fn overlaps(&self, cidr: IpNet) -> bool {
        self.taken.overlaps(cidr)
    }

    /// From now on there is a block `cidr`.
    pub(crate) fn add(&mut self, cidr: IpNet) {
        self.taken.add(cidr);
    }

    /// The block of this very CIDR.
    pub(crate) fn block(&self, cidr: IpNet) -> Option<&Block> {
        self.blocks.get(&cidr)
    }

    /// The block that contains `address`.
    pub(crate) fn containing(&self, address: IpAddr) -> Option<&Block> {
        self.blocks.values().find(|block| block.spec.cidr.contains(&address))
    }

    /// The blocks in which `handle` holds an address.
    pub(crate) fn held_by<'a>(&'a self, handle: &'a str) -> impl Iterator<Item = &'a Block> {
        self.blocks.values().filter(move |block| block::addresses_of(&block.spec, handle).next().is_some())
    }

    /// The blocks of `pool` that belong to other nodes or to nobody, in the order in which `node` tries them.
    pub(crate) fn of_others<'a>(&'a self, pool: &IpPool, node: &NodeName) -> Vec<&'a Block> {
        let ours = block::owner(node);
        let foreign = |block: &&Block| match block.spec.affinity.as_deref() {
            Some(owner) => owner.starts_with("host:") && owner != ours,
            None => true,
        };
        let inside = self.blocks.range(pool.cidr..).map(|(_, block)| block);
        let inside = inside.take_while(|block| block.spec.cidr.network() <= pool.cidr.broadcast());
        let mut blocks: Vec<&Block> =
            inside.filter(|block| pool.cidr.contains(&block.spec.cidr)).filter(foreign).collect();
        blocks.sort_by_key(|block| distance(pool, node, block.spec.cidr));
        blocks
    }
}

/// The node whose block this is, if it may be taken from it: empty, and claimed long enough ago.
pub(crate) fn reclaimable(block: &BlockSpec, now: SystemTime) -> Option<NodeName> {
    let node = block.affinity.as_deref()?.strip_prefix("host:")?.parse().ok()?;
    // A block from before there was a claim time is older than any.
    let settled = match block.affinity_claim_time.as_deref() {
        None => true,
        Some(time) => seconds_since(time, now).is_some_and(|seconds| seconds >= CLAIM_SETTLES),
    };
    (settled && block::is_empty(block)).then_some(node)
}

/// The blocks that exist, as far as claiming another one is concerned.
#[derive(Debug, Default)]
struct Taken {
    /// By name, those that cannot be read included.
    names: BTreeSet<String>,
    /// By length.
    networks: BTreeMap<u8, BTreeSet<IpNet>>,
}

impl Taken {
    fn add_name(&mut self, name: impl Into<String>) {
        self.names.insert(name.into());
    }

    fn add(&mut self, cidr: IpNet) {
        self.add_name(cidr_name(cidr));
        self.networks.entry(cidr.prefix_len()).or_default().insert(cidr.trunc());
    }

    /// Whether an existing block has addresses in common with `cidr`. Blocks of another size stand where a pool was
    /// replaced by one with another block size.
    fn overlaps(&self, cidr: IpNet) -> bool {
        self.names.contains(&cidr_name(cidr))
            || self.networks.iter().any(|(length, networks)| match *length <= cidr.prefix_len() {
                true => IpNet::new(cidr.addr(), *length).is_ok_and(|wider| networks.contains(&wider.trunc())),
                false => networks.range(cidr..).next().is_some_and(|next| cidr.contains(next)),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_another_size_takes_what_it_overlaps() {
        let mut taken = Taken::default();
        taken.add("10.0.0.0/28".parse().unwrap());
        taken.add("10.0.0.200/32".parse().unwrap());
        for (cidr, overlaps) in [
            ("10.0.0.0/26", true),
            ("10.0.0.0/28", true),
            ("10.0.0.4/30", true),
            ("10.0.0.64/26", false),
            ("10.0.0.192/26", true),
            ("10.0.0.201/32", false),
        ] {
            assert_eq!(taken.overlaps(cidr.parse().unwrap()), overlaps, "{cidr}");
        }
    }
}
