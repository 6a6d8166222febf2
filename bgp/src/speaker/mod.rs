//! All peers together: what they told, what is best, and what each is to be told.
//!
//! The caller runs one [`crate::session::Session`] for each peer, hands what they say to [`Speaker::handle`], and takes
//!
//! - [`Speaker::take_changes`]: what the kernel is to know, coalesced by prefix;
//! - [`Speaker::transmit`]: UPDATEs for a peer that has room for more. What is still to be told to a peer is a set of
//!   prefixes and no queue, so that a slow peer gets larger batches and never an older truth.

mod adj_rib_in;
mod adj_rib_out;
mod config;
mod configure;
mod convergence;
mod desk;
mod graceful;
mod status;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use adj_rib_out::AdjRibOut;
pub use config::{PeerConfig, SpeakerConfig};
use convergence::Convergence;
use graceful::Stale;
pub use status::{PeerStatus, SpeakerStatus};

use crate::rib::{Path, Rung, Table};
use crate::session::{Negotiated, Output, Reason, State};
use crate::wire::{Attributes, Family};

/// What changed for the owner.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The best path to a prefix; `None` when there is none any more, or when we originate the prefix ourselves.
    Best {
        /// The prefix.
        prefix: IpNet,
        /// The path.
        path: Option<BestPath>,
    },
    /// Said once: every peer has told all it has, or has had its time. From now on what is not known is not there.
    Converged,
    /// The state of a peer changed.
    Peers,
}

/// The best path to a prefix.
#[derive(Clone, Debug)]
pub struct BestPath {
    /// Where packets go.
    pub next_hop: IpAddr,
    /// The address of the peer that told it.
    pub peer: IpAddr,
    /// LOCAL_PREF, or what stands for it.
    pub local_pref: u32,
    /// AS_PATH, communities and all else.
    pub attributes: Arc<Attributes>,
    /// Its peer is restarting and has not repeated it yet.
    pub stale: bool,
    /// What made it the best.
    pub reason: Rung,
}

/// Two are equal when the same packets go the same way; why it is the best, and that it is stale, is for status only.
impl PartialEq for BestPath {
    fn eq(&self, other: &Self) -> bool {
        (self.next_hop, self.peer, &self.attributes) == (other.next_hop, other.peer, &other.attributes)
    }
}

/// The speaker.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    peers: BTreeMap<IpAddr, Peer>,
    table: Table,
    /// `None` until the owner has said it for the first time.
    originated: Option<BTreeSet<IpNet>>,
    convergence: Convergence,
    /// Prefixes that changed, with what the owner was told about them last.
    changed: BTreeMap<IpNet, Option<BestPath>>,
    peers_changed: bool,
}

#[derive(Debug)]
struct Peer {
    config: PeerConfig,
    state: State,
    since: Instant,
    last_error: Option<Reason>,
    /// Only while the session is established.
    up: Option<Up>,
    /// Only while stale paths of the peer are kept.
    stale: Option<Stale>,
    /// Nothing needs to be awaited from it any more before [`Change::Converged`].
    settled: bool,
}

#[derive(Debug)]
struct Up {
    negotiated: Box<Negotiated>,
    out: AdjRibOut,
}

impl Peer {
    fn new(now: Instant, config: PeerConfig) -> Self {
        Self {
            config,
            state: State::Idle,
            since: now,
            last_error: None,
            up: None,
            stale: None,
            settled: false,
        }
    }
}

impl Speaker {
    /// A speaker that has just started.
    pub fn new(now: Instant, config: SpeakerConfig) -> Self {
        let peers = config.peers.iter().map(|(address, peer)| (*address, Peer::new(now, peer.clone())));
        Self {
            peers: peers.collect(),
            table: Table::default(),
            originated: None,
            convergence: Convergence::new(now, &config),
            changed: BTreeMap::new(),
            peers_changed: false,
            config,
        }
    }

    /// Takes the whole set of prefixes that we originate. Peers are sent End-of-RIB only after the first call.
    pub fn originate(&mut self, now: Instant, prefixes: BTreeSet<IpNet>) {
        let old = self.originated.take().unwrap_or_default();
        let different: Vec<_> = old.symmetric_difference(&prefixes).copied().collect();
        different.iter().for_each(|prefix| self.remember(*prefix, &old));
        self.originated = Some(prefixes);
        different.into_iter().for_each(|prefix| self.mark_dirty(prefix));
        self.settle(now);
    }

    /// Takes what a session said. [`Output::Send`] and the like, which are for the driver, change nothing here.
    pub fn handle(&mut self, now: Instant, address: IpAddr, output: Output) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        match output {
            Output::State(state) => {
                (peer.state, peer.since) = (state, now);
                self.peers_changed = true;
            }
            Output::Failed(reason) => {
                self.peers_changed |= peer.last_error.as_ref() != Some(&reason);
                peer.last_error = Some(reason);
            }
            Output::Established(negotiated) => self.established(address, negotiated),
            Output::Update(update) => self.update(address, *update),
            Output::EndOfRib(family) => self.end_of_rib(address, family),
            Output::Refresh(family) if family == Family::IPV4_UNICAST => self.tell_everything(address),
            Output::Down { reason, graceful } => self.down(now, address, reason, graceful),
            _ => return,
        }
        self.settle(now);
    }

    /// What changed since the last call. While a restart is not over, best paths are held back (RFC 4724 §4.1).
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if std::mem::take(&mut self.peers_changed) {
            changes.push(Change::Peers);
        }
        if self.convergence.defers_selection() {
            return changes;
        }
        for (prefix, told) in std::mem::take(&mut self.changed) {
            let path = self.best(&prefix);
            if path != told {
                changes.push(Change::Best { prefix, path });
            }
        }
        if self.convergence.tell() {
            changes.push(Change::Converged);
        }
        changes
    }

    /// The best path to a prefix that we do not originate.
    pub fn best(&self, prefix: &IpNet) -> Option<BestPath> {
        if self.originated.as_ref().is_some_and(|own| own.contains(prefix)) {
            return None;
        }
        self.table.best(prefix).map(|(path, reason)| best_path(path, reason))
    }

    /// All paths, for status.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// To be called before the paths to a prefix change.
    fn touch(&mut self, prefix: IpNet) {
        if !self.changed.contains_key(&prefix) {
            let told = self.convergence.defers_selection().then_some(None);
            let told = told.unwrap_or_else(|| self.best(&prefix));
            self.changed.insert(prefix, told);
        }
        self.mark_dirty(prefix);
    }

    /// Like [`Self::touch`], for a prefix that we begin or cease to originate.
    fn remember(&mut self, prefix: IpNet, old: &BTreeSet<IpNet>) {
        let hidden = old.contains(&prefix) || self.convergence.defers_selection();
        let told = self.table.best(&prefix).filter(|_| !hidden).map(|(path, reason)| best_path(path, reason));
        self.changed.entry(prefix).or_insert(told);
    }
}

fn best_path(path: &Path, reason: Rung) -> BestPath {
    BestPath {
        next_hop: path.next_hop,
        peer: path.from.address,
        local_pref: path.local_pref(),
        attributes: path.attributes.clone(),
        stale: path.stale,
        reason,
    }
}
