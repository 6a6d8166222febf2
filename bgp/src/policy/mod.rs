//! What is accepted from a peer, and what is told to it.

mod export;
mod import;

pub use export::{ExportPolicy, Exported, Recipient, learned, originated};
pub use import::{Rejected, Us, accept};
