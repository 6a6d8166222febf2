//! Our table, written in one transaction.

use manx_felix::Ruleset;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLMSG_ERROR};

use super::message::{self, DELTABLE, NEWTABLE, Step};
use crate::parse::messages;
use crate::socket::{Refusal, Socket, acknowledgement};

/// Puts `ruleset` in place of our table, or removes it.
pub(super) fn table(socket: &mut Socket, ruleset: Option<&Ruleset>) -> Result<(), Refusal> {
    transact(socket, &steps(ruleset))
}

/// A table that is not there cannot be deleted, so it is made before.
fn steps(ruleset: Option<&Ruleset>) -> Vec<Step> {
    let table = || (NEWTABLE, NLM_F_CREATE, message::table().finish());
    let mut steps = vec![table(), (DELTABLE, 0, message::table().finish())];
    let Some(ruleset) = ruleset else { return steps };
    steps.push(table());
    for (name, addresses) in &ruleset.sets {
        steps.push(message::set(name));
        steps.extend(message::elements(name, addresses));
    }
    steps.extend(ruleset.chains.iter().map(|(name, chain)| message::chain(name, chain)));
    for (name, chain) in &ruleset.chains {
        steps.extend(chain.rules.iter().map(|rule| message::rule(name, rule)));
    }
    steps
}

/// Sends the steps as one batch. Refusals come unasked, for each step; what concerns the whole is told about its begin.
fn transact(socket: &mut Socket, steps: &[Step]) -> Result<(), Refusal> {
    let begin = socket.sequence();
    let mut bytes = message::begin(begin);
    let mut last = begin;
    for (index, (kind, flags, attributes)) in steps.iter().enumerate() {
        last = socket.sequence();
        let acknowledged = if index + 1 == steps.len() { NLM_F_ACK } else { 0 };
        bytes.extend(message::message(*kind, flags | acknowledged, last, attributes));
    }
    bytes.extend(message::end(socket.sequence()));
    socket.transmit(&bytes)?;
    let mut refusal = None;
    loop {
        for answer in messages(socket.datagram()?).filter(|answer| answer.kind == NLMSG_ERROR) {
            let is_of_this = answer.sequence.wrapping_sub(begin) <= last.wrapping_sub(begin);
            if !is_of_this {
                continue;
            }
            refusal = refusal.or(acknowledgement(&answer).err());
            if answer.sequence == last || answer.sequence == begin {
                return refusal.map_or(Ok(()), Err);
            }
        }
    }
}
