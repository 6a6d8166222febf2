//! Sessions that come and go, and what becomes of the routes (RFC 4724 §4.2).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::adj_rib_out::AdjRibOut;
use super::{Speaker, Up};
use crate::session::{Negotiated, Reason};
use crate::wire::Family;

/// The longest that a route is kept which its peer does not repeat, from the first loss on.
const STALE_LIMIT: Duration = Duration::from_secs(360);

/// Stale paths of a peer.
///
/// RFC 4724 would have what is stale from an earlier restart deleted at the next one. That loses a node's routes when its
/// agent restarts twice in a row, though its kernel forwards all the time; here they are kept, but from the first
/// loss on no longer than [`STALE_LIMIT`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Stale {
    since: Instant,
    pub(super) deadline: Instant,
    limit: Instant,
}

impl Speaker {
    pub(super) fn established(&mut self, address: IpAddr, negotiated: Box<Negotiated>) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let graceful = negotiated.graceful.as_ref();
        let preserved =
            graceful.and_then(|it| it.family(Family::IPV4_UNICAST)).is_some_and(|it| it.forwarding);
        if preserved {
            peer.stale = peer.stale.map(|stale| Stale { deadline: stale.limit, ..stale });
        }
        let lost = !preserved && peer.stale.take().is_some();
        // It waits for our End-of-RIB until its own restart is over, and we for its: RFC 4724 §4.1 says who goes first.
        // A peer that gets only what we originate need not wait, so we lose nothing by hearing it out.
        let restarting = graceful.is_some_and(|it| it.restarting);
        peer.settled |= restarting && peer.config.hears_learned();
        peer.up = Some(Up { negotiated, out: AdjRibOut::default() });
        self.peers_changed = true;
        if lost {
            self.forget(address, true);
        }
        self.tell_everything(address);
    }

    pub(super) fn end_of_rib(&mut self, address: IpAddr, family: Family) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        if family != Family::IPV4_UNICAST || peer.up.is_none() {
            return;
        }
        peer.settled = true;
        if peer.stale.take().is_some() {
            self.peers_changed = true;
            self.forget(address, true);
        }
    }

    pub(super) fn down(&mut self, now: Instant, address: IpAddr, reason: Reason, graceful: bool) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        peer.last_error = Some(reason);
        self.peers_changed = true;
        let time = peer.up.take().and_then(|up| up.negotiated.graceful).map(|it| it.time);
        match time.filter(|_| graceful) {
            Some(time) => {
                let since = peer.stale.map_or(now, |stale| stale.since);
                let limit = since + STALE_LIMIT.max(time);
                peer.stale = Some(Stale { since, deadline: limit.min(now + time), limit });
                self.table.reflected_by(address).into_iter().for_each(|prefix| self.touch(prefix));
                self.table.mark_stale(address);
            }
            None => {
                peer.stale = None;
                self.forget(address, false);
            }
        }
    }

    /// When [`Self::handle_timeout`] is to be called; `None` when only an event can change anything.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stale = self.peers.values().filter_map(|peer| peer.stale).map(|stale| stale.deadline);
        // Without the owner's word no passing of time ends the wait.
        let converged = self.originated.is_some().then(|| self.convergence.deadline()).flatten();
        stale.chain(converged).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |stale: Option<Stale>| stale.is_some_and(|stale| stale.deadline <= now);
        let due: Vec<_> = self.peers.iter().filter(|(_, peer)| due(peer.stale)).map(|(it, _)| *it).collect();
        for address in due {
            self.peers.entry(address).and_modify(|peer| peer.stale = None);
            self.peers_changed = true;
            self.forget(address, true);
        }
        self.settle(now);
    }
}
