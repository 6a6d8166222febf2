//! Why a session ended, in words that an operator understands.

use crate::wire::{Notification, WireError};

/// Why a session, or an attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The dial failed.
    #[error("cannot connect: {0}")]
    Dial(String),
    /// The peer connected to us in a way that cannot be trusted.
    #[error("closed a connection of the peer: {0}")]
    Refused(String),
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
    /// The password, or what is said about the peer's distance, is another now.
    #[error("closed to connect again with a changed password or TTL security")]
    Guard,
    /// There is to be a password, but it is not known.
    #[error("held down: {0}")]
    NoPassword(String),
    /// We are about to restart.
    #[error("closed for our own restart; the peer keeps our routes")]
    Restarting,
}

impl Reason {
    /// Nobody has said goodbye: routes may outlive the connection (RFC 4724 §4.2).
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Guard | Self::NoPassword(_))
    }
}
