//! AS numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An autonomous system number, four octets (RFC 6793). 0 is reserved (RFC 7607) and cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "u32")]
pub struct Asn(u32);

impl Asn {
    /// Calico's default for a cluster.
    pub const DEFAULT: Self = Self(64512);

    /// `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        match number {
            0 => None,
            number => Some(Self(number)),
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for Asn {
    type Err = String;

    /// `64512`, or dotted as `1.10` (RFC 5396 "asdot").
    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text.split_once('.') {
            None => text.parse::<u32>().ok(),
            Some((high, low)) => match (high.parse::<u16>(), low.parse::<u16>()) {
                (Ok(high), Ok(low)) => Some(u32::from(high) << 16 | u32::from(low)),
                _ => None,
            },
        };
        number
            .and_then(Self::new)
            .ok_or_else(|| format!("{text:?} is no AS number: 1 to 4294967295, or dotted as 1.10"))
    }
}

impl TryFrom<Value> for Asn {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

impl From<Asn> for u32 {
    fn from(asn: Asn) -> Self {
        asn.0
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_as_number_is_plain_or_dotted_and_never_zero() {
        assert_eq!("64512".parse(), Ok(Asn::DEFAULT));
        assert_eq!("1.10".parse::<Asn>().unwrap().get(), 65546);
        for wrong in ["0", "0.0", "4294967296", "1.65536", "-1", "x", ""] {
            assert!(wrong.parse::<Asn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_as_number_may_be_written_as_text_or_number() {
        let read = |text: &str| serde_json::from_str::<Asn>(text).unwrap().get();
        assert_eq!(read("65000"), 65000);
        assert_eq!(read("\"1.10\""), 65546);
    }
}
