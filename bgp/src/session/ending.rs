//! How connections end, what that means for the peer's routes, and when the next is tried.

use std::time::Instant;

use super::connection::Connection;
use super::{ConnectionId, DIAL_TIME, Output, Phase, Reason, Session};
use crate::wire::{Message, Notification};

impl Session {
    /// Ends a connection over an error; when it was the last one, the peer is left alone for a while.
    pub(super) fn fail(
        &mut self,
        now: Instant,
        id: ConnectionId,
        reason: Reason,
        notification: Option<&Notification>,
    ) {
        self.end(id, reason, notification);
        if self.connections.is_empty() {
            self.stop_dialling();
            self.phase = Phase::Penalty(now + self.jitter.shorten(self.backoff.next_delay()));
        }
    }

    /// A connection is gone without an error of protocol.
    pub(super) fn lost(&mut self, now: Instant, id: ConnectionId, reason: Reason) {
        self.end(id, reason, None);
        if self.connections.is_empty() && matches!(self.phase, Phase::Waiting(_)) {
            self.wait(now);
        }
    }

    pub(super) fn close_all(&mut self, reason: &Reason, notification: Option<&Notification>) {
        for id in self.connections.iter().map(|each| each.id).collect::<Vec<_>>() {
            self.end(id, reason.clone(), notification);
        }
    }

    /// Closes a connection and says what that means for the peer's routes.
    pub(super) fn end(&mut self, id: ConnectionId, reason: Reason, notification: Option<&Notification>) {
        let Some(connection) = self.close(id, notification) else { return };
        if connection.stage.is_established() {
            let graceful = reason.is_silent() && connection.stage.graceful();
            self.outputs.push_back(Output::Down { reason, graceful });
        } else if self.connections.is_empty() {
            self.outputs.push_back(Output::Failed(reason));
        }
    }

    pub(super) fn close(
        &mut self,
        id: ConnectionId,
        notification: Option<&Notification>,
    ) -> Option<Connection> {
        let index = self.connections.iter().position(|each| each.id == id)?;
        let connection = self.connections.remove(index);
        if let Some(notification) = notification {
            let bytes = Message::Notification(notification.clone()).to_bytes();
            self.outputs.push_back(Output::Send(id, bytes));
        }
        self.outputs.push_back(Output::Close(id));
        Some(connection)
    }

    /// Neither a dial under way nor one to come, as long as nothing asks for it anew.
    pub(super) fn stop_dialling(&mut self) {
        match self.phase {
            Phase::Stopped | Phase::Held | Phase::Penalty(_) => return,
            Phase::Dialling(_) => self.outputs.push_back(Output::AbortDial),
            Phase::Waiting(_) => (),
        }
        self.phase = Phase::Waiting(None);
    }

    pub(super) fn dial(&mut self, now: Instant) {
        if self.phase == Phase::Held {
            return;
        }
        if self.config.passive {
            self.phase = Phase::Waiting(None);
        } else {
            self.phase = Phase::Dialling(now + DIAL_TIME);
            self.outputs.push_back(Output::Dial);
        }
    }

    pub(super) fn wait(&mut self, now: Instant) {
        let retry = self.jitter.shorten(self.config.connect_retry);
        self.phase = Phase::Waiting((!self.config.passive).then(|| now + retry));
    }
}
