//! UPDATE (RFC 4271 §4.3), with MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760).

use std::net::{IpAddr, Ipv4Addr};

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::IpNet;

use super::attributes::{self, code};
use super::{Attributes, Context, ErrorCode, Family, Severity, WireError, frame, nlri, usable_next_hop};

/// Prefixes that share a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The next hop.
    pub next_hop: IpAddr,
    /// The prefixes.
    pub prefixes: Vec<IpNet>,
}

/// An UPDATE, after the errors which RFC 7606 lets survive have been acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes that can no longer be reached, those treated as withdrawn included.
    pub withdrawn: Vec<IpNet>,
    /// What is said about the announced prefixes.
    pub attributes: Attributes,
    /// The announced prefixes; more than one entry only when a peer mixes the classic field with MP_REACH_NLRI.
    pub announced: Vec<Announcement>,
    /// This is the End-of-RIB marker of a family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// Faults that were survived.
    pub errors: Vec<WireError>,
}

/// Attributes that leave no room for a prefix in a message of 4096 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the attributes are {0} octets long: no prefix fits into the message besides")]
pub struct TooLong(pub usize);

impl Update {
    /// The End-of-RIB marker.
    pub fn end_of_rib(family: Family) -> Self {
        Self { end_of_rib: Some(family), ..Self::default() }
    }

    pub(super) fn decode(body: &[u8], context: Context) -> Result<Self, WireError> {
        let (withdrawn, rest) = field(body)?;
        let (attributes, announced) = field(rest)?;
        let family = Family::IPV4_UNICAST;
        let mut update = Self { withdrawn: nlri::decode(withdrawn, family)?, ..Self::default() };
        let announced = nlri::decode(announced, family)?;
        let empty = update.withdrawn.is_empty() && announced.is_empty();
        if empty && attributes.is_empty() {
            return Ok(Self::end_of_rib(family));
        }
        let mut decoded = attributes::decode(attributes, context)?;
        let only_unreach = empty && decoded.reach.is_none() && decoded.unreach.is_some();
        if let Some(value) = decoded.unreach {
            let (family, prefixes) = unreach(value)?;
            update.end_of_rib = (only_unreach && prefixes.is_empty()).then_some(family);
            update.withdrawn.extend(prefixes);
        }
        let classic = !announced.is_empty();
        if classic {
            // Without a usable NEXT_HOP there is an error below, and the address here is never used.
            let next_hop = decoded.next_hop.unwrap_or(Ipv4Addr::UNSPECIFIED).into();
            update.announced.push(Announcement { next_hop, prefixes: announced });
        }
        if let Some(reach) = decoded.reach.map(reach).transpose()?.flatten() {
            if !usable_next_hop(reach.next_hop) {
                decoded.errors.push(unusable(reach.next_hop));
            }
            update.announced.push(reach);
        }
        decoded.errors.extend(missing(&update, &decoded, classic));
        update.attributes = decoded.attributes;
        update.errors = decoded.errors;
        update.apply_errors();
        Ok(update)
    }

    /// RFC 7606 §2: the gravest of several errors decides.
    fn apply_errors(&mut self) {
        let worst = self.errors.iter().map(|error| error.severity).max();
        if worst >= Some(Severity::TreatAsWithdraw) {
            self.withdrawn.extend(self.announced.drain(..).flat_map(|each| each.prefixes));
            self.attributes = Attributes::default();
        }
    }

    pub(super) fn encode(&self, context: Context, out: &mut BytesMut) -> Result<(), TooLong> {
        if let Some(family) = self.end_of_rib {
            end_of_rib(family, out);
        }
        encode_withdrawals(&self.withdrawn, out);
        for each in &self.announced {
            encode_announcements(&self.attributes, each.next_hop, &each.prefixes, context, out)?;
        }
        Ok(())
    }
}

/// A field with two octets of length before it (RFC 7606 §4: a wrong length here resets the session).
fn field(input: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let malformed = || {
        let what = "the lengths inside UPDATE do not add up";
        WireError::reset(ErrorCode::MALFORMED_ATTRIBUTES, Bytes::new(), what)
    };
    let (length, rest) = input.split_at_checked(2).ok_or_else(malformed)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([length[0], length[1]]))).ok_or_else(malformed)
}

fn family(value: &[u8]) -> Result<(Family, &[u8]), WireError> {
    match value {
        [high, low, safi, rest @ ..] => {
            Ok((Family { afi: u16::from_be_bytes([*high, *low]), safi: *safi }, rest))
        }
        _ => Err(multiprotocol("is cut off")),
    }
}

/// Families that were never announced are ignored: the peer must not send them.
fn unreach(value: &[u8]) -> Result<(Family, Vec<IpNet>), WireError> {
    let (family, rest) = family(value)?;
    let known = family == Family::IPV4_UNICAST;
    Ok((family, if known { nlri::decode(rest, family)? } else { Vec::new() }))
}

/// RFC 7606 §7.11: where the next hop's length is wrong, the prefixes cannot be found, and the session is reset.
fn reach(value: &[u8]) -> Result<Option<Announcement>, WireError> {
    let (family, rest) = family(value)?;
    if family != Family::IPV4_UNICAST {
        return Ok(None);
    }
    let [4, a, b, c, d, _reserved, rest @ ..] = rest else {
        return Err(multiprotocol("for IPv4 unicast has a next hop that is not four octets long"));
    };
    let next_hop = IpAddr::from([*a, *b, *c, *d]);
    Ok(Some(Announcement { next_hop, prefixes: nlri::decode(rest, family)? }))
}

fn multiprotocol(what: &str) -> WireError {
    let what = format!("MP_REACH_NLRI or MP_UNREACH_NLRI {what}");
    WireError::reset(ErrorCode::OPTIONAL_ATTRIBUTE, Bytes::new(), what)
}

/// RFC 7606 §3 d: routes without a mandatory attribute are withdrawn.
fn missing(update: &Update, decoded: &attributes::Decoded<'_>, classic: bool) -> Option<WireError> {
    if update.announced.is_empty() {
        return None;
    }
    let mandatory = [
        (code::ORIGIN, "ORIGIN", true),
        (code::AS_PATH, "AS_PATH", true),
        (code::NEXT_HOP, "NEXT_HOP", classic),
    ];
    let (code, name, _) = mandatory.into_iter().find(|(code, _, wanted)| *wanted && !decoded.has(*code))?;
    let data = Bytes::copy_from_slice(&[code]);
    let error = WireError::reset(ErrorCode::MISSING_WELL_KNOWN, data, format!("{name} is missing"));
    Some(error.with(Severity::TreatAsWithdraw))
}

fn unusable(next_hop: IpAddr) -> WireError {
    let what = format!("the next hop {next_hop} in MP_REACH_NLRI is not the address of a host");
    let error = WireError::reset(ErrorCode::INVALID_NEXT_HOP, Bytes::new(), what);
    error.with(Severity::TreatAsWithdraw)
}

/// Room for fields: the message without header and both length fields.
const ROOM: usize = frame::MAX_MESSAGE_LENGTH - frame::HEADER_LENGTH - 4;

/// Appends as many UPDATEs as the prefixes need.
pub fn encode_withdrawals(prefixes: &[IpNet], out: &mut BytesMut) {
    for chunk in (Chunks { left: prefixes, room: ROOM }) {
        frame::write(out, frame::UPDATE, |out| {
            out.put_u16(chunk.iter().map(nlri::encoded_length).sum::<usize>() as u16);
            chunk.iter().for_each(|prefix| nlri::encode(prefix, out));
            out.put_u16(0);
        });
    }
}

/// Appends as many UPDATEs as the prefixes need, all with the same attributes, encoded once.
pub fn encode_announcements(
    attributes: &Attributes,
    next_hop: IpAddr,
    prefixes: &[IpNet],
    context: Context,
    out: &mut BytesMut,
) -> Result<(), TooLong> {
    let next_hop = match next_hop {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    let mut encoded = BytesMut::new();
    attributes::encode(attributes, next_hop, context, &mut encoded);
    let room = ROOM.checked_sub(encoded.len()).filter(|room| *room >= 17).ok_or(TooLong(encoded.len()))?;
    for chunk in (Chunks { left: prefixes, room }) {
        frame::write(out, frame::UPDATE, |out| {
            out.put_u16(0);
            out.put_u16(encoded.len() as u16);
            out.put_slice(&encoded);
            chunk.iter().for_each(|prefix| nlri::encode(prefix, out));
        });
    }
    Ok(())
}

fn end_of_rib(family: Family, out: &mut BytesMut) {
    frame::write(out, frame::UPDATE, |out| {
        out.put_u16(0);
        if family == Family::IPV4_UNICAST {
            return out.put_u16(0);
        }
        out.put_u16(6);
        out.put_slice(&[attributes::flag::OPTIONAL, code::MP_UNREACH, 3]);
        out.put_u16(family.afi);
        out.put_u8(family.safi);
    });
}

/// Runs of prefixes that fit into `room` octets.
struct Chunks<'a> {
    left: &'a [IpNet],
    room: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [IpNet];

    fn next(&mut self) -> Option<&'a [IpNet]> {
        let mut room = self.room;
        let fits = self.left.iter().take_while(|prefix| {
            let length = nlri::encoded_length(prefix);
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        });
        let (chunk, left) = self.left.split_at(fits.count());
        self.left = left;
        (!chunk.is_empty()).then_some(chunk)
    }
}
