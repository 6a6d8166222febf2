//! Attributes from bytes, with the consequences that RFC 7606 §7 gives each error.

use std::net::Ipv4Addr;

use bytes::Bytes;
use manx_model::Asn;
use nom::number::complete::{be_u8, be_u16};
use nom::{IResult, Parser};

use super::{
    Aggregator, Attributes, Community, ExtendedCommunity, LargeCommunity, Origin, UnknownAttribute, code,
    flag,
};
use crate::wire::{AsPath, Context, ErrorCode, Notification, Severity, WireError};

/// What the attributes of one UPDATE said.
#[derive(Default)]
pub(in crate::wire) struct Decoded<'a> {
    pub(in crate::wire) attributes: Attributes,
    pub(in crate::wire) next_hop: Option<Ipv4Addr>,
    /// The value of MP_REACH_NLRI.
    pub(in crate::wire) reach: Option<&'a [u8]>,
    /// The value of MP_UNREACH_NLRI.
    pub(in crate::wire) unreach: Option<&'a [u8]>,
    pub(in crate::wire) errors: Vec<WireError>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    seen: Vec<u8>,
}

impl Decoded<'_> {
    pub(in crate::wire) fn has(&self, code: u8) -> bool {
        self.seen.contains(&code)
    }
}

/// One attribute as it stands in the message.
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    whole: &'a [u8],
}

impl Raw<'_> {
    fn error(&self, error: ErrorCode, severity: Severity, what: impl Into<String>) -> WireError {
        let notification = Notification { error, data: Bytes::copy_from_slice(self.whole) };
        WireError { what: what.into().into(), notification, severity }
    }

    fn length_error(&self, severity: Severity, name: &str) -> WireError {
        let what = format!("{name} is {} octets long", self.value.len());
        self.error(ErrorCode::ATTRIBUTE_LENGTH, severity, what)
    }

    fn array<const N: usize>(&self, severity: Severity, name: &str) -> Result<[u8; N], WireError> {
        self.value.try_into().map_err(|_| self.length_error(severity, name))
    }

    /// The value as a list of items that are `N` octets each, at least one.
    fn list<const N: usize, T>(&self, name: &str, item: impl Fn([u8; N]) -> T) -> Result<Vec<T>, WireError> {
        let (items, rest) = self.value.as_chunks::<N>();
        if items.is_empty() || !rest.is_empty() {
            return Err(self.length_error(Severity::TreatAsWithdraw, name));
        }
        Ok(items.iter().copied().map(item).collect())
    }
}

/// Reads all attributes. `Err` is what resets the session; everything milder is in [`Decoded::errors`].
pub(in crate::wire) fn decode(input: &[u8], context: Context) -> Result<Decoded<'_>, WireError> {
    let mut decoded = Decoded::default();
    let mut input = input;
    while !input.is_empty() {
        let Ok((rest, raw)) = raw(input) else {
            let what = "the last attribute is longer than the attributes' field (RFC 7606 §4)";
            let error = WireError::reset(ErrorCode::MALFORMED_ATTRIBUTES, Bytes::new(), what);
            decoded.errors.push(error.with(Severity::TreatAsWithdraw));
            break;
        };
        input = rest;
        if decoded.has(raw.code) {
            decoded.errors.push(repeated(&raw)?);
            continue;
        }
        decoded.seen.push(raw.code);
        if let Err(error) = check_flags(&raw).and_then(|()| attribute(&raw, context, &mut decoded)) {
            decoded.errors.push(error);
        }
    }
    merge_four_octet(&mut decoded);
    Ok(decoded)
}

fn raw(input: &[u8]) -> IResult<&[u8], Raw<'_>> {
    let (rest, (flags, code)) = (be_u8, be_u8).parse(input)?;
    let (rest, length) =
        if flags & flag::EXTENDED_LENGTH != 0 { be_u16(rest)? } else { be_u8.map(u16::from).parse(rest)? };
    let (rest, value) = nom::bytes::complete::take(length)(rest)?;
    Ok((rest, Raw { flags, code, value, whole: &input[..input.len() - rest.len()] }))
}

/// RFC 7606 §3 g: all but the first are discarded, unless they carry NLRI.
fn repeated(raw: &Raw<'_>) -> Result<WireError, WireError> {
    let what = format!("attribute {} is there twice", raw.code);
    match raw.code {
        code::MP_REACH | code::MP_UNREACH => {
            Err(WireError::reset(ErrorCode::MALFORMED_ATTRIBUTES, Bytes::new(), what))
        }
        _ => Ok(raw.error(ErrorCode::MALFORMED_ATTRIBUTES, Severity::AttributeDiscard, what)),
    }
}

/// RFC 7606 §3 c: Optional and Transitive of an attribute that we know must be as it is defined.
fn check_flags(raw: &Raw<'_>) -> Result<(), WireError> {
    let both = flag::OPTIONAL | flag::TRANSITIVE;
    let right = match raw.code {
        code::ORIGIN..=code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => flag::TRANSITIVE,
        code::MED | code::ORIGINATOR_ID | code::CLUSTER_LIST | code::MP_REACH | code::MP_UNREACH => {
            flag::OPTIONAL
        }
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::LARGE_COMMUNITY
        | code::AS4_PATH
        | code::AS4_AGGREGATOR => both,
        _ if raw.flags & flag::OPTIONAL == 0 => {
            let what = format!("attribute {} claims to be well-known, but is unknown", raw.code);
            return Err(raw.error(ErrorCode::UNRECOGNIZED_WELL_KNOWN, Severity::TreatAsWithdraw, what));
        }
        _ => return Ok(()),
    };
    if raw.flags & both == right {
        return Ok(());
    }
    let what = format!("the flags of attribute {} are {:#04x}", raw.code, raw.flags);
    Err(raw.error(ErrorCode::ATTRIBUTE_FLAGS, Severity::TreatAsWithdraw, what))
}

fn attribute<'a>(raw: &Raw<'a>, context: Context, decoded: &mut Decoded<'a>) -> Result<(), WireError> {
    use Severity::{AttributeDiscard, TreatAsWithdraw};
    let inside_only = matches!(raw.code, code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST);
    if inside_only && context.external {
        // RFC 7606 §7.5, 7.9, 7.10. That is no fault worth a word: RFC 4271 §5.1.5 has it ignored.
        return Ok(());
    }
    let attributes = &mut decoded.attributes;
    match raw.code {
        code::ORIGIN => attributes.origin = origin(raw)?,
        code::AS_PATH => {
            attributes.as_path = AsPath::decode(raw.value, context.four_octet)
                .map_err(|what| raw.error(ErrorCode::MALFORMED_AS_PATH, TreatAsWithdraw, what))?;
        }
        code::NEXT_HOP => decoded.next_hop = Some(next_hop(raw)?),
        code::MED => {
            attributes.med = Some(u32::from_be_bytes(raw.array(TreatAsWithdraw, "MULTI_EXIT_DISC")?));
        }
        code::LOCAL_PREF => {
            attributes.local_pref = Some(u32::from_be_bytes(raw.array(TreatAsWithdraw, "LOCAL_PREF")?));
        }
        code::ATOMIC_AGGREGATE => {
            raw.array::<0>(AttributeDiscard, "ATOMIC_AGGREGATE")?;
            attributes.atomic_aggregate = true;
        }
        code::AGGREGATOR => attributes.aggregator = Some(aggregator(raw, context.four_octet)?),
        code::COMMUNITIES => {
            let list = raw.list("COMMUNITIES", |item| Community(u32::from_be_bytes(item)))?;
            attributes.communities = distinct(list);
        }
        code::ORIGINATOR_ID => {
            attributes.originator_id = Some(raw.array::<4>(TreatAsWithdraw, "ORIGINATOR_ID")?.into());
        }
        code::CLUSTER_LIST => attributes.cluster_list = raw.list::<4, _>("CLUSTER_LIST", Ipv4Addr::from)?,
        code::LARGE_COMMUNITY => {
            attributes.large_communities = distinct(raw.list::<12, _>("LARGE_COMMUNITY", large_community)?);
        }
        code::EXTENDED_COMMUNITIES => {
            let mut list = raw.list("EXTENDED COMMUNITIES", ExtendedCommunity)?;
            // RFC 4360 §6: what is not transitive has no business beyond its AS.
            list.retain(|each| each.transitive() || !context.external);
            attributes.extended_communities = list;
        }
        code::MP_REACH => decoded.reach = Some(raw.value),
        code::MP_UNREACH => decoded.unreach = Some(raw.value),
        // RFC 6793 §6: a four-octet peer must not send these; they are discarded.
        code::AS4_PATH | code::AS4_AGGREGATOR if context.four_octet => (),
        code::AS4_PATH => {
            let path = AsPath::decode(raw.value, true)
                .map_err(|what| raw.error(ErrorCode::OPTIONAL_ATTRIBUTE, AttributeDiscard, what))?;
            decoded.as4_path = Some(path);
        }
        code::AS4_AGGREGATOR => decoded.as4_aggregator = Some(aggregator(raw, true)?),
        _ if raw.flags & flag::TRANSITIVE != 0 => attributes.unknown.push(UnknownAttribute {
            code: raw.code,
            partial: raw.flags & flag::PARTIAL != 0,
            value: Bytes::copy_from_slice(raw.value),
        }),
        // Optional and not transitive: quietly ignored (RFC 4271 §5).
        _ => (),
    }
    Ok(())
}

fn origin(raw: &Raw<'_>) -> Result<Origin, WireError> {
    match raw.array(Severity::TreatAsWithdraw, "ORIGIN")? {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [other] => {
            let what = format!("ORIGIN is {other}, which is not defined");
            Err(raw.error(ErrorCode::INVALID_ORIGIN, Severity::TreatAsWithdraw, what))
        }
    }
}

fn next_hop(raw: &Raw<'_>) -> Result<Ipv4Addr, WireError> {
    let address = Ipv4Addr::from(raw.array::<4>(Severity::TreatAsWithdraw, "NEXT_HOP")?);
    if super::usable_next_hop(address.into()) {
        return Ok(address);
    }
    let what = format!("NEXT_HOP {address} is not the address of a host");
    Err(raw.error(ErrorCode::INVALID_NEXT_HOP, Severity::TreatAsWithdraw, what))
}

/// RFC 7606 §7.7, and RFC 7607 for AS 0: the attribute is discarded.
fn aggregator(raw: &Raw<'_>, four_octet: bool) -> Result<Aggregator, WireError> {
    let discard = Severity::AttributeDiscard;
    let (asn, identifier) = if four_octet {
        let [a, b, c, d, identifier @ ..] = raw.array::<8>(discard, "AGGREGATOR")?;
        (u32::from_be_bytes([a, b, c, d]), identifier)
    } else {
        let [a, b, identifier @ ..] = raw.array::<6>(discard, "AGGREGATOR")?;
        (u32::from(u16::from_be_bytes([a, b])), identifier)
    };
    let asn = Asn::new(asn).ok_or_else(|| {
        raw.error(ErrorCode::OPTIONAL_ATTRIBUTE, discard, "AS 0 is in AGGREGATOR (RFC 7607)")
    })?;
    Ok(Aggregator { asn, identifier: identifier.into() })
}

/// RFC 8092 §3 has repetitions removed; for standard communities they mean as little.
fn distinct<T: Copy + Ord>(mut list: Vec<T>) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|each| seen.insert(*each));
    list
}

fn large_community(item: [u8; 12]) -> LargeCommunity {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = item;
    LargeCommunity([[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_be_bytes))
}

/// RFC 6793 §4.2.3: what a two-octet peer passed on of the four-octet numbers.
fn merge_four_octet(decoded: &mut Decoded<'_>) {
    let trans = u32::from(crate::wire::open::AS_TRANS);
    let attributes = &mut decoded.attributes;
    match (&mut attributes.aggregator, decoded.as4_aggregator.take()) {
        // The aggregate was formed behind the last speaker that knew AS4_PATH: what that says is out of date.
        (Some(aggregator), Some(_)) if aggregator.asn.get() != trans => return,
        (Some(aggregator), Some(as4)) => *aggregator = as4,
        _ => (),
    }
    if let Some(as4) = decoded.as4_path.take() {
        attributes.as_path = std::mem::take(&mut attributes.as_path).merged(as4);
    }
}
