//! What the end-to-end tests need to judge a cluster: the routes that a node must have, computed from pods and blocks
//! without the agent's own code, and what IPAM has stored, audited.
//!
//! The tests themselves are in `tests/end_to_end`; they need root, and those of the tunnel a kernel with ipip.

mod at_once;
pub mod calico;
mod chance;
mod routes;
mod stored;

pub use at_once::at_once;
pub use chance::Chance;
pub use routes::{OUTSIDE_NET, expected_routes, host_device};
pub use stored::Stored;
