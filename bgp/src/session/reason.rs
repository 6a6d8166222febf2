//! Why a session ended, in words that an operator understands.

use crate::wire::{Notification, WireError};

/// Why a session, or an attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The dial failed.
    #[error("cannot connect: {0}")]
    Dial(String),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer said goodbye.
    #[error("NOTIFICATION received: {0}")]
    Received(Notification),
    /// We said goodbye.
    #[error("NOTIFICATION sent: {0}")]
    Sent(Notification),
    /// The peer sent what it must not send.
    #[error("{0}")]
    Misbehaved(WireError),
    /// Nothing was heard for the hold time.
    #[error("hold timer expired: nothing was heard from the peer for {0} s")]
    HoldTimer(u64),
    /// The peer took nothing for too long (RFC 9687).
    #[error("send hold timer expired: the peer took nothing that we sent for {0} s")]
    SendHoldTimer(u64),
    /// We are about to restart.
    #[error("closed for our own restart; the peer keeps our routes")]
    Restarting,
}
