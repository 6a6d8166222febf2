//! A rule of `manx-felix` as expressions, and back.

use std::net::Ipv4Addr;

use manx_felix::{Action, Match, Membership, Rule};
use manx_model::PortRange;

use super::expression::{DROP, Expression, FULLY_RANDOM, INPUT_DEVICE, Register};

/// Offsets in the IPv4 header (RFC 791 §3.1).
const PROTOCOL: u32 = 9;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

/// Matches use one register, each after the other; what translates reads up to three.
const ONE: Register = 1;
const TWO: Register = 2;
const THREE: Register = 3;

pub(super) fn expressions(rule: &Rule) -> Vec<Expression> {
    let mut all: Vec<Expression> = rule.matches.iter().flat_map(condition).collect();
    match rule.action {
        Action::Drop => all.extend([Expression::Counter, Expression::Verdict(DROP)]),
        Action::Masquerade(range) => {
            let ports = range.map(|range| load_ports(range, ONE, TWO, &mut all));
            all.push(Expression::Masquerade { flags: FULLY_RANDOM, ports });
        }
        Action::Translate(address, range) => {
            all.push(Expression::Immediate { value: address.octets().to_vec(), to: ONE });
            let ports = range.map(|range| load_ports(range, TWO, THREE, &mut all));
            all.push(Expression::Translate { address: ONE, flags: FULLY_RANDOM, ports });
        }
    }
    all
}

fn condition(condition: &Match) -> [Expression; 2] {
    let of_set = |offset, membership: &Membership| {
        let Membership { set, within } = membership.clone();
        [address(offset), Expression::Lookup { set, within, from: ONE }]
    };
    match condition {
        Match::FromDevice(prefix) => [
            Expression::Meta { key: INPUT_DEVICE, to: ONE },
            Expression::Equal { value: prefix.clone().into_bytes(), from: ONE },
        ],
        Match::Protocol(protocol) => [
            Expression::Payload { offset: PROTOCOL, length: 1, to: ONE },
            Expression::Equal { value: vec![*protocol], from: ONE },
        ],
        Match::Source(membership) => of_set(SOURCE, membership),
        Match::Destination(membership) => of_set(DESTINATION, membership),
    }
}

fn address(offset: u32) -> Expression {
    Expression::Payload { offset, length: 4, to: ONE }
}

fn load_ports(
    range: PortRange,
    first: Register,
    last: Register,
    all: &mut Vec<Expression>,
) -> (Register, Register) {
    for (port, to) in [(range.first(), first), (range.last(), last)] {
        all.push(Expression::Immediate { value: port.to_be_bytes().to_vec(), to });
    }
    (first, last)
}

/// The rule that has these expressions; `None` where it is none that we write.
pub(super) fn rule(expressions: &[Expression]) -> Option<Rule> {
    let mut matches = Vec::new();
    let mut rest = expressions;
    while let [one, two, behind @ ..] = rest {
        let Some(condition) = read_condition(one, two) else { break };
        matches.push(condition);
        rest = behind;
    }
    let rule = Rule { matches, action: read_action(rest)? };
    // Registers and flags are those that we use, too.
    (self::expressions(&rule) == expressions).then_some(rule)
}

fn read_condition(one: &Expression, two: &Expression) -> Option<Match> {
    match (one, two) {
        (Expression::Meta { key: INPUT_DEVICE, .. }, Expression::Equal { value, .. }) => {
            String::from_utf8(value.clone()).ok().map(Match::FromDevice)
        }
        (Expression::Payload { offset: PROTOCOL, .. }, Expression::Equal { value, .. }) => match value[..] {
            [protocol] => Some(Match::Protocol(protocol)),
            _ => None,
        },
        (Expression::Payload { offset, .. }, Expression::Lookup { set, within, .. }) => {
            let membership = Membership { set: set.clone(), within: *within };
            match *offset {
                SOURCE => Some(Match::Source(membership)),
                DESTINATION => Some(Match::Destination(membership)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn read_action(expressions: &[Expression]) -> Option<Action> {
    use Expression::{Counter, Immediate, Masquerade, Translate, Verdict};
    match expressions {
        [Counter, Verdict(DROP)] => Some(Action::Drop),
        [Masquerade { .. }] => Some(Action::Masquerade(None)),
        [Immediate { value: first, .. }, Immediate { value: last, .. }, Masquerade { .. }] => {
            Some(Action::Masquerade(Some(ports(first, last)?)))
        }
        [Immediate { value, .. }, Translate { .. }] => Some(Action::Translate(ipv4(value)?, None)),
        [
            Immediate { value, .. },
            Immediate { value: first, .. },
            Immediate { value: last, .. },
            Translate { .. },
        ] => Some(Action::Translate(ipv4(value)?, Some(ports(first, last)?))),
        _ => None,
    }
}

fn ports(first: &[u8], last: &[u8]) -> Option<PortRange> {
    let port = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.try_into().ok()?));
    PortRange::new(port(first)?, port(last)?)
}

/// An address, as sets and registers hold it.
pub(super) fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}
