//! Attributes to bytes, in the order of their codes where the code is ours.

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use super::{Aggregator, Attributes, code, flag};
use crate::wire::Context;
use crate::wire::open::AS_TRANS;

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

/// Appends the attributes, without the length that stands before them.
pub(in crate::wire) fn encode(
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    context: Context,
    out: &mut BytesMut,
) {
    let Attributes { origin, as_path, med, local_pref, .. } = attributes;
    put(out, WELL_KNOWN, code::ORIGIN, |out| out.put_u8(*origin as u8));
    put(out, WELL_KNOWN, code::AS_PATH, |out| as_path.encode(context.four_octet, out));
    if let Some(address) = next_hop {
        put(out, WELL_KNOWN, code::NEXT_HOP, |out| out.put_slice(&address.octets()));
    }
    if let Some(med) = med {
        put(out, flag::OPTIONAL, code::MED, |out| out.put_u32(*med));
    }
    if let Some(preference) = local_pref {
        put(out, WELL_KNOWN, code::LOCAL_PREF, |out| out.put_u32(*preference));
    }
    if attributes.atomic_aggregate {
        put(out, WELL_KNOWN, code::ATOMIC_AGGREGATE, |_| ());
    }
    if let Some(each) = &attributes.aggregator {
        put(out, TRANSITIVE, code::AGGREGATOR, |out| aggregator(each, context.four_octet, out));
    }
    list(out, TRANSITIVE, code::COMMUNITIES, &attributes.communities, |each, out| out.put_u32(each.0));
    if let Some(address) = attributes.originator_id {
        put(out, flag::OPTIONAL, code::ORIGINATOR_ID, |out| out.put_slice(&address.octets()));
    }
    list(out, flag::OPTIONAL, code::CLUSTER_LIST, &attributes.cluster_list, |each, out| {
        out.put_slice(&each.octets());
    });
    list(out, TRANSITIVE, code::EXTENDED_COMMUNITIES, &attributes.extended_communities, |each, out| {
        out.put_slice(&each.0);
    });
    if !context.four_octet {
        four_octet_twins(attributes, out);
    }
    list(out, TRANSITIVE, code::LARGE_COMMUNITY, &attributes.large_communities, |each, out| {
        each.0.iter().for_each(|number| out.put_u32(*number));
    });
    for each in &attributes.unknown {
        let partial = if each.partial { flag::PARTIAL } else { 0 };
        put(out, TRANSITIVE | partial, each.code, |out| out.put_slice(&each.value));
    }
}

/// RFC 6793 §4.2.2: what the two-octet attributes could not say.
fn four_octet_twins(attributes: &Attributes, out: &mut BytesMut) {
    if attributes.as_path.needs_four_octets() {
        put(out, TRANSITIVE, code::AS4_PATH, |out| attributes.as_path.encode(true, out));
    }
    if let Some(each) = attributes.aggregator.filter(|each| each.asn.get() > 0xffff) {
        put(out, TRANSITIVE, code::AS4_AGGREGATOR, |out| aggregator(&each, true, out));
    }
}

fn aggregator(each: &Aggregator, four_octet: bool, out: &mut BytesMut) {
    if four_octet {
        out.put_u32(each.asn.get());
    } else {
        out.put_u16(u16::try_from(each.asn.get()).unwrap_or(AS_TRANS));
    }
    out.put_slice(&each.identifier.octets());
}

fn list<T>(out: &mut BytesMut, flags: u8, code: u8, items: &[T], item: impl Fn(&T, &mut BytesMut)) {
    if !items.is_empty() {
        put(out, flags, code, |out| items.iter().for_each(|each| item(each, out)));
    }
}

/// One attribute, with the extended length only where it is needed: some old speakers mistrust it elsewhere.
fn put(out: &mut BytesMut, flags: u8, code: u8, value: impl FnOnce(&mut BytesMut)) {
    let mut body = BytesMut::new();
    value(&mut body);
    match u8::try_from(body.len()) {
        Ok(length) => out.put_slice(&[flags, code, length]),
        Err(_) => {
            out.put_slice(&[flags | flag::EXTENDED_LENGTH, code]);
            out.put_u16(body.len() as u16);
        }
    }
    out.put_slice(&body);
}
