//! Communities: standard (RFC 1997), large (RFC 8092) and extended (RFC 4360).

use std::fmt;
use std::str::FromStr;

/// A community (RFC 1997), written `64512:100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Not beyond the AS.
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// Not to anybody.
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Not to another AS, those of a confederation included.
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
}

/// A large community (RFC 8092), written `64512:1:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity(pub [u32; 3]);

/// An extended community (RFC 4360), of which only the border of the AS matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl ExtendedCommunity {
    /// It may leave the AS (RFC 4360 §2).
    pub fn transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }
}

/// A community as an operator writes it: two numbers, or three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyCommunity {
    /// `64512:100`.
    Standard(Community),
    /// `64512:1:2`.
    Large(LargeCommunity),
}

/// Words that are no community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no community: write 64512:100 (each up to 65535), or 64512:1:2 (each up to 4294967295)")]
pub struct NoCommunity(String);

impl FromStr for AnyCommunity {
    type Err = NoCommunity;

    fn from_str(text: &str) -> Result<Self, NoCommunity> {
        parse(text).ok_or_else(|| NoCommunity(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<AnyCommunity> {
    let digits = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let words: Vec<_> = text.split(':').collect();
    if !words.iter().all(|word| digits(word)) {
        return None;
    }
    match words[..] {
        [high, low] => {
            let (high, low) = (high.parse::<u16>().ok()?, low.parse::<u16>().ok()?);
            Some(AnyCommunity::Standard(Community(u32::from(high) << 16 | u32::from(low))))
        }
        [a, b, c] => {
            let large = LargeCommunity([a.parse().ok()?, b.parse().ok()?, c.parse().ok()?]);
            Some(AnyCommunity::Large(large))
        }
        _ => None,
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [administrator, first, second] = self.0;
        write!(f, "{administrator}:{first}:{second}")
    }
}

impl fmt::Display for AnyCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(community) => community.fmt(f),
            Self::Large(community) => community.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AnyCommunity;

    #[test]
    fn a_community_is_read_as_it_is_written() {
        for text in ["0:0", "64512:100", "65535:65281", "1:2:3", "4294967295:0:4294967295"] {
            let read: AnyCommunity = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_community_is_refused_with_an_example() {
        for text in ["", "1", "65536:1", "1:65536", "1:2:3:4", "1:2:4294967296", "+1:2", "a:b", "1:", ":1"] {
            let error = text.parse::<AnyCommunity>().unwrap_err();
            assert!(error.to_string().contains("write 64512:100"), "{text}");
        }
    }
}
