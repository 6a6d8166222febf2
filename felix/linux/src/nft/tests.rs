use std::net::Ipv4Addr;

use manx_felix::{Action, Match, Membership, Rule};
use manx_model::PortRange;
use proptest::prelude::*;

use super::expression::Expression;
use super::read::{ranges, table_of};
use super::rule;

fn membership() -> impl Strategy<Value = Membership> {
    ("[a-z-]{1,15}", any::<bool>()).prop_map(|(set, within)| Membership { set, within })
}

fn condition() -> impl Strategy<Value = Match> {
    prop_oneof![
        "[a-z]{1,15}".prop_map(Match::FromDevice),
        any::<u8>().prop_map(Match::Protocol),
        membership().prop_map(Match::Source),
        membership().prop_map(Match::Destination),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let range = || {
        let of = |(one, other): (u16, u16)| PortRange::new(one.min(other), one.max(other));
        proptest::option::of(any::<(u16, u16)>()).prop_map(move |ports| ports.and_then(of))
    };
    let address = any::<u32>().prop_map(Ipv4Addr::from_bits);
    prop_oneof![
        Just(Action::Drop),
        range().prop_map(Action::Masquerade),
        (address, range()).prop_map(|(address, ports)| Action::Translate(address, ports)),
    ]
}

proptest! {
    #[test]
    fn a_rule_that_is_written_reads_as_the_same_rule(
        matches in proptest::collection::vec(condition(), 0..4), action in action(),
    ) {
        let written = Rule { matches, action };
        let read: Option<Vec<Expression>> = rule::expressions(&written)
            .iter()
            .map(|expression| Expression::read(&expression.write().finish()))
            .collect();
        prop_assert_eq!(read.as_deref().and_then(rule::rule), Some(written));
    }

    #[test]
    fn no_bytes_from_the_kernel_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (Expression::read(&bytes), table_of(&bytes));
    }
}

#[test]
fn a_rule_with_more_or_less_than_we_write_is_none_of_ours() {
    let dropping = Rule { matches: vec![Match::Protocol(4)], action: Action::Drop };
    let expressions = rule::expressions(&dropping);
    assert_eq!(rule::rule(&expressions), Some(dropping));
    let without_counter: Vec<_> =
        expressions.iter().filter(|one| **one != Expression::Counter).cloned().collect();
    let twice = [&expressions[..], &expressions[..]].concat();
    let mut accepting = expressions.clone();
    *accepting.last_mut().unwrap() = Expression::Verdict(1);
    for strange in [without_counter, twice, accepting, Vec::new()] {
        assert_eq!(rule::rule(&strange), None, "{strange:?}");
    }
}

#[test]
fn ranges_are_read_from_their_bounds_in_any_order() {
    let at = |address: &str, is_end| (address.parse::<Ipv4Addr>().unwrap(), is_end);
    for (bounds, text) in [
        (vec![], ""),
        (vec![at("10.0.1.0", true), at("10.0.0.0", false)], "10.0.0.0-10.0.0.255"),
        (
            vec![at("0.0.0.0", true), at("10.0.0.1", true), at("10.0.0.2", false), at("10.0.0.0", false)],
            "10.0.0.0, 10.0.0.2-255.255.255.255",
        ),
    ] {
        assert_eq!(ranges(bounds).to_string(), text);
    }
}
