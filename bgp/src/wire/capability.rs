//! Capabilities of an OPEN (RFC 5492).

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::IpNet;
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser, multi::many0};

/// An address family: AFI and SAFI (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl Family {
    /// IPv4 unicast.
    pub const IPV4_UNICAST: Self = Self { afi: 1, safi: 1 };
    /// IPv6 unicast.
    pub const IPV6_UNICAST: Self = Self { afi: 2, safi: 1 };

    /// The unicast family that carries a prefix.
    pub const fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::IPV4_UNICAST,
            IpNet::V6(_) => Self::IPV6_UNICAST,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4_UNICAST => f.write_str("IPv4 unicast"),
            Self::IPV6_UNICAST => f.write_str("IPv6 unicast"),
            Self { afi, safi } => write!(f, "AFI {afi} SAFI {safi}"),
        }
    }
}

/// A capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// RFC 4760: NLRI of this family can be carried.
    Multiprotocol(Family),
    /// RFC 2918.
    RouteRefresh,
    /// RFC 4724.
    GracefulRestart(GracefulRestart),
    /// RFC 6793: the speaker's AS number. It is kept as it came, since 0 is told by OPEN's validation.
    FourOctetAs(u32),
    /// Any other, and one of the above whose length is wrong: kept for status.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Bytes,
    },
}

/// The graceful restart capability (RFC 4724 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the speaker has restarted; do not wait for its End-of-RIB before sending yours.
    pub restarting: bool,
    /// N: a NOTIFICATION keeps routes, too (RFC 8538). Understood for status, never sent.
    pub notification: bool,
    /// How long to keep its routes while it is away; 0 to 4095 s.
    pub time: Duration,
    /// The families for which it can be done.
    pub families: Vec<GracefulFamily>,
}

/// A family in the graceful restart capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulFamily {
    /// The family.
    pub family: Family,
    /// F: forwarding went on while the speaker was away.
    pub forwarding: bool,
}

impl GracefulRestart {
    /// What is said about a family; `None` when it is not listed.
    pub fn family(&self, family: Family) -> Option<GracefulFamily> {
        self.families.iter().find(|each| each.family == family).copied()
    }

    fn decode(value: &[u8]) -> IResult<&[u8], Self> {
        let (rest, head) = be_u16(value)?;
        let family = (be_u16, be_u8, be_u8).map(|(afi, safi, flags)| GracefulFamily {
            family: Family { afi, safi },
            forwarding: flags & 0x80 != 0,
        });
        let (rest, families) = many0(family).parse(rest)?;
        let graceful = Self {
            restarting: head & 0x8000 != 0,
            notification: head & 0x4000 != 0,
            time: Duration::from_secs(u64::from(head & 0x0fff)),
            families,
        };
        Ok((rest, graceful))
    }

    fn encode(&self, out: &mut BytesMut) {
        let flags = u16::from(self.restarting) << 15 | u16::from(self.notification) << 14;
        out.put_u16(flags | self.time.as_secs().min(0x0fff) as u16);
        for each in &self.families {
            out.put_u16(each.family.afi);
            out.put_u8(each.family.safi);
            out.put_u8(u8::from(each.forwarding) << 7);
        }
    }
}

impl Capability {
    const MULTIPROTOCOL: u8 = 1;
    const ROUTE_REFRESH: u8 = 2;
    const GRACEFUL_RESTART: u8 = 64;
    const FOUR_OCTET_AS: u8 = 65;

    /// A value that does not fit its code is kept as unknown: RFC 5492 has no error for it, and the peer may mean it.
    pub(super) fn decode(code: u8, value: &[u8]) -> Self {
        let unknown = || Self::Unknown { code, value: Bytes::copy_from_slice(value) };
        let known = match code {
            Self::MULTIPROTOCOL => whole((be_u16, be_u8, be_u8).parse(value))
                .map(|(afi, _reserved, safi)| Self::Multiprotocol(Family { afi, safi })),
            Self::ROUTE_REFRESH => value.is_empty().then_some(Self::RouteRefresh),
            Self::GRACEFUL_RESTART => whole(GracefulRestart::decode(value)).map(Self::GracefulRestart),
            Self::FOUR_OCTET_AS => whole(be_u32::<_, nom::error::Error<_>>(value)).map(Self::FourOctetAs),
            _ => None,
        };
        known.unwrap_or_else(unknown)
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u16(0);
        let code = match self {
            Self::Multiprotocol(family) => {
                out.put_u16(family.afi);
                out.put_u8(0);
                out.put_u8(family.safi);
                Self::MULTIPROTOCOL
            }
            Self::RouteRefresh => Self::ROUTE_REFRESH,
            Self::GracefulRestart(graceful) => {
                graceful.encode(out);
                Self::GRACEFUL_RESTART
            }
            Self::FourOctetAs(asn) => {
                out.put_u32(*asn);
                Self::FOUR_OCTET_AS
            }
            Self::Unknown { code, value } => {
                out.put_slice(value);
                *code
            }
        };
        let length = (out.len() - start - 2) as u8;
        out[start] = code;
        out[start + 1] = length;
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multiprotocol(family) => write!(f, "multiprotocol {family}"),
            Self::RouteRefresh => f.write_str("route refresh"),
            Self::GracefulRestart(graceful) => write!(f, "graceful restart {} s", graceful.time.as_secs()),
            Self::FourOctetAs(_) => f.write_str("four-octet AS"),
            Self::Unknown { code, .. } => write!(f, "capability {code}"),
        }
    }
}

fn whole<T>(parsed: IResult<&[u8], T>) -> Option<T> {
    parsed.ok().filter(|(rest, _)| rest.is_empty()).map(|(_, value)| value)
}
