//! The state machine of one peer (RFC 4271 §8), with both connections that may exist to it.
//!
//! The caller passes `now` and events, then drains [`Session::poll_output`] and asks [`Session::poll_timeout`] when to
//! call [`Session::handle_timeout`]. A peer can have a connection that we dialled and one that we accepted; each
//! goes its own way through OpenSent and OpenConfirm, and at most one gets to Established (§6.8).
//!
//! ```text
//!            start            dial             connected          OPEN             KEEPALIVE
//!   Idle ----------> Active -------> Connect ----------> OpenSent ----> OpenConfirm ----> Established
//!    ^                 ^--- failed -----+                   |                |                 |
//!    +---- after an error, for a time that doubles ---------+----------------+-----------------+
//! ```
//!
//! Idle, Connect and Active belong to the peer, the other states to a connection. A connection that breaks
//! without an error of protocol leads to Active, so that a graceful restart is not held up by a penalty.

mod config;
mod connection;
mod ending;
mod established;
mod guard;
mod open;
mod reason;
mod receive;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use config::{GracefulConfig, SessionConfig};
use connection::Connection;
pub use guard::{BadSecret, Guard, Password, Secret, Ttl};
pub use open::Negotiated;
pub use reason::Reason;
use timers::{Backoff, Jitter};

use crate::wire::{ErrorCode, Family, Message, Notification, Update};

/// A dial that takes longer is given up and begun again: the ConnectRetryTimer in state Connect.
const DIAL_TIME: Duration = Duration::from_secs(10);
/// How long OPEN may take (RFC 4271 §8.2.2 suggests 4 minutes).
const OPEN_TIME: Duration = Duration::from_secs(240);
/// A second connection to a session younger than this is a collision; to an older one, a peer that has restarted.
const COLLISION_WINDOW: Duration = Duration::from_secs(5);

/// A connection's name, chosen by the caller and never used twice in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Event {
    /// The dial asked for by [`Output::Dial`] succeeded; our address on it.
    Dialled(ConnectionId, IpAddr),
    /// It failed, with words why.
    DialFailed(String),
    /// The peer connected to us; our address on it.
    Accepted(ConnectionId, IpAddr),
    /// Bytes from the peer.
    Received(ConnectionId, Bytes),
    /// The peer's side took bytes that we sent; whether nothing is left to send.
    Sent(ConnectionId, bool),
    /// The connection is gone, with words why.
    Closed(ConnectionId, String),
}

/// What the caller is to do or to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Connect to the peer. A dial that is still under way is dropped.
    Dial,
    /// Drop the dial that is under way.
    AbortDial,
    /// Send these bytes.
    Send(ConnectionId, Bytes),
    /// Send what is left, then close.
    Close(ConnectionId),
    /// The peer's state as an operator sees it.
    State(State),
    /// Why the last attempt or session ended.
    Failed(Reason),
    /// Established.
    Established(Box<Negotiated>),
    /// An UPDATE.
    Update(Box<Update>),
    /// All that the peer had at first has been sent: End-of-RIB, or the first KEEPALIVE of a peer that
    /// does not know that marker.
    EndOfRib(Family),
    /// The peer wants to hear a family again (RFC 2918).
    Refresh(Family),
    /// No longer Established. `graceful`: the peer's routes are to be kept as stale (RFC 4724 §4.2).
    Down {
        /// Why.
        reason: Reason,
        /// Whether the connection was lost without a NOTIFICATION, from a peer that announced graceful restart.
        graceful: bool,
    },
}

/// RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Stopped, or waiting after an error.
    #[default]
    Idle,
    /// Dialling.
    Connect,
    /// Waiting to dial again, or for the peer to dial.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN received and accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What the peer as a whole does, besides its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Stopped by the administrator.
    Stopped,
    /// Its password is not known: neither dialled nor accepted.
    Held,
    /// Waiting after an error, until then.
    Penalty(Instant),
    /// A dial is under way, and given up then.
    Dialling(Instant),
    /// Waiting to dial, until then; for ever when we are passive or have a connection.
    Waiting(Option<Instant>),
}

/// One peer.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    phase: Phase,
    /// At most one that we dialled and one that we accepted.
    connections: Vec<Connection>,
    backoff: Backoff,
    jitter: Jitter,
    told: State,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A stopped session. `seed` makes its jitter repeatable.
    pub fn new(config: SessionConfig, seed: u64) -> Self {
        Self {
            config,
            phase: Phase::Stopped,
            connections: Vec::new(),
            backoff: Backoff::default(),
            jitter: Jitter::new(seed),
            told: State::Idle,
            outputs: VecDeque::new(),
        }
    }

    /// The state of the peer: that of the connection which got farthest.
    pub fn state(&self) -> State {
        let connected = self.connections.iter().map(|connection| connection.stage.state()).max();
        connected.unwrap_or(match self.phase {
            Phase::Stopped | Phase::Held | Phase::Penalty(_) => State::Idle,
            Phase::Dialling(_) => State::Connect,
            Phase::Waiting(_) => State::Active,
        })
    }

    /// Starts to connect (ManualStart).
    pub fn start(&mut self, now: Instant) {
        if self.phase != Phase::Stopped {
            return;
        }
        match self.config.guard.missing() {
            Some(why) => {
                self.outputs.push_back(Output::Failed(Reason::NoPassword(why.to_owned())));
                self.phase = Phase::Held;
            }
            None => self.dial(now),
        }
        self.tell_state();
    }

    /// Ends everything with this NOTIFICATION (ManualStop).
    pub fn stop(&mut self, notification: Notification) {
        self.close_all(&Reason::Sent(notification.clone()), Some(&notification));
        self.halt();
    }

    /// Ends everything without a word, so that the peer keeps our routes until we are back (RFC 4724 §4).
    pub fn abandon(&mut self) {
        self.close_all(&Reason::Restarting, None);
        self.halt();
    }

    fn halt(&mut self) {
        self.stop_dialling();
        self.phase = Phase::Stopped;
        self.tell_state();
    }

    /// Takes a new configuration. What was negotiated from the old one is reset if it would be another now.
    pub fn configure(&mut self, now: Instant, config: SessionConfig) {
        let old = std::mem::replace(&mut self.config, config);
        if self.phase == Phase::Stopped {
            return;
        }
        if old.needs_reset(&self.config) {
            let notification = Notification::new(ErrorCode::CONFIGURATION_CHANGE);
            self.stop(notification);
            self.start(now);
        } else if old.guard != self.config.guard {
            let missing = self.config.guard.missing().map(str::to_owned);
            self.close_all(&missing.map_or(Reason::Guard, Reason::NoPassword), None);
            self.halt();
            self.start(now);
        } else if old.passive != self.config.passive && self.connections.is_empty() {
            self.stop_dialling();
            self.dial(now);
            self.tell_state();
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Dialled(id, local) => self.dialled(now, id, local),
            Event::DialFailed(words) => {
                if matches!(self.phase, Phase::Dialling(_)) {
                    self.outputs.push_back(Output::Failed(Reason::Dial(words)));
                    self.wait(now);
                }
            }
            Event::Accepted(id, local) => self.accepted(now, id, local),
            Event::Received(id, bytes) => self.received(now, id, &bytes),
            Event::Sent(id, drained) => {
                if let Some(connection) = self.connection(id) {
                    connection.sent(now, drained);
                }
            }
            Event::Closed(id, words) => self.lost(now, id, Reason::Lost(words)),
        }
        self.tell_state();
    }

    /// Sends UPDATEs that are encoded already; nothing happens unless the session is Established.
    pub fn send_updates(&mut self, now: Instant, messages: Bytes) {
        if let Some(connection) = self.connections.iter_mut().find(|each| each.stage.is_established()) {
            let output = connection.send(now, messages);
            self.outputs.push_back(output);
        }
    }

    /// Nothing is read from the peer at the moment because we are busy: its silence is no reason to give it up.
    pub fn deaf(&mut self, now: Instant) {
        self.connections.iter_mut().for_each(|connection| connection.heard(now));
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn tell_state(&mut self) {
        let state = self.state();
        if std::mem::replace(&mut self.told, state) != state {
            self.outputs.push_back(Output::State(state));
        }
    }

    fn dialled(&mut self, now: Instant, id: ConnectionId, local: IpAddr) {
        if !matches!(self.phase, Phase::Dialling(_)) {
            self.outputs.push_back(Output::Close(id));
            return;
        }
        self.phase = Phase::Waiting(None);
        self.connect(now, id, local, true);
    }

    fn accepted(&mut self, now: Instant, id: ConnectionId, local: IpAddr) {
        if matches!(self.phase, Phase::Stopped | Phase::Held | Phase::Penalty(_)) {
            self.outputs.push_back(Output::Close(id));
            return;
        }
        // The peer has at most one connection that it dialled: an older one which is not Established is forgotten.
        let stale = self.connections.iter().find(|each| !each.dialled && !each.stage.is_established());
        if let Some(old) = stale.map(|each| each.id) {
            self.close(old, Some(&Notification::new(ErrorCode::CONNECTION_COLLISION)));
        }
        self.connect(now, id, local, false);
    }

    fn connect(&mut self, now: Instant, id: ConnectionId, local: IpAddr, dialled: bool) {
        let mut connection = Connection::new(id, local, dialled, now + OPEN_TIME);
        let open = Message::Open(self.config.open());
        self.outputs.push_back(connection.send(now, open.to_bytes()));
        self.connections.push(connection);
    }
}
