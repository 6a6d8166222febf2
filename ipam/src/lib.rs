//! Who gets which address: choose, claim, release, sweep.
//!
//! A pool is cut into blocks. A node owns the blocks for which it holds a confirmed BlockAffinity, and gives their
//! addresses to its pods; where none is left to claim it borrows from blocks of others. A handle names who holds an
//! address. What is stored is Calico's, field for field, and the protocols are Calico's, so that both can work on one
//! datastore. Every write is a compare-and-swap, and any call may fail after it was carried out: each protocol leaves, at
//! every point, a state from which [`Allocator::load`], [`Allocator::sweep`] and the [`Collector`] go on.
//!
//! A node holds some addresses back. A pod is given one of these, and what it was given is written afterwards
//! ([`Allocator::assign_ahead`], [`Allocator::redeem`]): the pod does not wait for the datastore. While the datastore is away
//! only such addresses are given of which it is known that nobody else is given them meanwhile ([`Allocator::assign_away`]).
//!
//! [`Allocator`] is one node's; [`Collector`] is the cluster's; [`check()`], [`usage()`], [`split()`] and
//! [`release_address`] are an operator's.
//!
//! Nothing here knows a runtime or a clock: futures over `&dyn Datastore`, and `now` is given.

mod affinity;
mod ahead;
mod allocator;
mod assign;
mod audit;
mod away;
mod batch;
mod block;
mod check;
mod choose;
mod collector;
mod error;
mod grow;
mod handle;
mod load;
mod plan;
mod pod_cidr;
mod pools;
mod redeem;
mod release;
mod request;
mod reserve;
mod single;
mod split;
mod sweep;
mod time;
mod usage;
mod view;

pub use allocator::{Allocator, LoadReport, SweepReport};
pub use audit::{Finding, audit};
pub use check::{Fix, Problem, check, fix};
pub use choose::check_overlaps;
pub use collector::{Action, Collector, DEFAULT_GRACE, Leaked, Metrics, Observed, PodState};
pub use error::Error;
pub use pod_cidr::{is_for_pods, next_in_pod_cidr, tunnel_in_pod_cidr};
pub use redeem::{Broken, Redeemed, Redeeming};
pub use request::{AssignRequest, Assigned, Family, Rules, Wanted};
pub use reserve::DEFAULT_RESERVE;
pub use single::release_address;
pub use split::{SplitError, plan_split, split};
pub use time::rfc3339;
pub use usage::{BlockUsage, Holder, PoolUsage, Usage, usage};

/// How often a write is decided anew after a conflict before it is given up (Calico's number).
const TRIES: usize = 100;

#[cfg(test)]
mod tests;
