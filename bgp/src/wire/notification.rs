//! NOTIFICATION: why a session ends (RFC 4271 §4.5 and §6, RFC 4486, RFC 9003).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// Code and subcode of a NOTIFICATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode {
    /// Which kind of error.
    pub code: u8,
    /// Which one of the kind; 0 is "unspecific".
    pub subcode: u8,
}

macro_rules! error_codes {
    ($($name:ident = $code:literal / $subcode:literal, $text:literal;)*) => {
        impl ErrorCode {
            $(#[doc = $text] pub const $name: Self = Self { code: $code, subcode: $subcode };)*

            fn name(self) -> Option<&'static str> {
                match (self.code, self.subcode) {
                    $(($code, $subcode) => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    NOT_SYNCHRONIZED = 1/1, "Message Header Error/Connection Not Synchronized";
    BAD_LENGTH = 1/2, "Message Header Error/Bad Message Length";
    BAD_TYPE = 1/3, "Message Header Error/Bad Message Type";
    OPEN_UNSPECIFIC = 2/0, "OPEN Message Error";
    UNSUPPORTED_VERSION = 2/1, "OPEN Message Error/Unsupported Version Number";
    BAD_PEER_AS = 2/2, "OPEN Message Error/Bad Peer AS";
    BAD_IDENTIFIER = 2/3, "OPEN Message Error/Bad BGP Identifier";
    UNSUPPORTED_PARAMETER = 2/4, "OPEN Message Error/Unsupported Optional Parameter";
    UNACCEPTABLE_HOLD_TIME = 2/6, "OPEN Message Error/Unacceptable Hold Time";
    UNSUPPORTED_CAPABILITY = 2/7, "OPEN Message Error/Unsupported Capability";
    MALFORMED_ATTRIBUTES = 3/1, "UPDATE Message Error/Malformed Attribute List";
    UNRECOGNIZED_WELL_KNOWN = 3/2, "UPDATE Message Error/Unrecognized Well-known Attribute";
    MISSING_WELL_KNOWN = 3/3, "UPDATE Message Error/Missing Well-known Attribute";
    ATTRIBUTE_FLAGS = 3/4, "UPDATE Message Error/Attribute Flags Error";
    ATTRIBUTE_LENGTH = 3/5, "UPDATE Message Error/Attribute Length Error";
    INVALID_ORIGIN = 3/6, "UPDATE Message Error/Invalid ORIGIN Attribute";
    INVALID_NEXT_HOP = 3/8, "UPDATE Message Error/Invalid NEXT_HOP Attribute";
    OPTIONAL_ATTRIBUTE = 3/9, "UPDATE Message Error/Optional Attribute Error";
    INVALID_NETWORK = 3/10, "UPDATE Message Error/Invalid Network Field";
    MALFORMED_AS_PATH = 3/11, "UPDATE Message Error/Malformed AS_PATH";
    HOLD_TIMER_EXPIRED = 4/0, "Hold Timer Expired";
    FSM_UNSPECIFIC = 5/0, "Finite State Machine Error";
    FSM_OPEN_SENT = 5/1, "Finite State Machine Error/Unexpected Message in OpenSent";
    FSM_OPEN_CONFIRM = 5/2, "Finite State Machine Error/Unexpected Message in OpenConfirm";
    FSM_ESTABLISHED = 5/3, "Finite State Machine Error/Unexpected Message in Established";
    CEASE = 6/0, "Cease";
    MAXIMUM_PREFIXES = 6/1, "Cease/Maximum Number of Prefixes Reached";
    ADMINISTRATIVE_SHUTDOWN = 6/2, "Cease/Administrative Shutdown";
    PEER_DECONFIGURED = 6/3, "Cease/Peer De-configured";
    ADMINISTRATIVE_RESET = 6/4, "Cease/Administrative Reset";
    CONNECTION_REJECTED = 6/5, "Cease/Connection Rejected";
    CONFIGURATION_CHANGE = 6/6, "Cease/Other Configuration Change";
    CONNECTION_COLLISION = 6/7, "Cease/Connection Collision Resolution";
    OUT_OF_RESOURCES = 6/8, "Cease/Out of Resources";
    HARD_RESET = 6/9, "Cease/Hard Reset";
    ROUTE_REFRESH_LENGTH = 7/1, "ROUTE-REFRESH Message Error/Invalid Message Length";
    SEND_HOLD_TIMER_EXPIRED = 8/0, "Send Hold Timer Expired";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {} subcode {}", self.code, self.subcode),
        }
    }
}

/// A NOTIFICATION, sent or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What it says.
    pub error: ErrorCode,
    /// What was found wrong, or the text of a shutdown.
    pub data: Bytes,
}

impl Notification {
    /// One without data.
    pub const fn new(error: ErrorCode) -> Self {
        Self { error, data: Bytes::new() }
    }

    /// The text that comes with a shutdown or a reset (RFC 9003), if it is one and is UTF-8.
    pub fn text(&self) -> Option<&str> {
        let spoken = [ErrorCode::ADMINISTRATIVE_SHUTDOWN, ErrorCode::ADMINISTRATIVE_RESET];
        let (length, text) = self.data.split_first()?;
        let text = text.get(..usize::from(*length)).filter(|text| !text.is_empty())?;
        spoken.contains(&self.error).then(|| std::str::from_utf8(text).ok())?
    }

    pub(super) fn decode(body: &[u8]) -> Self {
        let error = ErrorCode { code: body[0], subcode: body[1] };
        Self { error, data: Bytes::copy_from_slice(&body[2..]) }
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.error.code);
        out.put_u8(self.error.subcode);
        // An attribute that is quoted back may be as long as the message that brought it.
        out.put_slice(
            &self.data[..self.data.len().min(super::MAX_MESSAGE_LENGTH - super::HEADER_LENGTH - 2)],
        );
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{}: {text}", self.error),
            None => self.error.fmt(f),
        }
    }
}
