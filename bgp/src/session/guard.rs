//! How a session tells its peer's packets from forged ones. The core only knows what is wanted; the sockets do it.

use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;

/// What protects a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Signatures (RFC 2385).
    pub password: Password,
    /// The distance of the peer.
    pub ttl: Ttl,
}

/// The password of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Password {
    /// There is none.
    #[default]
    None,
    /// Every segment is signed with this key, and those of the peer must be.
    Key(Secret),
    /// There is to be one, but it is not known, in words why: the session is held down, never opened unsigned.
    Missing(String),
}

/// How many hops away the peer may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// As many as the kernel's default allows: what others call multihop.
    #[default]
    Any,
    /// Our packets go no farther than this.
    Hops(NonZeroU8),
    /// RFC 5082: our packets leave with 255, and those of the peer must have come over no more hops than this; 1 is a
    /// peer on the same link.
    Security(NonZeroU8),
}

/// A key of 1 to 80 octets, the most that the kernel takes. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

/// A key that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a BGP password has 1 to 80 octets, this one has {0}")]
pub struct BadSecret(usize);

impl Secret {
    /// The longest key, in octets.
    pub const MOST: usize = 80;

    /// Takes a key as it is: white space at its ends is part of it.
    pub fn new(key: &[u8]) -> Result<Self, BadSecret> {
        match key.len() {
            1..=Self::MOST => Ok(Self(key.into())),
            length => Err(BadSecret(length)),
        }
    }

    /// The key, for the kernel only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Guard {
    /// The key, if there is one.
    pub fn key(&self) -> Option<&Secret> {
        match &self.password {
            Password::Key(secret) => Some(secret),
            Password::None | Password::Missing(_) => None,
        }
    }

    /// Why the session must not be opened.
    pub fn missing(&self) -> Option<&str> {
        match &self.password {
            Password::Missing(why) => Some(why),
            Password::None | Password::Key(_) => None,
        }
    }
}

impl Ttl {
    /// What our packets leave with, where it is not the kernel's default.
    pub fn outgoing(self) -> Option<u8> {
        match self {
            Self::Any => None,
            Self::Hops(hops) => Some(hops.get()),
            Self::Security(_) => Some(u8::MAX),
        }
    }

    /// The least that the peer's packets must have left when they are here; 0 for any.
    pub fn least_incoming(self) -> u8 {
        match self {
            Self::Any | Self::Hops(_) => 0,
            Self::Security(hops) => u8::MAX - (hops.get() - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown_and_has_a_length_that_the_kernel_takes() {
        let secret = Secret::new(b"hunter2").unwrap();
        let guard = Guard { password: Password::Key(secret.clone()), ttl: Ttl::Any };
        assert!(!format!("{guard:?} {guard:#?} {secret:?}").contains("hunter2"));
        assert!(!format!("{guard:?}").contains("104, 117"), "nor its octets");
        assert!(Secret::new(&[1; 80]).is_ok());
        assert_eq!(
            Secret::new(b"").unwrap_err().to_string(),
            "a BGP password has 1 to 80 octets, this one has 0"
        );
        assert!(Secret::new(&[1; 81]).is_err());
    }

    #[test]
    fn a_peer_on_the_link_must_send_255_and_each_hop_costs_one() {
        let security = |hops| Ttl::Security(NonZeroU8::new(hops).unwrap());
        assert_eq!([1, 2, 255].map(|hops| security(hops).least_incoming()), [255, 254, 1]);
        assert_eq!(
            (security(1).outgoing(), Ttl::Any.outgoing(), Ttl::Any.least_incoming()),
            (Some(255), None, 0)
        );
    }
}
