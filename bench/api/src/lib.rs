//! What Manx asks of the API server, measured on real agents and a real kube-apiserver.
//!
//! ```text
//!            ┌── near ── Pods::serve <── ADD, DEL
//!   Fleet ───┤     └─ KubeStore, user manx-n1 ──┐
//!            └── far: all other agents          ├──> kube-apiserver ──> audit log: who asked for what
//!                  └─ KubeStore each ───────────┘
//! ```
//!
//! The agents are those of the crate `manx`, each with a connection and a user of its own. Around them everything but
//! the API is the simulation's (`manx-sim`): kernels, and BGP's connections, made of memory. Nodes and Pods are made as
//! kubelet and scheduler make them, by another user.
//!
//! Agents run on one of two runtimes, those under test near and all others far, so that the processor time of the
//! others can be told from that of the node on which pods come and go: see [`cpu`].

pub mod cpu;
pub mod figures;
mod fleet;
mod node;
pub mod table;

pub use fleet::{Bgp, Fleet, SOON};
pub use node::{Node, Place};
