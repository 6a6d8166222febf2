//! Communities as Calico's objects write them.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A BGP community: a standard one (RFC 1997), `65000:1`, or a large one (RFC 8092), `65000:1:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Community {
    /// Two numbers of 16 bits.
    Standard(u16, u16),
    /// Three numbers of 32 bits.
    Large(u32, u32, u32),
}

impl FromStr for Community {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let community = match parts[..] {
            [high, low] => number(high).zip(number(low)).map(|(high, low)| Self::Standard(high, low)),
            [global, local, more] => match (number(global), number(local), number(more)) {
                (Some(global), Some(local), Some(more)) => Some(Self::Large(global, local, more)),
                _ => None,
            },
            _ => None,
        };
        community.ok_or_else(|| {
            format!(
                "{text:?} is no community: two numbers up to 65535, as 65000:1, or three up to 4294967295"
            )
        })
    }
}

/// Digits only: `parse` would take a sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl TryFrom<String> for Community {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(high, low) => write!(f, "{high}:{low}"),
            Self::Large(global, local, more) => write!(f, "{global}:{local}:{more}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_community_has_two_small_or_three_large_numbers() {
        assert_eq!("65000:1".parse(), Ok(Community::Standard(65000, 1)));
        assert_eq!("4200000000:1:2".parse(), Ok(Community::Large(4_200_000_000, 1, 2)));
        for wrong in ["", "1", "65536:1", "1:-1", "+1:1", "1:", "a:b", "1:2:3:4", "1:2:4294967296", " 1:2"] {
            assert!(wrong.parse::<Community>().unwrap_err().contains("as 65000:1"), "{wrong}");
        }
    }
}
