//! Timers of a session: when the next one is due, and what happens then.

use std::time::{Duration, Instant};

use super::{Phase, Reason, Session};
use crate::wire::{ErrorCode, Notification};

/// The pause after an error, before it is jittered.
const LEAST_PENALTY: Duration = Duration::from_secs(2);
const MOST_PENALTY: Duration = Duration::from_secs(30);

/// A pause that doubles from error to error (DampPeerOscillations of RFC 4271 §8.1.1).
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn next_delay(&mut self) -> Duration {
        let delay = LEAST_PENALTY.saturating_mul(1 << self.0.min(8)).min(MOST_PENALTY);
        self.0 += 1;
        delay
    }

    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Randomness that a seed repeats (splitmix64); good enough to keep peers out of step.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 75 to 100 % of a time (RFC 4271 §10).
    pub(super) fn shorten(&mut self, time: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        time.mul_f64(0.75 + 0.25 * ((mixed >> 40) as f64 / (1 << 24) as f64))
    }
}

impl Session {
    /// When [`Self::handle_timeout`] is to be called; `None` when only an event can change anything.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Stopped | Phase::Held => None,
            Phase::Penalty(at) | Phase::Dialling(at) => Some(at),
            Phase::Waiting(at) => at,
        };
        phase.into_iter().chain(self.connections.iter().filter_map(|each| each.timers.next())).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for id in self.connections.iter().map(|each| each.id).collect::<Vec<_>>() {
            self.connection_timers(now, id);
        }
        match self.phase {
            Phase::Penalty(at) if at <= now => self.dial(now),
            Phase::Waiting(Some(at)) if at <= now => self.dial(now),
            Phase::Dialling(at) if at <= now => {
                // An output of its own, so that nobody waits for a SYN that got lost.
                let words = match self.config.guard.key() {
                    // The kernel of whose key is another drops what we send, and says nothing.
                    Some(_) => "no answer, as from a peer whose password is another",
                    None => "no answer",
                };
                self.outputs.push_back(super::Output::Failed(Reason::Dial(words.into())));
                self.dial(now);
            }
            _ => (),
        }
        self.tell_state();
    }

    fn connection_timers(&mut self, now: Instant, id: super::ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let hold = connection.hold_time().as_secs();
        if connection.timers.hold.is_some_and(|at| at <= now) {
            let notification = Notification::new(ErrorCode::HOLD_TIMER_EXPIRED);
            return self.fail(now, id, Reason::HoldTimer(hold), Some(&notification));
        }
        if connection.timers.send_hold.is_some_and(|at| at <= now) {
            let notification = Notification::new(ErrorCode::SEND_HOLD_TIMER_EXPIRED);
            let waited = connection.send_hold_time().as_secs();
            return self.fail(now, id, Reason::SendHoldTimer(waited), Some(&notification));
        }
        if connection.timers.keepalive.is_some_and(|at| at <= now) {
            self.send_keepalive(now, id);
        }
    }

    /// Sends a KEEPALIVE and sets the timer for the next: a third of the hold time, jittered.
    pub(super) fn send_keepalive(&mut self, now: Instant, id: super::ConnectionId) {
        let Some(index) = self.connections.iter().position(|each| each.id == id) else { return };
        let interval = self.jitter.shorten(self.connections[index].hold_time() / 3);
        let connection = &mut self.connections[index];
        connection.timers.keepalive = (!interval.is_zero()).then(|| now + interval);
        let output = connection.send(now, crate::wire::Message::Keepalive.to_bytes());
        self.outputs.push_back(output);
    }
}
