//! Messages cut from a stream of bytes (RFC 4271 §4.1, errors §6.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::{ErrorCode, WireError};

/// Marker, length and type.
pub const HEADER_LENGTH: usize = 19;
/// The longest message, header included. Longer ones would need RFC 8654, which is not announced.
pub const MAX_MESSAGE_LENGTH: usize = 4096;

pub(super) const OPEN: u8 = 1;
pub(super) const UPDATE: u8 = 2;
pub(super) const NOTIFICATION: u8 = 3;
pub(super) const KEEPALIVE: u8 = 4;
pub(super) const ROUTE_REFRESH: u8 = 5;

/// A whole message whose header has been checked: marker, length, type, and the length against the type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub(super) kind: u8,
    pub(super) body: Bytes,
}

impl Frame {
    /// Whether this is an UPDATE.
    pub fn is_update(&self) -> bool {
        self.kind == UPDATE
    }
}

/// Takes the next message from the front of `buffer`; `None` when it is not complete yet.
pub fn next_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, WireError> {
    if buffer.len() < HEADER_LENGTH {
        // Garbage shorter than a header is told at once, not when the hold timer has run out.
        return if buffer.iter().take(16).all(|octet| *octet == 0xff) { Ok(None) } else { Err(marker()) };
    }
    let length = check_header(buffer)?;
    if buffer.len() < length {
        return Ok(None);
    }
    let mut message = buffer.split_to(length).freeze();
    let kind = message[18];
    Ok(Some(Frame { kind, body: message.split_off(HEADER_LENGTH) }))
}

fn check_header(buffer: &[u8]) -> Result<usize, WireError> {
    if buffer[..16].iter().any(|octet| *octet != 0xff) {
        return Err(marker());
    }
    let (length, kind) = (u16::from_be_bytes([buffer[16], buffer[17]]), buffer[18]);
    let (least, most) = match kind {
        OPEN => (29, MAX_MESSAGE_LENGTH),
        UPDATE => (23, MAX_MESSAGE_LENGTH),
        NOTIFICATION => (21, MAX_MESSAGE_LENGTH),
        KEEPALIVE => (HEADER_LENGTH, HEADER_LENGTH),
        ROUTE_REFRESH => (23, 23),
        _ => {
            let data = Bytes::copy_from_slice(&[kind]);
            return Err(WireError::reset(
                ErrorCode::BAD_TYPE,
                data,
                format!("message type {kind} is unknown"),
            ));
        }
    };
    if !(least..=most).contains(&usize::from(length)) {
        let what = format!(
            "a message of type {kind} says it is {length} octets long, {least} to {most} are allowed"
        );
        return Err(WireError::reset(ErrorCode::BAD_LENGTH, Bytes::copy_from_slice(&buffer[16..18]), what));
    }
    Ok(usize::from(length))
}

fn marker() -> WireError {
    let what = "the 16 octets of the marker are not all ones: this is no BGP, or we lost step";
    WireError::reset(ErrorCode::NOT_SYNCHRONIZED, Bytes::new(), what)
}

/// Appends a message whose body `body` writes. The body must fit: who can exceed it checks before.
pub(super) fn write(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_bytes(0xff, 16);
    out.put_u16(0);
    out.put_u8(kind);
    body(out);
    let length = (out.len() - start) as u16;
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}
