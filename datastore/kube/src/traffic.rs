//! What a store costs the API server: calls by verb and kind, and what watches were told.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use manx_model::Kind;

/// What a store has asked for, and what its watches were told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests, by verb as the API server's audit names it and by kind; what was asked again counts again. An Event
    /// counts as a `report` of what it is about; CustomResourceDefinitions are not counted.
    pub calls: BTreeMap<(&'static str, Kind), u64>,
    /// What watches were told, by kind.
    pub watched: BTreeMap<Kind, Watched>,
}

/// What the watches of a kind were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Events, bookmarks among them.
    pub events: u64,
    /// Bookmarks, about one a minute of each watch: they say that nothing has happened.
    pub bookmarks: u64,
    /// Their bytes, before TLS.
    pub bytes: u64,
}

impl Traffic {
    /// All calls together.
    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    /// What all watches together were told.
    pub fn told(&self) -> Watched {
        self.watched.values().fold(Watched::default(), |sum, of_kind| Watched {
            events: sum.events + of_kind.events,
            bookmarks: sum.bookmarks + of_kind.bookmarks,
            bytes: sum.bytes + of_kind.bytes,
        })
    }
}

/// Counts while calls and watches go on.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Traffic>);

impl Counters {
    pub(crate) fn called(&self, verb: &'static str, kind: Kind) {
        self.count(|traffic| *traffic.calls.entry((verb, kind)).or_default() += 1);
    }

    pub(crate) fn told(&self, kind: Kind, bytes: usize, bookmark: bool) {
        self.count(|traffic| {
            let watched = traffic.watched.entry(kind).or_default();
            watched.events += 1;
            watched.bookmarks += u64::from(bookmark);
            watched.bytes += bytes as u64;
        });
    }

    pub(crate) fn read(&self) -> Traffic {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A panic elsewhere leaves the counts whole.
    fn count(&self, change: impl FnOnce(&mut Traffic)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
