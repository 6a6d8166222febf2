//! Two sessions under a virtual clock, with a wire between them that can be cut, delayed and written on.

mod guard;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use manx_model::Asn;

use super::{ConnectionId, Event, GracefulConfig, Guard, Output, Reason, Session, SessionConfig, State};
use crate::wire::{ErrorCode, Family, Message, Notification, Open, Update};

const ADDRESS: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];
const GRACEFUL: GracefulConfig =
    GracefulConfig { time: Duration::from_secs(120), restarting: false, forwarding: false };

fn config(side: usize) -> SessionConfig {
    SessionConfig {
        asn: Asn::DEFAULT,
        router_id: ADDRESS[side].into(),
        peer_asn: Asn::DEFAULT,
        peer: (ADDRESS[1 - side].into(), 179),
        local_address: None,
        hold_time: Duration::from_secs(90),
        passive: false,
        connect_retry: Duration::from_secs(5),
        guard: Guard::default(),
        graceful: GRACEFUL,
    }
}

fn id(number: u64) -> ConnectionId {
    ConnectionId(number)
}

/// Two peers. A connection has the same number on both sides.
struct Pair {
    now: Instant,
    sides: [Session; 2],
    /// What each side said that is not for the wire.
    said: [Vec<Output>; 2],
    /// Bytes and ends on their way to a side.
    wire: [VecDeque<Event>; 2],
    /// Dials wait until [`Pair::connect`], so that they can cross.
    dials: [bool; 2],
    connections: u64,
    cut: bool,
}

impl Pair {
    fn new(change: impl FnOnce(&mut [SessionConfig; 2])) -> Self {
        let mut configs = [config(0), config(1)];
        change(&mut configs);
        let [first, second] = configs;
        let now = Instant::now();
        let mut pair = Self {
            now,
            sides: [Session::new(first, 1), Session::new(second, 2)],
            said: Default::default(),
            wire: Default::default(),
            dials: [false; 2],
            connections: 0,
            cut: false,
        };
        pair.sides.iter_mut().for_each(|side| side.start(now));
        pair.drain();
        pair
    }

    /// One that is established over a connection which the first side dialled.
    fn established() -> Self {
        let mut pair = Self::new(|_| ());
        pair.connect(0);
        pair.settle();
        assert_eq!(pair.states(), [State::Established; 2]);
        pair
    }

    fn states(&self) -> [State; 2] {
        [self.sides[0].state(), self.sides[1].state()]
    }

    /// Lets the dial of a side succeed.
    fn connect(&mut self, from: usize) {
        assert!(std::mem::take(&mut self.dials[from]), "side {from} dials");
        let id = id(self.connections);
        self.connections += 1;
        self.sides[from].handle(self.now, Event::Dialled(id, ADDRESS[from].into()));
        self.sides[1 - from].handle(self.now, Event::Accepted(id, ADDRESS[1 - from].into()));
        self.drain();
    }

    /// Hands over everything that is on the wire, until nothing more comes.
    fn settle(&mut self) {
        self.drain();
        while let Some(side) = (0..2).find(|side| !self.wire[*side].is_empty()) {
            let event = self.wire[side].pop_front().unwrap();
            self.sides[side].handle(self.now, event);
            self.drain();
        }
    }

    fn drain(&mut self) {
        for side in 0..2 {
            while let Some(output) = self.sides[side].poll_output() {
                match output {
                    Output::Dial => self.dials[side] = true,
                    Output::AbortDial => self.dials[side] = false,
                    Output::Send(id, bytes) => {
                        self.sides[side].handle(self.now, Event::Sent(id, true));
                        self.carry(side, Event::Received(id, bytes));
                    }
                    Output::Close(id) => self.carry(side, Event::Closed(id, "the peer closed it".into())),
                    output => self.said[side].push(output),
                }
            }
        }
    }

    fn carry(&mut self, from: usize, event: Event) {
        if !self.cut {
            self.wire[1 - from].push_back(event);
        }
    }

    /// Lets time pass, timer by timer; dials fail.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.sides.iter().filter_map(Session::poll_timeout).min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            let now = self.now;
            self.sides.iter_mut().for_each(|side| side.handle_timeout(now));
            self.settle();
        }
        self.now = end;
    }

    /// Bytes that the other side never sent.
    fn inject(&mut self, side: usize, connection: u64, bytes: impl Into<Bytes>) {
        self.sides[side].handle(self.now, Event::Received(id(connection), bytes.into()));
        self.drain();
    }

    fn downs(&self, side: usize) -> Vec<(String, bool)> {
        let down = |output: &Output| match output {
            Output::Down { reason, graceful } => Some((reason.to_string(), *graceful)),
            _ => None,
        };
        self.said[side].iter().filter_map(down).collect()
    }

    fn failures(&self, side: usize) -> Vec<String> {
        let failure = |output: &Output| match output {
            Output::Failed(reason) => Some(reason.to_string()),
            _ => None,
        };
        self.said[side].iter().filter_map(failure).collect()
    }
}

#[test]
fn two_peers_establish_through_all_states() {
    let pair = Pair::established();
    let states = |output: &Output| match output {
        Output::State(state) => Some(*state),
        _ => None,
    };
    let seen: Vec<_> = pair.said[0].iter().filter_map(states).collect();
    let all = [State::Connect, State::OpenSent, State::OpenConfirm, State::Established];
    assert_eq!(seen, all);
    let Some(Output::Established(negotiated)) =
        pair.said[0].iter().find(|it| matches!(it, Output::Established(_)))
    else {
        panic!()
    };
    assert_eq!(negotiated.hold_time, Duration::from_secs(90));
    assert!(negotiated.route_refresh && negotiated.keeps_routes() && negotiated.context.four_octet);
    assert_eq!(negotiated.local, IpAddr::from(ADDRESS[0]));
    assert!(pair.dials.iter().all(|dial| !dial), "nobody dials any more");
}

#[test]
fn keepalives_hold_a_quiet_session_for_hours() {
    let mut pair = Pair::established();
    pair.pass(Duration::from_secs(3 * 3600));
    assert_eq!(pair.states(), [State::Established; 2]);
    assert!(pair.dials.iter().all(|dial| !dial));
}

#[test]
fn a_peer_that_falls_silent_is_given_up_after_the_hold_time() {
    let mut pair = Pair::established();
    pair.cut = true;
    pair.pass(Duration::from_secs(89));
    assert_eq!(pair.states()[0], State::Established);
    pair.pass(Duration::from_secs(2));
    let words = "hold timer expired: nothing was heard from the peer for 90 s".to_owned();
    assert_eq!(pair.downs(0), [(words, false)], "a NOTIFICATION was sent, so nothing is kept (RFC 4724)");
}

#[test]
fn a_busy_owner_does_not_make_the_hold_timer_expire() {
    let mut pair = Pair::established();
    pair.cut = true;
    for _ in 0..10 {
        pair.pass(Duration::from_secs(60));
        pair.sides[0].deaf(pair.now);
    }
    assert_eq!(pair.states()[0], State::Established);
}

#[test]
fn without_hold_time_there_are_no_timers() {
    let mut pair = Pair::new(|configs| configs[0].hold_time = Duration::ZERO);
    pair.connect(0);
    pair.settle();
    assert_eq!(pair.states(), [State::Established; 2]);
    assert_eq!(pair.sides[0].poll_timeout(), None);
    pair.cut = true;
    pair.pass(Duration::from_secs(100_000));
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_after_the_send_hold_time() {
    let mut pair = Pair::established();
    pair.sides[0].send_updates(pair.now, Bytes::from_static(b"never taken"));
    while pair.sides[0].poll_output().is_some() {}
    for _ in 0..17 {
        pair.now += Duration::from_secs(30);
        pair.sides[0].deaf(pair.now);
        pair.sides[0].handle_timeout(pair.now);
    }
    pair.drain();
    assert!(pair.downs(0)[0].0.starts_with("send hold timer expired"), "{:?}", pair.downs(0));
}

#[test]
fn crossing_dials_leave_the_connection_of_the_higher_identifier() {
    for first in 0..2 {
        let mut pair = Pair::new(|_| ());
        pair.connect(first);
        pair.connect(1 - first);
        pair.settle();
        assert_eq!(pair.states(), [State::Established; 2]);
        let expected = if first == 1 { 0 } else { 1 };
        for side in &pair.sides {
            assert_eq!(side.connections.len(), 1);
            assert_eq!(side.connections[0].id, id(expected), "10.0.0.2 dialled number {expected}");
        }
        assert!(pair.downs(0).is_empty() && pair.downs(1).is_empty());
    }
}

#[test]
fn equal_identifiers_are_decided_by_the_higher_as() {
    let mut pair = Pair::new(|configs| {
        let other = Asn::new(65001).unwrap();
        (configs[0].asn, configs[1].peer_asn) = (other, other);
        configs[1].router_id = configs[0].router_id;
    });
    pair.connect(1);
    pair.connect(0);
    pair.settle();
    assert_eq!(pair.states(), [State::Established; 2]);
    assert_eq!(pair.sides[0].connections[0].id, id(1), "the side with AS 65001 dialled it");
}

#[test]
fn a_passive_peer_waits_and_never_dials() {
    let mut pair = Pair::new(|configs| configs[1].passive = true);
    pair.pass(Duration::from_secs(3600));
    assert_eq!(pair.states(), [State::Connect, State::Active]);
    assert!(!pair.dials[1]);
    pair.connect(0);
    pair.settle();
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn a_dial_that_fails_is_repeated_after_a_jittered_pause() {
    let mut pair = Pair::new(|_| ());
    pair.dials[0] = false;
    pair.sides[0].handle(pair.now, Event::DialFailed("refused".into()));
    pair.drain();
    assert_eq!(
        (pair.states()[0], pair.failures(0)),
        (State::Active, vec!["cannot connect: refused".to_owned()])
    );
    pair.pass(Duration::from_millis(3700));
    assert!(!pair.dials[0]);
    pair.pass(Duration::from_millis(1300));
    assert!(pair.dials[0]);
}

#[test]
fn opens_that_do_not_fit_are_refused_in_words() {
    let open = |change: fn(&mut SessionConfig)| {
        let mut config = config(1);
        change(&mut config);
        config.open()
    };
    let no_ipv4 = Open {
        capabilities: vec![crate::wire::Capability::Multiprotocol(Family::IPV6_UNICAST)],
        ..open(|_| ())
    };
    let cases = [
        (
            open(|config| config.asn = Asn::new(65001).unwrap()),
            ErrorCode::BAD_PEER_AS,
            "the peer's AS is 65001, configured is 64512",
        ),
        (
            open(|config| config.router_id = ADDRESS[0].into()),
            ErrorCode::BAD_IDENTIFIER,
            "the peer's BGP identifier 10.0.0.1 is our own",
        ),
        (
            open(|config| config.router_id = [0; 4].into()),
            ErrorCode::BAD_IDENTIFIER,
            "the peer's BGP identifier is 0.0.0.0",
        ),
        (
            open(|config| config.hold_time = Duration::from_secs(2)),
            ErrorCode::UNACCEPTABLE_HOLD_TIME,
            "the peer offers a hold time of 2 s: 0, or at least 3, is allowed",
        ),
        (
            no_ipv4,
            ErrorCode::UNSUPPORTED_CAPABILITY,
            "the peer does not announce IPv4 unicast, which is all that we speak",
        ),
    ];
    for (open, error, words) in cases {
        let mut pair = Pair::new(|_| ());
        pair.connect(0);
        pair.wire[0].clear();
        pair.inject(0, 0, Message::Open(open).to_bytes());
        assert_eq!(pair.failures(0), [words]);
        assert_eq!(pair.states()[0], State::Idle);
        pair.settle();
        let received = format!("NOTIFICATION received: {error}");
        assert_eq!(pair.failures(1), [received]);
    }
}

#[test]
fn a_message_without_place_in_a_state_is_an_error_of_that_state() {
    let mut pair = Pair::new(|_| ());
    pair.connect(0);
    pair.inject(0, 0, Message::Keepalive.to_bytes());
    pair.settle();
    assert!(pair.failures(1)[0].contains("Unexpected Message in OpenSent"), "{:?}", pair.failures(1));
    let mut pair = Pair::established();
    pair.inject(0, 0, Message::Open(config(1).open()).to_bytes());
    pair.settle();
    assert!(pair.downs(1)[0].0.contains("Unexpected Message in Established"), "{:?}", pair.downs(1));
}

#[test]
fn garbage_gets_a_notification_and_a_penalty_that_doubles() {
    let mut pair = Pair::established();
    pair.inject(0, 0, &b"GET / HTTP/1.1\r\nHost: bgp\r\n\r\n"[..]);
    pair.settle();
    assert!(pair.downs(1)[0].0.contains("Connection Not Synchronized"));
    assert_eq!(pair.states(), [State::Idle; 2]);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let before = pair.now;
        while !pair.dials[0] {
            pair.pass(Duration::from_millis(100));
        }
        pauses.push((pair.now - before).as_secs());
        let connection = 100 + pauses.len() as u64;
        pair.dials[0] = false;
        pair.sides[0].handle(pair.now, Event::Dialled(id(connection), ADDRESS[0].into()));
        pair.inject(0, connection, &b"garbage"[..]);
    }
    assert!(pauses[0] < 3 && pauses[5] > 20 && pauses.is_sorted(), "{pauses:?}");
}

#[test]
fn a_stop_says_why_and_a_start_begins_again() {
    let mut pair = Pair::established();
    pair.sides[0].stop(Notification {
        error: ErrorCode::ADMINISTRATIVE_SHUTDOWN,
        data: Bytes::from_static(b"\x05lunch"),
    });
    pair.settle();
    let words = "NOTIFICATION received: Cease/Administrative Shutdown: lunch".to_owned();
    assert_eq!(pair.downs(1), [(words, false)]);
    assert_eq!((pair.states()[0], pair.sides[0].poll_timeout()), (State::Idle, None));
    pair.sides[0].start(pair.now);
    pair.pass(Duration::from_secs(3));
    pair.connect(0);
    pair.settle();
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn a_lost_connection_keeps_routes_and_has_no_penalty() {
    let mut pair = Pair::established();
    pair.sides[1].abandon();
    pair.settle();
    assert_eq!(pair.downs(0), [("connection lost: the peer closed it".to_owned(), true)]);
    assert_eq!(pair.states(), [State::Active, State::Idle]);
    pair.pass(Duration::from_secs(5));
    assert!(pair.dials[0]);
}

#[test]
fn a_new_connection_of_a_peer_that_has_restarted_replaces_the_half_open_one() {
    let mut pair = Pair::established();
    pair.pass(Duration::from_secs(10));
    // kill -9 with the host: the first side hears nothing of it.
    pair.cut = true;
    let mut restarted = config(1);
    restarted.graceful = GracefulConfig { restarting: true, forwarding: true, ..GRACEFUL };
    pair.sides[1] = Session::new(restarted, 3);
    pair.sides[1].start(pair.now);
    pair.drain();
    pair.cut = false;
    pair.said[0].clear();
    pair.connect(1);
    pair.settle();
    assert_eq!(pair.states(), [State::Established; 2]);
    let downs = pair.downs(0);
    assert!(matches!(&downs[..], [(words, true)] if words.contains("restarted")), "{downs:?}");
    assert_eq!(pair.sides[0].connections.len(), 1);
    assert_eq!(pair.downs(1), [], "no NOTIFICATION hit the new session");
}

#[test]
fn a_second_connection_right_after_the_first_is_a_collision_and_no_restart() {
    let mut pair = Pair::established();
    pair.sides[0].handle(pair.now, Event::Accepted(id(7), ADDRESS[0].into()));
    pair.inject(0, 7, Message::Open(config(1).open()).to_bytes());
    assert_eq!(pair.states(), [State::Established; 2]);
    assert_eq!((pair.sides[0].connections.len(), pair.downs(0)), (1, vec![]));
}

#[test]
fn a_configuration_that_changes_nothing_essential_leaves_the_session_alone() {
    let mut pair = Pair::established();
    let mut new = config(0);
    new.graceful.forwarding = true;
    new.passive = true;
    pair.sides[0].configure(pair.now, new.clone());
    pair.settle();
    assert_eq!(pair.states(), [State::Established; 2]);
    new.hold_time = Duration::from_secs(30);
    pair.sides[0].configure(pair.now, new);
    pair.settle();
    assert_eq!(
        pair.downs(1),
        [("NOTIFICATION received: Cease/Other Configuration Change".to_owned(), false)]
    );
}

#[test]
fn a_peer_without_graceful_restart_has_told_all_with_its_first_keepalive() {
    let mut pair = Pair::new(|_| ());
    pair.connect(0);
    pair.wire[0].clear();
    let mut open = config(1).open();
    open.capabilities.clear();
    pair.inject(0, 0, Message::Open(open).to_bytes());
    pair.inject(0, 0, Message::Keepalive.to_bytes());
    let ends = |pair: &Pair| pair.said[0].iter().filter(|it| matches!(it, Output::EndOfRib(_))).count();
    assert_eq!((pair.states()[0], ends(&pair)), (State::Established, 0));
    for _ in 0..2 {
        pair.inject(0, 0, Message::Keepalive.to_bytes());
        assert_eq!(ends(&pair), 1);
    }
    pair.sides[0].handle(pair.now, Event::Closed(id(0), "gone".into()));
    pair.drain();
    assert_eq!(pair.downs(0), [("connection lost: gone".to_owned(), false)]);
}

#[test]
fn messages_may_come_octet_by_octet() {
    let mut pair = Pair::established();
    let mut bytes = bytes::BytesMut::new();
    let update = Update { withdrawn: vec!["10.0.0.0/8".parse().unwrap()], ..Update::default() };
    let context = crate::wire::Context { four_octet: true, external: false };
    Message::Update(update.clone()).encode(context, &mut bytes).unwrap();
    for octet in bytes {
        pair.inject(0, 0, vec![octet]);
    }
    assert!(pair.said[0].contains(&Output::Update(Box::new(update))));
}

#[test]
fn connections_to_a_stopped_peer_are_closed() {
    let mut session = Session::new(config(0), 1);
    session.handle(Instant::now(), Event::Accepted(id(0), ADDRESS[0].into()));
    assert_eq!(session.poll_output(), Some(Output::Close(id(0))));
    assert_eq!(session.poll_output(), None);
    let words = Reason::Sent(Notification::new(ErrorCode::CEASE)).to_string();
    assert_eq!(words, "NOTIFICATION sent: Cease");
}
