//! One of the two connections to a peer.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::{ConnectionId, Negotiated, Output, State};
use crate::wire::{Context, Message, WireError, next_frame};

/// RFC 9687 §3: the send hold time is the longer of eight minutes and twice the hold time.
const LEAST_SEND_HOLD: Duration = Duration::from_secs(480);

/// How far a connection got.
#[derive(Debug)]
pub(super) enum Stage {
    OpenSent,
    OpenConfirm(Box<Negotiated>),
    Established(Established),
}

/// What exists only while a session is established.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) negotiated: Box<Negotiated>,
    pub(super) since: Instant,
    /// Whether the peer's first routes have been told as complete.
    pub(super) complete: bool,
}

impl Stage {
    pub(super) fn state(&self) -> State {
        match self {
            Self::OpenSent => State::OpenSent,
            Self::OpenConfirm(_) => State::OpenConfirm,
            Self::Established(_) => State::Established,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self, Self::Established(_))
    }

    pub(super) fn negotiated(&self) -> Option<&Negotiated> {
        match self {
            Self::OpenSent => None,
            Self::OpenConfirm(negotiated) => Some(negotiated),
            Self::Established(established) => Some(&established.negotiated),
        }
    }

    /// Whether the peer's routes outlive the connection.
    pub(super) fn graceful(&self) -> bool {
        self.negotiated().is_some_and(Negotiated::keeps_routes)
    }
}

/// Deadlines of a connection.
#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) hold: Option<Instant>,
    pub(super) keepalive: Option<Instant>,
    pub(super) send_hold: Option<Instant>,
}

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        [self.hold, self.keepalive, self.send_hold].into_iter().flatten().min()
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// Our address on it.
    pub(super) local: IpAddr,
    /// We dialled it; otherwise the peer did.
    pub(super) dialled: bool,
    pub(super) stage: Stage,
    pub(super) timers: Timers,
    pub(super) buffer: BytesMut,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, local: IpAddr, dialled: bool, open_by: Instant) -> Self {
        let timers = Timers { hold: Some(open_by), ..Timers::default() };
        Self { id, local, dialled, stage: Stage::OpenSent, timers, buffer: BytesMut::new() }
    }

    pub(super) fn hold_time(&self) -> Duration {
        self.stage.negotiated().map_or(super::OPEN_TIME, |negotiated| negotiated.hold_time)
    }

    pub(super) fn send_hold_time(&self) -> Duration {
        LEAST_SEND_HOLD.max(self.hold_time() * 2)
    }

    /// The peer lives: the hold timer begins again, if there is one.
    pub(super) fn heard(&mut self, now: Instant) {
        if let Some(negotiated) = self.stage.negotiated() {
            let hold = negotiated.hold_time;
            self.timers.hold = (!hold.is_zero()).then(|| now + hold);
        }
    }

    pub(super) fn send(&mut self, now: Instant, bytes: Bytes) -> Output {
        let send_hold = now + self.send_hold_time();
        self.timers.send_hold.get_or_insert(send_hold);
        Output::Send(self.id, bytes)
    }

    /// The peer took some of it.
    pub(super) fn sent(&mut self, now: Instant, drained: bool) {
        self.timers.send_hold = (!drained).then(|| now + self.send_hold_time());
    }

    /// The next message in `buffer`.
    pub(super) fn next_message(&mut self, buffer: &mut BytesMut) -> Result<Option<Message>, WireError> {
        let Some(frame) = next_frame(buffer)? else { return Ok(None) };
        let context =
            self.stage.negotiated().map_or(Context { four_octet: true, external: true }, |it| it.context);
        if frame.is_update() && !self.stage.is_established() {
            // Its content is not looked at: that it came is the fault.
            return Ok(Some(Message::Update(crate::wire::Update::default())));
        }
        Message::decode(&frame, context).map(Some)
    }
}
