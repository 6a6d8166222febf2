//! Messages of nfnetlink: their numbers, their heads, and those that make up our table.

use std::net::Ipv4Addr;

use manx_felix::{AddressSet, Chain, Hook, Rule, TABLE};
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::attributes::Writer;
use super::rule::expressions;

pub(super) const NEWTABLE: u8 = 0;
pub(super) const GETTABLE: u8 = 1;
pub(super) const DELTABLE: u8 = 2;
pub(super) const NEWCHAIN: u8 = 3;
pub(super) const GETCHAIN: u8 = 4;
pub(super) const NEWRULE: u8 = 6;
pub(super) const GETRULE: u8 = 7;
pub(super) const NEWSET: u8 = 9;
pub(super) const GETSET: u8 = 10;
pub(super) const NEWSETELEM: u8 = 12;
pub(super) const GETSETELEM: u8 = 13;
pub(super) const NEWGEN: u8 = 15;
pub(super) const GETGEN: u8 = 16;

/// NFPROTO_IPV4, the family of our table.
pub(super) const IPV4: u8 = 2;
/// NFNL_SUBSYS_NFTABLES.
pub(super) const NFTABLES: u16 = 10;
/// `struct nfgenmsg`, in front of the attributes.
pub(super) const HEAD: usize = 4;

/// NF_ACCEPT.
pub(super) const ACCEPT: u32 = 1;
/// NFT_CHAIN_BASE.
pub(super) const AT_A_HOOK: u32 = 1;
/// NFT_SET_INTERVAL.
pub(super) const INTERVAL: u32 = 4;
/// NFT_SET_ELEM_INTERVAL_END: the first address behind a range.
pub(super) const END: u32 = 1;
/// nft's number of its type `ipv4_addr`, by which it shows the elements.
pub(super) const IPV4_ADDR: u32 = 7;

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NLM_F_REQUEST: u16 = 1;
/// Ranges in one message: an attribute has at most 64 KiB.
const RANGES: usize = 500;

/// The attribute in which every message of nftables names its table.
pub(super) const TABLE_NAME: u16 = 1;
/// NFTA_LIST_ELEM.
pub(super) const LIST_ELEMENT: u16 = 1;

/// The kind of a message of nftables.
pub(super) fn kind(message: u8) -> u16 {
    NFTABLES << 8 | u16::from(message)
}

/// A message with its two heads.
pub(super) fn message(message: u8, flags: u16, sequence: u32, attributes: &[u8]) -> Vec<u8> {
    with_heads(kind(message), flags, sequence, [IPV4, 0, 0, 0], attributes)
}

/// The begin of a transaction.
pub(super) fn begin(sequence: u32) -> Vec<u8> {
    with_heads(NFNL_MSG_BATCH_BEGIN, 0, sequence, of_nftables(), &[])
}

/// The end of a transaction: now it is carried out.
pub(super) fn end(sequence: u32) -> Vec<u8> {
    with_heads(NFNL_MSG_BATCH_END, 0, sequence, of_nftables(), &[])
}

fn of_nftables() -> [u8; HEAD] {
    let [high, low] = NFTABLES.to_be_bytes();
    [0, 0, high, low]
}

fn with_heads(kind: u16, flags: u16, sequence: u32, head: [u8; HEAD], attributes: &[u8]) -> Vec<u8> {
    let length = 16 + HEAD + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).expect("a message is short").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(head);
    bytes.extend(attributes);
    bytes
}

/// One step of a transaction: message, flags, attributes.
pub(super) type Step = (u8, u16, Vec<u8>);

pub(super) fn table() -> Writer {
    Writer::default().text(TABLE_NAME, TABLE)
}

pub(super) fn set(name: &str) -> Step {
    // The kernel wants a number that is its own in the transaction, for sets without a name.
    let set = table().text(2, name).number(3, INTERVAL).number(4, IPV4_ADDR).number(5, 4).number(10, 1);
    (NEWSET, NLM_F_CREATE, set.finish())
}

/// The ranges of a set, in as many steps as they need.
pub(super) fn elements(name: &str, addresses: &AddressSet) -> impl Iterator<Item = Step> {
    addresses.ranges().chunks(RANGES).map(move |ranges| {
        let list = ranges.iter().fold(Writer::default(), |list, (first, last)| {
            let list = list.nested(LIST_ELEMENT, element(*first, 0));
            match last.to_bits().checked_add(1) {
                Some(behind) => list.nested(LIST_ELEMENT, element(Ipv4Addr::from_bits(behind), END)),
                // Up to the last address of all.
                None => list,
            }
        });
        (NEWSETELEM, NLM_F_CREATE, table().text(2, name).nested(3, list).finish())
    })
}

fn element(address: Ipv4Addr, flags: u32) -> Writer {
    let key = Writer::default().bytes(1, &address.octets());
    Writer::default().nested(1, key).number(3, flags)
}

pub(super) fn chain(name: &str, chain: &Chain) -> Step {
    let (number, kind) = at(chain.hook);
    let hook = Writer::default().number(1, number).number(2, chain.priority.cast_unsigned());
    let chain = table().text(3, name).nested(4, hook).number(5, ACCEPT).text(7, kind);
    (NEWCHAIN, NLM_F_CREATE, chain.finish())
}

/// The number of a hook (NF_INET_*), and the kind of chain there.
pub(super) fn at(hook: Hook) -> (u32, &'static str) {
    match hook {
        Hook::Input => (1, "filter"),
        Hook::Forward => (2, "filter"),
        Hook::Translate => (4, "nat"),
    }
}

pub(super) fn rule(chain: &str, rule: &Rule) -> Step {
    let all = expressions(rule);
    let list =
        all.iter().fold(Writer::default(), |list, expression| list.nested(LIST_ELEMENT, expression.write()));
    (NEWRULE, NLM_F_CREATE | NLM_F_APPEND, table().text(2, chain).nested(4, list).finish())
}
