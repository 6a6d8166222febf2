//! The values that single fields of a pool can have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// When packets to a pool's addresses on another node travel inside IP-in-IP (protocol 4, over `tunl0`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpipMode {
    /// To every other node.
    Always,
    /// Only to nodes of another subnet.
    CrossSubnet,
    /// Never: plain routing.
    #[default]
    Never,
}

impl FromStr for IpipMode {
    type Err = String;

    /// The grammar of `CALICO_IPV4POOL_IPIP`: case does not matter; empty and `off` mean `Never`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "always" => Ok(Self::Always),
            "crosssubnet" | "cross-subnet" => Ok(Self::CrossSubnet),
            "never" | "off" | "" => Ok(Self::Never),
            _ => Err(format!("{text:?} is none of Always, CrossSubnet, Never, off")),
        }
    }
}

impl fmt::Display for IpipMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "Always",
            Self::CrossSubnet => "CrossSubnet",
            Self::Never => "Never",
        })
    }
}

impl IpipMode {
    /// In a stored object the mode is exact; the loose grammar is the environment's only.
    pub(super) fn from_stored(text: Option<&str>) -> Result<Self, String> {
        match text {
            Some("Always") => Ok(Self::Always),
            Some("CrossSubnet") => Ok(Self::CrossSubnet),
            Some("Never" | "") | None => Ok(Self::Never),
            Some(other) => Err(format!("{other:?} is none of Always, CrossSubnet, Never")),
        }
    }
}

/// What a pool's addresses may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllowedUse {
    /// Pods.
    Workload,
    /// The nodes' ends of tunnels.
    Tunnel,
    /// Services of type LoadBalancer.
    LoadBalancer,
}

impl FromStr for AllowedUse {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "Workload" => Ok(Self::Workload),
            "Tunnel" => Ok(Self::Tunnel),
            "LoadBalancer" => Ok(Self::LoadBalancer),
            _ => Err(format!("{text:?} is none of Workload, Tunnel, LoadBalancer")),
        }
    }
}

impl fmt::Display for AllowedUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workload => "Workload",
            Self::Tunnel => "Tunnel",
            Self::LoadBalancer => "LoadBalancer",
        })
    }
}

/// When addresses of a pool are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AssignmentMode {
    /// To whoever its selectors and uses admit.
    #[default]
    Automatic,
    /// Only where the pool is asked for by name.
    Manual,
}

impl AssignmentMode {
    pub(super) fn from_stored(text: Option<&str>) -> Result<Self, String> {
        match text {
            Some("Automatic" | "") | None => Ok(Self::Automatic),
            Some("Manual") => Ok(Self::Manual),
            Some(other) => Err(format!("{other:?} is none of Automatic, Manual")),
        }
    }
}
