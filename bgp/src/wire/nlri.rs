//! Prefixes as they stand in UPDATE: a length in bits and as many octets as it needs (RFC 4271 §4.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::IpNet;

use super::{ErrorCode, Family, WireError};

/// Reads prefixes to the end. Bits beyond the length are ignored, as the RFC demands.
///
/// An error resets the session: behind a length that is wrong no further prefix can be found (RFC 7606 §3 j).
pub(super) fn decode(mut input: &[u8], family: Family) -> Result<Vec<IpNet>, WireError> {
    let most = if family.afi == 1 { 32 } else { 128 };
    let mut prefixes = Vec::with_capacity(input.len() / 4);
    while let Some((&length, rest)) = input.split_first() {
        if length > most {
            return Err(wrong(format!("a prefix of /{length} in {family}, where /{most} is the longest")));
        }
        let octets = usize::from(length).div_ceil(8);
        let Some((value, rest)) = rest.split_at_checked(octets) else {
            return Err(wrong(format!("a /{length} at the end of the field is cut off")));
        };
        prefixes.push(prefix(family, value, length));
        input = rest;
    }
    Ok(prefixes)
}

fn prefix(family: Family, value: &[u8], length: u8) -> IpNet {
    let mut octets = [0; 16];
    octets[..value.len()].copy_from_slice(value);
    let address = if family.afi == 1 {
        IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    IpNet::new(address, length).expect("the length was checked").trunc()
}

fn wrong(what: String) -> WireError {
    WireError::reset(ErrorCode::INVALID_NETWORK, Bytes::new(), what)
}

/// Octets that a prefix takes.
pub(super) fn encoded_length(prefix: &IpNet) -> usize {
    1 + usize::from(prefix.prefix_len()).div_ceil(8)
}

pub(super) fn encode(prefix: &IpNet, out: &mut BytesMut) {
    out.put_u8(prefix.prefix_len());
    let octets = encoded_length(prefix) - 1;
    match prefix.network() {
        IpAddr::V4(address) => out.put_slice(&address.octets()[..octets]),
        IpAddr::V6(address) => out.put_slice(&address.octets()[..octets]),
    }
}
