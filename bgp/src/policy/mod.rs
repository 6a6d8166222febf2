//! What is accepted from a peer, and what is told to it.
//!
//! ```text
//!   UPDATE -> admit: loops, martians, import filters -> table -> best path
//!   best path, own prefixes -> decide: protocol, export filters, ExportPolicy and NodeExport -> tell -> UPDATE
//! ```

mod export;
mod filter;
mod import;
mod interfaces;
mod node;
mod operation;

pub use export::{Additions, Candidate, Exported, NextHopMode, Recipient, Rules, decide, originated, tell};
pub use filter::{
    Action, Conditions, Filter, MatchOperator, PeerType, PrefixMatch, Route, Rule, Verdict, judge,
};
pub use import::{Gate, Rejected, admit};
pub use interfaces::{Glob, Interfaces};
pub use node::{ExportPolicy, NodeExport};
pub use operation::{Operation, priority};
