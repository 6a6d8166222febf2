//! Messages as values: decoding and encoding of BGP-4 (RFC 4271 section 4).
//!
//! A [`WireError`] carries the NOTIFICATION which it deserves and how bad it is (RFC 7606), so that nobody else has
//! to know the tables of codes. Nothing here knows about sessions: what decoding depends on is in [`Context`].

mod as_path;
mod attributes;
mod capability;
mod error;
mod frame;
mod nlri;
mod notification;
mod open;
mod update;

#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};

pub use as_path::{AsPath, Segment, SegmentKind};
pub use attributes::{
    Aggregator, AnyCommunity, Attributes, Community, ExtendedCommunity, LargeCommunity, NoCommunity, Origin,
    UnknownAttribute, usable_next_hop,
};
pub use capability::{Capability, Family, GracefulFamily, GracefulRestart};
pub use error::{Severity, WireError};
pub use frame::{Frame, HEADER_LENGTH, MAX_MESSAGE_LENGTH, next_frame};
pub use notification::{ErrorCode, Notification};
pub use open::Open;
pub use update::{Announcement, TooLong, Update, encode_announcements, encode_withdrawals};

/// What decoding and encoding of an UPDATE depend on, besides the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Both sides announced four-octet AS numbers (RFC 6793).
    pub four_octet: bool,
    /// The peer is in another AS: attributes that belong inside an AS are discarded (RFC 7606 §7).
    pub external: bool,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a message is taken apart where it is decoded, and never stored"
)]
pub enum Message {
    /// RFC 4271 §4.2.
    Open(Open),
    /// RFC 4271 §4.3.
    Update(Update),
    /// RFC 4271 §4.5.
    Notification(Notification),
    /// RFC 4271 §4.4.
    Keepalive,
    /// RFC 2918 §3: the peer wants to hear everything of this family again. Subtypes other than 0 (RFC 7313) are kept.
    RouteRefresh {
        /// The family.
        family: Family,
        /// 0 asks for routes; others mark begin and end of a refresh (RFC 7313).
        subtype: u8,
    },
}

impl Message {
    /// Decodes a frame. An error whose severity is not [`Severity::SessionReset`] is never returned: it has been
    /// acted on, and is listed in [`Update::errors`].
    pub fn decode(frame: &Frame, context: Context) -> Result<Self, WireError> {
        let body = &frame.body[..];
        match frame.kind {
            frame::OPEN => Open::decode(body).map(Self::Open),
            frame::UPDATE => Update::decode(body, context).map(Self::Update),
            frame::NOTIFICATION => Ok(Self::Notification(Notification::decode(body))),
            frame::KEEPALIVE => Ok(Self::Keepalive),
            _ => Ok(route_refresh(body)),
        }
    }

    /// Appends the whole message, header included. An UPDATE that does not fit into one message appends nothing.
    pub fn encode(&self, context: Context, out: &mut BytesMut) -> Result<(), TooLong> {
        match self {
            Self::Open(open) => frame::write(out, frame::OPEN, |out| open.encode(out)),
            Self::Update(update) => return update.encode(context, out),
            Self::Notification(notification) => {
                frame::write(out, frame::NOTIFICATION, |out| notification.encode(out));
            }
            Self::Keepalive => frame::write(out, frame::KEEPALIVE, |_| ()),
            Self::RouteRefresh { family, subtype } => frame::write(out, frame::ROUTE_REFRESH, |out| {
                out.put_u16(family.afi);
                out.put_u8(*subtype);
                out.put_u8(family.safi);
            }),
        }
        Ok(())
    }

    /// A message other than an UPDATE, as bytes of its own.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        let context = Context { four_octet: true, external: false };
        self.encode(context, &mut out).expect("only an UPDATE can be too long");
        out.freeze()
    }
}

/// The length was checked with the frame: it is exactly four octets.
fn route_refresh(body: &[u8]) -> Message {
    let family = Family { afi: u16::from_be_bytes([body[0], body[1]]), safi: body[3] };
    Message::RouteRefresh { family, subtype: body[2] }
}
