//! Paths, which of them is best, and the table that keeps them.
//!
//! The table holds what every peer's adj-RIB-in holds, keyed by prefix first: a decision looks at one place only. Paths that
//! may not be used are in it too, with the reason: when a filter changes, nobody has to be asked again. The loc-RIB is the
//! best path of each entry, and is never stored twice.

mod decision;
mod path;
mod table;

pub use decision::{Rung, decide};
pub use path::{DEFAULT_LOCAL_PREF, Neighbour, Path};
pub use table::{Count, Table};
