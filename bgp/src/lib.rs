//! BGP-4 as pure state machines: wire, session, RIB, speaker.
//!
//! Everything here is a function of events and of the `now` that the caller passes: nothing opens a socket,
//! reads a clock, spawns or logs. `manx-bgp-driver` is the only door to the outside.
//!
//! ```text
//!   bytes -> wire -> session -> speaker -> changes for the kernel
//!                       ^          |
//!                       +- UPDATEs-+      (one session for each peer, one speaker for all)
//! ```
//!
//! - [`wire`]: messages as values, and the errors that RFC 7606 grades;
//! - [`session`]: the FSM of one peer, with both of its connections;
//! - [`rib`]: paths, the decision ladder, and the table;
//! - [`policy`]: what is accepted from a peer and what is told to it;
//! - [`speaker`]: all peers together, graceful restart, and the adj-RIB-out.

pub mod policy;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod wire;

pub use manx_model::Asn;
