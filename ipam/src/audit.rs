//! Whether what is stored fits together: for tests, and for an operator who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::{AffinitySpec, AffinityState, BlockSpec, HandleSpec, NodeName};

use crate::block::{self, handle_of, held, owner};

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Two blocks have addresses in common, and this one is held in both.
    AddressTwice {
        /// The address.
        address: IpAddr,
        /// The blocks.
        blocks: Vec<IpNet>,
    },
    /// The lists of a block do not fit each other.
    BrokenBlock {
        /// The block.
        block: IpNet,
        /// Which, and how.
        reason: String,
    },
    /// An address is neither held nor free.
    LostAddress {
        /// The block.
        block: IpNet,
        /// The address.
        address: IpAddr,
    },
    /// The block names an owner who has no confirmed affinity for it.
    BlockWithoutAffinity {
        /// The block.
        block: IpNet,
        /// The owner, as `host:<node>`.
        owner: String,
    },
    /// The affinity is neither of its block's owner nor about to be deleted.
    AffinityWithoutBlock {
        /// The node.
        node: NodeName,
        /// The block.
        block: IpNet,
    },
    /// A claim or a release was left half done.
    HalfDone {
        /// What, in the stored words, as `BlockAffinity of n1 for 10.0.0.0/26 is pending`.
        what: String,
    },
    /// An address is held by a handle that is not stored.
    HandleMissing {
        /// The handle.
        handle: String,
        /// The block.
        block: IpNet,
    },
    /// A handle says another number of addresses than the block.
    HandleCount {
        /// The handle.
        handle: String,
        /// The block.
        block: String,
        /// What the handle says.
        says: u32,
        /// How many it holds.
        holds: u32,
    },
}

/// Everything in these objects that does not fit together, in a stable order.
pub fn audit(blocks: &[BlockSpec], affinities: &[AffinitySpec], handles: &[HandleSpec]) -> Vec<Finding> {
    let mut findings = Vec::new();
    audit_blocks(blocks, &mut findings);
    audit_affinities(blocks, affinities, &mut findings);
    audit_handles(blocks, handles, &mut findings);
    findings.sort();
    findings
}

fn audit_blocks(blocks: &[BlockSpec], findings: &mut Vec<Finding>) {
    let mut holders: BTreeMap<IpAddr, Vec<IpNet>> = BTreeMap::new();
    for spec in blocks {
        let block = spec.cidr;
        if spec.deleted {
            findings.push(Finding::HalfDone { what: format!("IPAMBlock {block} is being deleted") });
            continue;
        }
        if let Err((field, reason)) = block::check(spec) {
            findings.push(Finding::BrokenBlock { block, reason: format!("{field}: {reason}") });
            continue;
        }
        for (_, address, _) in held(spec) {
            holders.entry(address).or_default().push(block);
        }
        let free: BTreeSet<usize> = spec.unallocated.iter().copied().collect();
        let lost = (0..spec.allocations.len())
            .filter(|ordinal| spec.allocations[*ordinal].is_none() && !free.contains(ordinal));
        findings.extend(
            lost.map(|ordinal| Finding::LostAddress { block, address: block::address(block, ordinal) }),
        );
    }
    let twice = holders.into_iter().filter(|(_, blocks)| blocks.len() > 1);
    findings.extend(twice.map(|(address, blocks)| Finding::AddressTwice { address, blocks }));
}

fn audit_affinities(blocks: &[BlockSpec], affinities: &[AffinitySpec], findings: &mut Vec<Finding>) {
    let owners: BTreeMap<IpNet, &str> =
        blocks.iter().filter_map(|block| Some((block.cidr, block.affinity.as_deref()?))).collect();
    let mut confirmed = BTreeSet::new();
    for affinity in affinities.iter().filter(|affinity| affinity.kind.as_deref() != Some("virtual")) {
        let (node, block) = (&affinity.node, affinity.cidr);
        let word = match affinity.state {
            _ if affinity.deleted == "true" => Some("being deleted"),
            AffinityState::Pending => Some("pending"),
            AffinityState::PendingDeletion => Some("being given up"),
            AffinityState::Confirmed => None,
        };
        if let Some(word) = word {
            let what = format!("BlockAffinity of {node} for {block} is {word}");
            findings.push(Finding::HalfDone { what });
        } else if owners.get(&block) == Some(&owner(node).as_str()) {
            confirmed.insert(block);
        } else {
            findings.push(Finding::AffinityWithoutBlock { node: node.clone(), block });
        }
    }
    let orphans =
        owners.into_iter().filter(|(block, owner)| owner.starts_with("host:") && !confirmed.contains(block));
    findings.extend(
        orphans.map(|(block, owner)| Finding::BlockWithoutAffinity { block, owner: owner.to_owned() }),
    );
}

fn audit_handles(blocks: &[BlockSpec], handles: &[HandleSpec], findings: &mut Vec<Finding>) {
    let mut holds: BTreeMap<(&str, String), u32> = BTreeMap::new();
    for block in blocks.iter().filter(|block| !block.deleted && block::check(block).is_ok()) {
        for (_, _, attribute) in held(block) {
            if let Some(handle) = handle_of(attribute) {
                *holds.entry((handle, block.cidr.to_string())).or_default() += 1;
            }
        }
    }
    for handle in handles {
        let id = &handle.handle_id;
        if handle.deleted || handle.block.is_empty() {
            findings.push(Finding::HalfDone { what: format!("IPAMHandle {id} is being deleted") });
        }
        for (block, says) in &handle.block {
            let holds = holds.remove(&(id.as_str(), block.clone())).unwrap_or(0);
            if *says != holds {
                findings.push(Finding::HandleCount {
                    handle: id.clone(),
                    block: block.clone(),
                    says: *says,
                    holds,
                });
            }
        }
    }
    for (handle, block) in holds.into_keys() {
        if let Ok(block) = block.parse() {
            findings.push(Finding::HandleMissing { handle: handle.to_owned(), block });
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressTwice { address, blocks } => {
                write!(f, "address {address} is held in {} blocks:", blocks.len())?;
                blocks.iter().try_for_each(|block| write!(f, " {block}"))
            }
            Self::BrokenBlock { block, reason } => write!(f, "block {block}: {reason}"),
            Self::LostAddress { block, address } => {
                write!(f, "block {block}: address {address} is neither held nor free")
            }
            Self::BlockWithoutAffinity { block, owner } => {
                write!(f, "block {block} belongs to {owner}, which has no confirmed affinity for it")
            }
            Self::AffinityWithoutBlock { node, block } => {
                write!(f, "node {node} has a confirmed affinity for block {block}, which is not its own")
            }
            Self::HalfDone { what } => write!(f, "left half done: {what}"),
            Self::HandleMissing { handle, block } => {
                write!(f, "block {block}: handle {handle} holds an address, and is not stored")
            }
            Self::HandleCount { handle, block, says, holds } => {
                write!(f, "handle {handle} says {says} addresses in block {block}, and holds {holds}")
            }
        }
    }
}
