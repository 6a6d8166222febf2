//! Who gets which address: choose, claim, release, sweep.
//!
//! A pool is cut into blocks. A node owns the blocks for which it holds a confirmed BlockAffinity, and gives their
//! addresses to its pods; a handle names who holds an address. What is stored is Calico's, field for field, and
//! the protocols are Calico's, so that both can work on one datastore. Every write is a compare-and-swap, and any call
//! may fail after it was carried out: each protocol leaves, at every point, a state from which [`Allocator::load`] and
//! [`Allocator::sweep`] go on.
//!
//! Nothing here knows a runtime or a clock: futures over `&dyn Datastore`, and `now` is given.

mod affinity;
mod allocator;
mod assign;
mod audit;
mod batch;
mod block;
mod choose;
mod error;
mod grow;
mod handle;
mod load;
mod plan;
mod pools;
mod release;
mod request;
mod sweep;
mod time;
mod view;

pub use allocator::{Allocator, LoadReport, SweepReport};
pub use audit::{Finding, audit};
pub use choose::check_overlaps;
pub use error::Error;
pub use request::{AssignRequest, Assigned, Family, Rules, Wanted};
pub use time::rfc3339;

/// How often a write is decided anew after a conflict before it is given up (Calico's number).
const TRIES: usize = 100;

#[cfg(test)]
mod tests;
