//! Messages of an established session.

use std::time::Instant;

use bytes::Bytes;

use super::connection::Stage;
use super::{ConnectionId, Output, Session};
use crate::wire::{ErrorCode, Family, Message, Update, WireError};

impl Session {
    pub(super) fn established_message(&mut self, now: Instant, id: ConnectionId, message: Message) {
        if let Some(connection) = self.connection(id) {
            connection.heard(now);
        }
        match message {
            Message::Update(update) => self.update(id, update),
            Message::Keepalive => self.implicit_end_of_rib(id),
            // RFC 7313's markers are for who announced enhanced refresh; we did not.
            Message::RouteRefresh { family, subtype: 0 } => self.outputs.push_back(Output::Refresh(family)),
            Message::RouteRefresh { .. } => (),
            Message::Open(_) | Message::Notification(_) => {
                let what = "an OPEN in the middle of a session";
                self.misbehaved(now, id, WireError::reset(ErrorCode::FSM_ESTABLISHED, Bytes::new(), what));
            }
        }
    }

    fn update(&mut self, id: ConnectionId, mut update: Update) {
        let end = update.end_of_rib.take();
        if update != Update::default() {
            self.outputs.push_back(Output::Update(Box::new(update)));
        }
        if let Some(family) = end {
            self.outputs.push_back(Output::EndOfRib(family));
            self.complete(id);
        }
    }

    /// A peer without graceful restart sends no End-of-RIB; it sends its table first and a KEEPALIVE when it
    /// has nothing else to say.
    fn implicit_end_of_rib(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let Stage::Established(established) = &connection.stage else { return };
        if established.negotiated.graceful.is_none() && !established.complete {
            self.outputs.push_back(Output::EndOfRib(Family::IPV4_UNICAST));
            self.complete(id);
        }
    }

    fn complete(&mut self, id: ConnectionId) {
        // A peer that stays up for its whole table has been forgiven.
        self.backoff.reset();
        if let Some(Stage::Established(established)) = self.connection(id).map(|each| &mut each.stage) {
            established.complete = true;
        }
    }
}
