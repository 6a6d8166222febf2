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

impl Path {
    /// The route in words, as `via 172.171.5.96 dev tunl0 onlink`; `None` where there is none.
    pub fn route(&self) -> Option<String> {
        match self {
            Self::OnLink { via, device, .. } => Some(format!("via {via} dev {device}")),
            Self::Tunnel { via, .. } => Some(format!("via {via} dev {TUNNEL_DEVICE} onlink")),
            Self::Gateway { via, .. } => {
                let hops: Vec<String> =
                    via.iter().map(|(router, device)| format!("via {router} dev {device}")).collect();
                Some(hops.join(" "))
            }
            Self::Unresolved { .. } | Self::Withheld { .. } => None,
        }
    }

    /// Why this route, or why none; empty where it goes without saying.
    pub fn reason(&self) -> &str {
        match self {
            Self::OnLink { reason, .. }
            | Self::Tunnel { reason, .. }
            | Self::Gateway { reason, .. }
            | Self::Unresolved { reason }
            | Self::Withheld { reason } => reason,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (route, reason) = (self.route().unwrap_or_default(), self.reason());
        match self {
            Self::Gateway { resolved, .. } => write!(f, "{route} (resolved by {resolved}; {reason})"),
            Self::OnLink { .. } | Self::Tunnel { .. } if reason.is_empty() => f.write_str(&route),
            Self::OnLink { .. } | Self::Tunnel { .. } => write!(f, "{route} ({reason})"),
            Self::Unresolved { .. } => write!(f, "unresolved: {reason}"),
            Self::Withheld { .. } => write!(f, "withheld: {reason}"),
        }
    }
}
