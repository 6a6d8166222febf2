//! OPEN (RFC 4271 §4.2), with its capabilities.

use std::net::Ipv4Addr;

use bytes::{BufMut, Bytes, BytesMut};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser, combinator::all_consuming};

use super::{Capability, ErrorCode, Family, GracefulRestart, WireError};

/// What AS_TRANS stands for: an AS number that does not fit into two octets (RFC 6793 §9).
pub(super) const AS_TRANS: u16 = 23456;

const CAPABILITIES: u8 = 2;
/// RFC 9072: parameters with two octets of length follow.
const EXTENDED: u8 = 255;

/// An OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The two-octet field; [`Self::asn`] is what counts.
    pub my_as: u16,
    /// Offered hold time in seconds; 0 means none.
    pub hold_time: u16,
    /// BGP identifier.
    pub identifier: Ipv4Addr,
    /// All capabilities, in the order in which they came.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// The speaker's AS number; from the capability if there is one (RFC 6793 §4.1).
    pub fn asn(&self) -> u32 {
        self.four_octet_as().unwrap_or(u32::from(self.my_as))
    }

    /// The AS number in the four-octet capability.
    pub fn four_octet_as(&self) -> Option<u32> {
        self.capabilities.iter().find_map(|each| match each {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        })
    }

    /// The families announced. Without any multiprotocol capability that is IPv4 unicast (RFC 4760 §8).
    pub fn families(&self) -> Vec<Family> {
        let announced = self.capabilities.iter().filter_map(|each| match each {
            Capability::Multiprotocol(family) => Some(*family),
            _ => None,
        });
        let families: Vec<_> = announced.collect();
        if families.is_empty() { vec![Family::IPV4_UNICAST] } else { families }
    }

    /// The graceful restart capability; the last one counts (RFC 4724 §3).
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities.iter().rev().find_map(|each| match each {
            Capability::GracefulRestart(graceful) => Some(graceful),
            _ => None,
        })
    }

    /// The two-octet field for an AS number.
    pub(crate) fn two_octet(asn: u32) -> u16 {
        u16::try_from(asn).unwrap_or(AS_TRANS)
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, WireError> {
        let fixed: IResult<_, _> = (be_u8, be_u16, be_u16, be_u32).parse(body);
        let (parameters, (version, my_as, hold_time, identifier)) = fixed.map_err(|_| malformed())?;
        if version != 4 {
            let what = format!("the peer speaks BGP version {version}, we speak 4");
            let data = Bytes::from_static(&[0, 4]);
            return Err(WireError::reset(ErrorCode::UNSUPPORTED_VERSION, data, what));
        }
        let mut capabilities = Vec::new();
        for (kind, value) in optional_parameters(parameters).ok_or_else(malformed)? {
            if kind != CAPABILITIES {
                let what = format!("optional parameter {kind} of OPEN is unknown");
                return Err(WireError::reset(ErrorCode::UNSUPPORTED_PARAMETER, Bytes::new(), what));
            }
            let parsed: IResult<_, _> = all_consuming(many0((be_u8, length_data(be_u8)))).parse(value);
            let (_, parsed) = parsed.map_err(|_| malformed())?;
            capabilities.extend(parsed.into_iter().map(|(code, value)| Capability::decode(code, value)));
        }
        Ok(Self { my_as, hold_time, identifier: Ipv4Addr::from(identifier), capabilities })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(4);
        out.put_u16(self.my_as);
        out.put_u16(self.hold_time);
        out.put_slice(&self.identifier.octets());
        let mut capabilities = BytesMut::new();
        self.capabilities.iter().for_each(|each| each.encode(&mut capabilities));
        match capabilities.len() {
            0 => out.put_u8(0),
            length @ 1..=253 => {
                out.put_slice(&[length as u8 + 2, CAPABILITIES, length as u8]);
            }
            length => {
                out.put_slice(&[255, EXTENDED]);
                out.put_u16(length as u16 + 3);
                out.put_u8(CAPABILITIES);
                out.put_u16(length as u16);
            }
        }
        out.put_slice(&capabilities);
    }
}

/// The parameters, in either form; `None` when the lengths do not add up.
fn optional_parameters(input: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let parsed: IResult<_, _> = match input {
        [255, EXTENDED, rest @ ..] => {
            let parameters = all_consuming(many0((be_u8, length_data(be_u16))));
            all_consuming(length_data(be_u16).and_then(parameters)).parse(rest)
        }
        _ => {
            let parameters = all_consuming(many0((be_u8, length_data(be_u8))));
            all_consuming(length_data(be_u8).and_then(parameters)).parse(input)
        }
    };
    parsed.ok().map(|(_, parameters)| parameters)
}

fn malformed() -> WireError {
    let what = "the lengths inside OPEN do not add up";
    WireError::reset(ErrorCode::OPEN_UNSPECIFIC, Bytes::new(), what)
}
