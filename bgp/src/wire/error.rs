//! What is wrong with a message, what to answer, and how bad it is.

use std::borrow::Cow;

use bytes::Bytes;

use super::{ErrorCode, Notification};

/// What an error in an UPDATE leads to, from mild to grave (RFC 7606 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The attribute is dropped, the routes are taken.
    AttributeDiscard,
    /// The routes of the message are withdrawn, the session goes on.
    TreatAsWithdraw,
    /// The family is ignored for the rest of the session.
    FamilyDisable,
    /// The NOTIFICATION is sent and the session ends.
    SessionReset,
}

/// A fault of the peer in a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct WireError {
    /// What was wrong, and where.
    pub what: Cow<'static, str>,
    /// What to answer when the session ends over this.
    pub notification: Notification,
    /// What it leads to.
    pub severity: Severity,
}

impl WireError {
    /// An error that ends the session.
    pub(crate) fn reset(error: ErrorCode, data: Bytes, what: impl Into<Cow<'static, str>>) -> Self {
        let notification = Notification { error, data };
        Self { what: what.into(), notification, severity: Severity::SessionReset }
    }

    /// The same error, but with another consequence.
    pub(crate) fn with(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}
