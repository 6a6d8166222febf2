//! Passwords that change, and that are not there.

use super::{ADDRESS, Pair, config, id};
use crate::session::{Event, Guard, Output, Password, Reason, Secret, SessionConfig, State};

fn with(side: usize, password: Password) -> SessionConfig {
    SessionConfig { guard: Guard { password, ..Guard::default() }, ..config(side) }
}

fn key(word: &str) -> Password {
    Password::Key(Secret::new(word.as_bytes()).unwrap())
}

impl Pair {
    fn set_password(&mut self, side: usize, password: Password) {
        self.sides[side].configure(self.now, with(side, password));
        self.settle();
    }
}

#[test]
fn a_changed_password_makes_a_new_connection_at_once_and_both_sides_keep_routes_meanwhile() {
    let mut pair = Pair::established();
    pair.said = Default::default();
    pair.set_password(0, key("new"));
    assert!(pair.said[0].contains(&Output::Down { reason: Reason::Guard, graceful: true }));
    assert!(
        pair.said[1].iter().any(|said| matches!(said, Output::Down { graceful: true, .. })),
        "no NOTIFICATION: {:?}",
        pair.said[1]
    );
    assert_eq!(pair.states()[0], State::Connect);
    pair.connect(0);
    pair.settle();
    assert_eq!(pair.states(), [State::Established; 2]);
    pair.said = Default::default();
    pair.set_password(0, key("new"));
    assert!(pair.said[0].is_empty(), "the same password changes nothing");
}

#[test]
fn a_password_that_is_missing_holds_the_session_down_and_says_so_until_it_comes() {
    let mut pair =
        Pair::new(|configs| configs[0] = with(0, Password::Missing("Secret a/b has no key c".into())));
    let words = "held down: Secret a/b has no key c";
    let said = |pair: &Pair| {
        pair.said[0].iter().any(|it| matches!(it, Output::Failed(why) if why.to_string() == words))
    };
    assert!(said(&pair) && !pair.dials[0]);
    assert_eq!((pair.states()[0], pair.sides[0].poll_timeout()), (State::Idle, None));
    pair.sides[0].handle(pair.now, Event::Accepted(id(7), ADDRESS[0].into()));
    assert_eq!(pair.sides[0].poll_output(), Some(Output::Close(id(7))));
    let waits =
        SessionConfig { passive: true, ..with(0, Password::Missing("Secret a/b has no key c".into())) };
    pair.sides[0].configure(pair.now, waits);
    pair.settle();
    assert!(!pair.dials[0] && pair.states()[0] == State::Idle);
    pair.set_password(0, key("here"));
    pair.connect(0);
    pair.settle();
    assert_eq!(pair.states(), [State::Established; 2]);
}

#[test]
fn a_password_that_vanishes_ends_the_session_but_not_the_routes_at_once() {
    let mut pair = Pair::established();
    pair.said = Default::default();
    pair.set_password(0, Password::Missing("Secret a/b is gone".into()));
    let down = Output::Down { reason: Reason::NoPassword("Secret a/b is gone".into()), graceful: true };
    assert!(pair.said[0].contains(&down), "{:?}", pair.said[0]);
    assert_eq!(pair.states()[0], State::Idle);
}

#[test]
fn a_new_password_ends_the_pause_after_an_error() {
    let mut pair = Pair::established();
    pair.inject(0, 0, vec![0; 19]);
    pair.settle();
    assert!(!pair.dials[0] && pair.states()[0] == State::Idle);
    pair.set_password(0, key("new"));
    assert!(pair.dials[0]);
}

#[test]
fn a_dial_without_answer_hints_at_the_password() {
    let mut pair = Pair::new(|configs| configs[0] = with(0, key("mine")));
    pair.pass(std::time::Duration::from_secs(11));
    let hints = |said: &&Output| matches!(said, Output::Failed(why) if why.to_string().contains("password"));
    assert!(pair.said[0].iter().any(|said| hints(&said)) && !pair.said[1].iter().any(|said| hints(&said)));
}
