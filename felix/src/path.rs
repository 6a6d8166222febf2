//! How a remote prefix is reached, and why so, as data for people.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::TUNNEL_DEVICE;

/// How a remote prefix is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Plainly: the next hop is on a connected subnet.
    OnLink {
        /// The next hop.
        via: IpAddr,
        /// The device.
        device: String,
        /// Why not by the tunnel, where the pool asks for one.
        reason: String,
    },
    /// Inside IP-in-IP, over `tunl0`.
    Tunnel {
        /// The node at the other end.
        via: Ipv4Addr,
        /// Which rule chose the tunnel.
        reason: String,
    },
    /// Plainly, through a router to which the kernel's own routes lead.
    Gateway {
        /// The routers (several where the kernel has several of equal cost), with their devices.
        via: Vec<(IpAddr, String)>,
        /// The kernel's route that leads to the next hop.
        resolved: IpNet,
        /// The next hop and, where the pool asks for the tunnel, why it is not taken.
        reason: String,
    },
    /// There is no route: the next hop cannot be reached, or not enough is known yet.
    Unresolved {
        /// Why.
        reason: String,
    },
    /// There is deliberately no route.
    Withheld {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |f: &mut fmt::Formatter<'_>, reason: &str| match reason {
            "" => Ok(()),
            reason => write!(f, " ({reason})"),
        };
        match self {
            Self::OnLink { via, device, reason } => {
                write!(f, "via {via} dev {device}")?;
                because(f, reason)
            }
            Self::Tunnel { via, reason } => {
                write!(f, "via {via} dev {TUNNEL_DEVICE} onlink")?;
                because(f, reason)
            }
            Self::Gateway { via, resolved, reason } => {
                for (index, (via, device)) in via.iter().enumerate() {
                    let and = if index > 0 { " and " } else { "" };
                    write!(f, "{and}via {via} dev {device}")?;
                }
                write!(f, " (resolved by {resolved}; {reason})")
            }
            Self::Unresolved { reason } => write!(f, "unresolved: {reason}"),
            Self::Withheld { reason } => write!(f, "withheld: {reason}"),
        }
    }
}
