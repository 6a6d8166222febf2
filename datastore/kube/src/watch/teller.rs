//! What the reader of a watch is told, and what he knows already.

use std::collections::BTreeSet;

use manx_datastore::{Event, EventSender, Listed, Only};
use manx_model::{Kind, Object};

use crate::selection::is_coarse;

/// Tells the reader.
pub(super) struct Teller {
    only: Only,
    sender: EventSender,
    /// Where the server sends more than was asked for: what the reader has been told of.
    known: Option<BTreeSet<String>>,
    /// He has been told that the server cannot be reached.
    lost: bool,
}

impl Teller {
    pub(super) fn new(kind: Kind, only: Only, sender: EventSender) -> Self {
        let known = is_coarse(kind, &only).then(BTreeSet::new);
        Self { only, sender, known, lost: false }
    }

    /// Whether he has gone.
    pub(super) fn is_over(&self) -> bool {
        self.sender.is_closed()
    }

    /// A list begins.
    pub(super) fn begin(&mut self) {
        if let Some(known) = &mut self.known {
            known.clear();
        }
        self.sender.send(Event::Init);
    }

    /// An object as it is now.
    pub(super) fn row(&mut self, row: Listed) {
        let key = row.as_ref().map_or_else(|invalid| invalid.name.clone(), Object::key);
        if let Some(known) = &mut self.known
            && let Ok(object) = &row
        {
            match self.only.selects(object) {
                true => drop(known.insert(key)),
                false => return self.deleted(&key),
            }
        }
        self.sender.send(row.map_or_else(Event::Invalid, Event::Object));
    }

    /// An object is gone, or is not what the reader asks for any more.
    pub(super) fn deleted(&mut self, key: &str) {
        let told = self.known.as_mut().is_none_or(|known| known.remove(key));
        if told {
            self.sender.send(Event::Deleted(key.to_owned()));
        }
    }

    /// The list is whole.
    pub(super) fn in_sync(&mut self) {
        self.lost = false;
        self.sender.send(Event::InSync);
    }

    /// The server cannot be reached: said once.
    pub(super) fn lost(&mut self, reason: &str) {
        if !self.lost {
            self.lost = true;
            self.sender.send(Event::Lost(reason.to_owned()));
        }
    }

    /// It can be again, and nothing was missed.
    pub(super) fn found(&mut self) {
        if self.lost {
            self.in_sync();
        }
    }
}
