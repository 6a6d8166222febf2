//! Why an address could not be had or given back.

use std::net::IpAddr;

use manx_datastore as datastore;
use manx_model::NodeName;

use crate::Family;

/// Why IPAM could not do what was asked. The sentences that Calico has are Calico's, with what an operator needs added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node owns as many blocks as it may, and all of them are full.
    #[error(
        "Need to allocate an IPAM block but could not - limit of {limit} blocks reached for this node ({node}); \
         raise maxBlocksPerHost of IPAMConfig default"
    )]
    BlockLimit {
        /// The node.
        node: NodeName,
        /// The limit.
        limit: usize,
    },
    /// The node's blocks are full, and it may neither claim nor borrow.
    #[error("No more free affine blocks and strict affinity enabled (node {node}, pools: [{}])", pools.join(", "))]
    StrictAffinity {
        /// The node.
        node: NodeName,
        /// The pools that were tried.
        pools: Vec<String>,
    },
    /// Every block of every pool has an owner, and this node's own are full.
    #[error("No IPs available in pools: [{}] (node {node}: its blocks are full, and no block is free to claim)", pools.join(", "))]
    PoolsExhausted {
        /// The node.
        node: NodeName,
        /// The pools that were tried.
        pools: Vec<String>,
    },
    /// There is no pool that may be used.
    #[error("no IPPool gives {family} addresses to this request on node {node} ({})", reasons(refused))]
    NoPool {
        /// The node.
        node: NodeName,
        /// The family.
        family: Family,
        /// Each pool that there is, and why it is not used.
        refused: Vec<String>,
    },
    /// A pool that the request names cannot be had.
    #[error("the request names IPPool {pool:?}, {reason}")]
    NamedPool {
        /// As the request names it.
        pool: String,
        /// Why not.
        reason: String,
    },
    /// An address that the request names cannot be had.
    #[error("address {address} cannot be assigned: {reason}")]
    FixedAddress {
        /// The address.
        address: IpAddr,
        /// Why not.
        reason: String,
    },
    /// The node's blocks are full, and it may not claim another.
    #[error("node {node} needs an IPAM block, and autoAllocateBlocks of IPAMConfig default is false")]
    AutoAllocateBlocks {
        /// The node.
        node: NodeName,
    },
    /// A handle becomes the name of an object, and this one cannot.
    #[error("handle {handle:?} cannot be stored: {reason}")]
    Handle {
        /// The handle.
        handle: String,
        /// What it must look like.
        reason: String,
    },
    /// Other writers were faster every time.
    #[error("{what} was changed by other writers {tries} times in a row; try again")]
    Contention {
        /// The object.
        what: String,
        /// The number of tries.
        tries: usize,
    },
    /// The datastore is away, and no address is known that nobody else may be given meanwhile.
    #[error("the datastore is away: {reason}")]
    Away {
        /// Why none of those that this node holds back is for this request.
        reason: String,
    },
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
}

impl Error {
    pub(crate) fn contention(what: impl ToString) -> Self {
        Self::Contention { what: what.to_string(), tries: crate::TRIES }
    }

    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Datastore(error) if is_race(error))
    }

    /// Whether the datastore did not answer: what was asked for may or may not have come about.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Datastore(datastore::Error::Unavailable(_)))
    }
}

fn reasons(refused: &[String]) -> String {
    match refused {
        [] => "there is none: create one".to_owned(),
        refused => refused.join("; "),
    }
}

/// Somebody else was faster: read again and decide again.
pub(crate) fn is_race(error: &datastore::Error) -> bool {
    use datastore::Error::{Conflict, Exists, Gone};
    matches!(error, Conflict { .. } | Exists { .. } | Gone { .. })
}

impl From<manx_model::Invalid> for Error {
    fn from(invalid: manx_model::Invalid) -> Self {
        Self::Datastore(invalid.into())
    }
}
