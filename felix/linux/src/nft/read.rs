//! Our table, read back.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use manx_felix::{AddressSet, Chain, FoundRuleset, Hook, Rule, Ruleset};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP};

use super::attributes::Writer;
use super::expression::{Expression, Fields};
use super::message::{
    self, ACCEPT, AT_A_HOOK, END, GETCHAIN, GETGEN, GETRULE, GETSET, GETSETELEM, GETTABLE, HEAD, INTERVAL,
    IPV4_ADDR, LIST_ELEMENT,
};
use super::rule::{ipv4, rule};
use crate::error::ENOENT;
use crate::parse::{Attributes, text};
use crate::socket::{DumpError, Refusal, Socket};

/// How often a read begins anew because somebody committed meanwhile.
const ATTEMPTS: usize = 20;

/// Reads the table, unless `last` is of this very generation. Returns the generation, too.
pub(super) fn table(
    socket: &mut Socket,
    last: Option<(u32, Option<FoundRuleset>)>,
) -> Result<(u32, Option<FoundRuleset>), Refusal> {
    for _ in 0..ATTEMPTS {
        let before = generation(socket)?;
        if let Some((generation, found)) = &last
            && *generation == before
        {
            return Ok((before, found.clone()));
        }
        match found(socket) {
            Ok(found) if generation(socket)? == before => return Ok((before, found)),
            Ok(_) | Err(DumpError::Interrupted) => {}
            // What the table had a moment ago is gone.
            Err(DumpError::Refused(refusal)) if refusal.errno == ENOENT => {}
            Err(DumpError::Refused(refusal)) => return Err(refusal),
        }
    }
    let words = format!("nftables changed {ATTEMPTS} times while it was read; try again");
    Err(Refusal { errno: 0, words: Some(words) })
}

fn generation(socket: &mut Socket) -> Result<u32, Refusal> {
    let mut generation = None;
    let asked = ask(socket, GETGEN, NLM_F_ACK, Writer::default(), |answer| generation = answer.number(1));
    match asked {
        Err(DumpError::Refused(refusal)) => Err(refusal),
        Err(DumpError::Interrupted) | Ok(()) => {
            generation.ok_or_else(|| Refusal { errno: 0, words: Some("it told no generation".to_owned()) })
        }
    }
}

/// What was read of a table so far.
#[derive(Default)]
struct Reading {
    ruleset: Ruleset,
    altered: bool,
    /// How many chains, sets and other things the table holds, in the kernel's own count.
    holds: u32,
}

fn found(socket: &mut Socket) -> Result<Option<FoundRuleset>, DumpError> {
    let mut reading = Reading::default();
    let asked = ask(socket, GETTABLE, NLM_F_ACK, message::table(), |table| {
        reading.altered = table.number(2).unwrap_or(0) != 0;
        reading.holds = table.number(3).unwrap_or(0);
    });
    match asked {
        Err(DumpError::Refused(refusal)) if refusal.errno == ENOENT => return Ok(None),
        other => other?,
    }
    reading.sets(socket)?;
    let rules = reading.rules(socket)?;
    reading.chains(socket, rules)?;
    let Reading { ruleset, mut altered, holds } = reading;
    altered |= ruleset.sets.len() + ruleset.chains.len() != holds as usize;
    Ok(Some(FoundRuleset { ruleset, altered }))
}

impl Reading {
    fn sets(&mut self, socket: &mut Socket) -> Result<(), DumpError> {
        let mut names = Vec::new();
        ask(socket, GETSET, NLM_F_DUMP, message::table(), |set| {
            let is_ours = set.number(3) == Some(INTERVAL) && set.number(4) == Some(IPV4_ADDR);
            self.altered |= !is_ours;
            names.extend(set.text(2));
        })?;
        for name in names {
            let addresses = elements(socket, &name)?;
            self.ruleset.sets.insert(name, addresses);
        }
        Ok(())
    }

    /// Every rule of the table, by chain.
    fn rules(&mut self, socket: &mut Socket) -> Result<BTreeMap<String, Vec<Rule>>, DumpError> {
        let mut rules: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        ask(socket, GETRULE, NLM_F_DUMP, message::table(), |found| {
            let Some(chain) = found.text(2) else { return };
            let expressions = found.bytes(4).unwrap_or_default();
            let list = Attributes::new(expressions).filter(|(kind, _)| *kind == LIST_ELEMENT);
            let all: Option<Vec<_>> = list.map(|(_, element)| Expression::read(element)).collect();
            let chain = rules.entry(chain).or_default();
            match all.and_then(|all| rule(&all)) {
                Some(rule) => chain.push(rule),
                None => self.altered = true,
            }
        })?;
        Ok(rules)
    }

    /// The chains that have rules. One without any is none of ours, and shows in what the table holds.
    fn chains(&mut self, socket: &mut Socket, rules: BTreeMap<String, Vec<Rule>>) -> Result<(), DumpError> {
        for (name, rules) in rules {
            let mut place = None;
            ask(socket, GETCHAIN, NLM_F_ACK, message::table().text(3, &name), |chain| place = at(chain))?;
            match place {
                Some((hook, priority)) => {
                    self.ruleset.chains.insert(name, Chain { hook, priority, rules });
                }
                None => self.altered = true,
            }
        }
        Ok(())
    }
}

/// Where a chain hangs, if it is one that we could have written.
fn at(chain: Fields<'_>) -> Option<(Hook, i32)> {
    let place = Fields(chain.bytes(4)?);
    let kind = chain.text(7)?;
    let is_ours = chain.number(5)? == ACCEPT && chain.number(10).unwrap_or(AT_A_HOOK) == AT_A_HOOK;
    let number = place.number(1)?;
    let hook = [Hook::Input, Hook::Forward, Hook::Translate]
        .into_iter()
        .find(|hook| message::at(*hook) == (number, kind.as_str()))?;
    is_ours.then_some((hook, place.number(2)?.cast_signed()))
}

fn elements(socket: &mut Socket, set: &str) -> Result<AddressSet, DumpError> {
    let mut bounds = Vec::new();
    ask(socket, GETSETELEM, NLM_F_DUMP, message::table().text(2, set), |answer| {
        let list = Attributes::new(answer.bytes(3).unwrap_or_default());
        bounds.extend(list.filter_map(|(_, element)| {
            let element = Fields(element);
            let address = ipv4(Fields(element.bytes(1)?).bytes(1)?)?;
            Some((address, element.number(3).unwrap_or(0) & END != 0))
        }));
    })?;
    Ok(ranges(bounds))
}

/// Ranges from their bounds: first addresses, and those behind the last.
pub(super) fn ranges(mut bounds: Vec<(Ipv4Addr, bool)>) -> AddressSet {
    // Where one range ends and another begins, the end comes first.
    bounds.sort_by_key(|(address, is_end)| (*address, !is_end));
    let mut ranges = Vec::new();
    let mut open = None;
    for (address, is_end) in bounds {
        match (is_end, open.take()) {
            (true, Some(first)) => {
                ranges.push((first, Ipv4Addr::from_bits(address.to_bits().saturating_sub(1))));
            }
            // nft itself puts an end in front of all ranges.
            (true, None) => {}
            (false, before) => open = before.or(Some(address)),
        }
    }
    ranges.extend(open.map(|first| (first, Ipv4Addr::BROADCAST)));
    ranges.into_iter().collect()
}

/// Asks for what the attributes describe, and hands over the attributes of each answer.
fn ask(
    socket: &mut Socket,
    what: u8,
    flags: u16,
    attributes: Writer,
    mut each: impl FnMut(Fields<'_>),
) -> Result<(), DumpError> {
    let sequence = socket.sequence();
    let question = message::message(what, flags, sequence, &attributes.finish());
    socket.transmit(&question)?;
    socket.answers(sequence, |answer| each(Fields(answer.payload.get(HEAD..).unwrap_or_default())))
}

/// The table that a message of nftables is about.
pub(super) fn table_of(payload: &[u8]) -> Option<String> {
    let attributes = payload.get(HEAD..).unwrap_or_default();
    Attributes::new(attributes).find(|(kind, _)| *kind == message::TABLE_NAME).map(|(_, name)| text(name))
}
