//! What pods, nodes and crashes have left behind in the whole cluster, found and cleared away (Calico's rules, those of its
//! kube-controllers).
//!
//! Whoever runs this must be alone in doing so (a leader), for the sake of the calls, not of safety: each action is
//! carried out only if what it was decided on is still stored. An action that waits for its grace is remembered with the
//! sequence numbers and versions that it was decided on, and starts to wait anew when one of them has changed.

mod carry_out;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use manx_model::{IpPool, NodeName, Object};

pub(crate) use carry_out::carry_out as act;
pub use judge::Metrics;
pub(crate) use judge::{leftovers, owner_of, size};

/// For how long a leftover must have looked the same, if nothing else is configured (Calico's `leakGracePeriod`).
pub const DEFAULT_GRACE: Duration = Duration::from_secs(15 * 60);

/// Everything that there is, as of one moment. An object that cannot be read counts as in use.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The IPAMBlocks.
    pub blocks: &'a [Object],
    /// The BlockAffinities.
    pub affinities: &'a [Object],
    /// The IPAMHandles.
    pub handles: &'a [Object],
    /// The nodes that exist.
    pub nodes: &'a BTreeSet<NodeName>,
    /// Of these, those that need no blocks, since they give their pods addresses of their podCIDRs.
    pub blockless: &'a BTreeSet<NodeName>,
    /// The pods that exist, by namespace and name.
    pub pods: &'a BTreeMap<(String, String), PodState>,
    /// The pools, for the metrics.
    pub pools: &'a [IpPool],
}

/// What is known of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodState {
    /// Where it runs; `None` while it is not scheduled.
    pub node: Option<String>,
    /// Its addresses, as its status or its annotations say; empty while nothing says any.
    pub addresses: Vec<IpAddr>,
    /// It has ended, or CNI has released its addresses: it owns none.
    pub finished: bool,
}

/// One thing to clear away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Release all that a handle holds. Look once more at the pod right before.
    ReleaseHandle {
        /// The handle.
        handle: String,
        /// Namespace and name of the pod that is gone, where the allocation names one.
        pod: Option<(String, String)>,
        /// What it holds: all of it.
        held: Vec<Leaked>,
    },
    /// Take an empty block from its owner.
    ReleaseBlock {
        /// The owner.
        node: NodeName,
        /// The block.
        block: IpNet,
        /// The block's sequence number when it was found empty.
        sequence: u64,
    },
    /// Delete an empty block that no affinity stands for.
    DeleteBlock {
        /// The block.
        block: IpNet,
        /// The block's sequence number when it was found empty.
        sequence: u64,
    },
    /// Remove a handle that holds nothing.
    RemoveHandle {
        /// Its name.
        handle: String,
        /// The version that was found.
        version: String,
    },
    /// Let a handle say what it holds, or store the one that addresses are held by.
    StoreHandle {
        /// The handle.
        handle: String,
        /// The version that was found; `None` where there is none.
        version: Option<String>,
        /// How many addresses it holds of which block.
        blocks: BTreeMap<IpNet, u32>,
    },
    /// Remove an affinity that has no block.
    RemoveAffinity {
        /// Whose.
        node: NodeName,
        /// For which block.
        block: IpNet,
        /// The version that was found.
        version: String,
    },
    /// Finish or roll back a claim that was left half done.
    Mend {
        /// Whose.
        node: NodeName,
        /// For which block.
        block: IpNet,
        /// The affinity's version that was found; `None` where there is no affinity for a block in use.
        version: Option<String>,
    },
}

/// One address of a handle, as it was when it was found leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaked {
    /// The address.
    pub address: IpAddr,
    /// Its block.
    pub block: IpNet,
    /// At which sequence number of the block it was given out; old allocations have none.
    pub sequence: Option<u64>,
}

/// Decides what is left behind, and for how long it has been. Its memory is worth a grace period, no more: losing it
/// with the leader costs nothing but time.
#[derive(Debug)]
pub struct Collector {
    grace: Duration,
    /// Since when each action has been due.
    candidates: BTreeMap<Action, SystemTime>,
    reclaimed: u64,
}

impl Collector {
    /// A collector that knows nothing yet. A grace of zero means: never on suspicion, only for nodes that are gone.
    pub fn new(grace: Duration) -> Self {
        Self { grace, candidates: BTreeMap::new(), reclaimed: 0 }
    }

    /// What is to be done now. Look at the world at least twice per grace period; what must wait is looked at again.
    pub fn observe(&mut self, observed: Observed<'_>, now: SystemTime) -> Vec<Action> {
        let found = leftovers(observed);
        self.candidates.retain(|action, _| found.contains_key(action));
        let mut due = Vec::new();
        for (action, at_once) in found {
            let since = *self.candidates.entry(action.clone()).or_insert(now);
            let waited = now.duration_since(since).unwrap_or_default();
            if at_once || (!self.grace.is_zero() && waited >= self.grace) {
                due.push(action);
            }
        }
        due
    }

    /// The numbers behind Calico's `ipam_*` metrics.
    pub fn metrics(&self, observed: Observed<'_>) -> Metrics {
        let mut metrics = judge::metrics(observed);
        metrics.candidates = self.candidates.len();
        metrics.reclaimed = self.reclaimed;
        metrics
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReleaseHandle { handle, held, .. } => {
                write!(f, "release")?;
                held.iter().try_for_each(|held| write!(f, " {}", held.address))?;
                write!(f, " of handle {handle}, which nobody has any more")
            }
            Self::ReleaseBlock { node, block, .. } => {
                write!(f, "take the empty block {block} from node {node}")
            }
            Self::DeleteBlock { block, .. } => write!(f, "delete block {block}, which is empty and nobody's"),
            Self::RemoveHandle { handle, .. } => write!(f, "remove handle {handle}, which holds nothing"),
            Self::StoreHandle { handle, .. } => {
                write!(f, "store handle {handle} with the blocks in which it holds addresses")
            }
            Self::RemoveAffinity { node, block, .. } => {
                write!(f, "remove the affinity of node {node} for block {block}, which it does not have")
            }
            Self::Mend { node, block, .. } => {
                write!(f, "finish or roll back the claim of node {node} for block {block}")
            }
        }
    }
}
