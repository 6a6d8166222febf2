//! When all that can be known after our start is known (RFC 4724 §4.1).
//!
//! The owner deletes nothing before that. After a restart with forwarding preserved, the owner also hears of no new
//! best path before that: half of the peers' routes would send packets on detours.

use std::time::Instant;

use super::{Speaker, SpeakerConfig};
use crate::session::{GracefulConfig, SessionConfig};

#[derive(Debug)]
pub(super) struct Convergence {
    /// We came back to a kernel that forwards.
    restarted: bool,
    /// The Selection_Deferral_Timer; a peer that never comes holds nobody up for longer.
    deadline: Instant,
    done: bool,
    told: bool,
}

impl Convergence {
    pub(super) fn new(now: Instant, config: &SpeakerConfig) -> Self {
        let deadline = now + config.restart_time;
        Self { restarted: config.forwarding_preserved, deadline, done: false, told: false }
    }

    /// Best paths are neither told to the owner nor to peers.
    pub(super) fn defers_selection(&self) -> bool {
        self.restarted && !self.done
    }

    /// Whether it is to be told now; true once.
    pub(super) fn tell(&mut self) -> bool {
        self.done && !std::mem::replace(&mut self.told, true)
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.done).then_some(self.deadline)
    }
}

impl Speaker {
    /// What the session of each peer is to be.
    pub fn sessions(&self) -> impl Iterator<Item = (std::net::IpAddr, SessionConfig)> {
        let graceful = self.graceful();
        self.config
            .peers
            .keys()
            .filter_map(move |address| Some((*address, self.config.session(*address, graceful)?)))
    }

    /// R until the restart is over; F when the kernel forwarded all the time, which it also does while we live.
    fn graceful(&self) -> GracefulConfig {
        GracefulConfig {
            time: self.config.restart_time,
            restarting: self.convergence.defers_selection(),
            forwarding: self.convergence.restarted || self.convergence.done,
        }
    }

    /// Ends the wait when nothing is left to wait for. Before the owner has said what we originate, it cannot be over:
    /// the owner does not know its own half of the world yet.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.convergence.done || self.originated.is_none() {
            return;
        }
        let settled = self.peers.values().all(|peer| peer.settled);
        if settled || now >= self.convergence.deadline {
            let deferred = self.convergence.defers_selection();
            self.convergence.done = true;
            if deferred {
                self.tell_learned();
            }
        }
    }

    /// Peers that get the best paths of others could not be told them until now.
    fn tell_learned(&mut self) {
        let all = self.peers.iter().filter(|(_, peer)| peer.config.hears_learned());
        for address in all.map(|(address, _)| *address).collect::<Vec<_>>() {
            self.tell_everything(address);
        }
    }
}
