//! Bytes from the peer, message by message, and what each means in which state.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::connection::Stage;
use super::{ConnectionId, Reason, Session};
use crate::wire::{ErrorCode, Message, Notification, WireError};

impl Session {
    pub(super) fn received(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connection(id) else { return };
        connection.buffer.extend_from_slice(bytes);
        let mut buffer = std::mem::take(&mut connection.buffer);
        // A message may end its own connection, or (a collision) the other one.
        while let Some(connection) = self.connection(id) {
            match connection.next_message(&mut buffer) {
                Ok(Some(message)) => self.message(now, id, message),
                Ok(None) => return self.keep(id, buffer),
                Err(error) => return self.misbehaved(now, id, error),
            }
        }
    }

    fn keep(&mut self, id: ConnectionId, buffer: BytesMut) {
        if let Some(connection) = self.connection(id) {
            connection.buffer = buffer;
        }
    }

    fn message(&mut self, now: Instant, id: ConnectionId, message: Message) {
        let Some(connection) = self.connection(id) else { return };
        if let Message::Notification(notification) = message {
            return self.notified(now, id, notification);
        }
        match (&connection.stage, message) {
            (Stage::OpenSent, Message::Open(open)) => self.opened(now, id, open),
            (Stage::OpenConfirm(_), Message::Keepalive) => self.establish(now, id),
            (Stage::Established(_), message) => self.established_message(now, id, message),
            (stage, _) => {
                let error = match stage {
                    Stage::OpenSent => ErrorCode::FSM_OPEN_SENT,
                    _ => ErrorCode::FSM_OPEN_CONFIRM,
                };
                let what = format!("a message that has no place in state {}", stage.state());
                self.misbehaved(now, id, WireError::reset(error, Bytes::new(), what));
            }
        }
    }

    fn notified(&mut self, now: Instant, id: ConnectionId, notification: Notification) {
        // The loser of a collision has done nothing wrong: no penalty.
        if notification.error == ErrorCode::CONNECTION_COLLISION {
            return self.lost(now, id, Reason::Received(notification));
        }
        self.fail(now, id, Reason::Received(notification), None);
    }

    pub(super) fn misbehaved(&mut self, now: Instant, id: ConnectionId, error: WireError) {
        let notification = error.notification.clone();
        self.fail(now, id, Reason::Misbehaved(error), Some(&notification));
    }
}
