//! What is asked of IPAM, and under which rules.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use manx_model::{AllowedUse, IpPool, IpamConfigSpec};

/// Asks for the addresses of one handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignRequest {
    /// By which the addresses are found and released again: a valid object name, as `k8s-pod-network.<containerid>`.
    pub handle: String,
    /// Who holds them: `pod`, `namespace`, `timestamp` of a pod; `type` of a tunnel. `node` is added where it is missing:
    /// without it being this node's name an address is not swept when it is left behind.
    pub attributes: BTreeMap<String, String>,
    /// How many IPv4 addresses, and from where.
    pub ipv4: Wanted,
    /// How many IPv6 addresses, and from where.
    pub ipv6: Wanted,
    /// If not empty: exactly these addresses, whatever `ipv4` and `ipv6` say.
    pub fixed: Vec<IpAddr>,
    /// What for: a pool that does not allow it is not used.
    pub usage: AllowedUse,
    /// The labels of the pod's namespace; `None` where there is none, and then no pool that selects by namespace is used.
    pub namespace_labels: Option<BTreeMap<String, String>>,
}

/// Addresses of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// How many.
    pub count: usize,
    /// The pools to take them from, by name or CIDR, in this order, whatever they select; empty: any that may be used.
    pub pools: Vec<String>,
}

impl AssignRequest {
    /// Asks for one IPv4 address for a pod, from any pool that may be used.
    pub fn ipv4(handle: impl Into<String>, attributes: BTreeMap<String, String>) -> Self {
        Self {
            handle: handle.into(),
            attributes,
            ipv4: Wanted { count: 1, pools: Vec::new() },
            ipv6: Wanted::default(),
            fixed: Vec::new(),
            usage: AllowedUse::Workload,
            namespace_labels: None,
        }
    }
}

/// An address that a handle holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// The block from which it is.
    pub block: IpNet,
}

/// What holds for all requests of a call.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The pools that there are, disabled ones included. They do not overlap (see [`crate::check_overlaps`]), and are tried in
    /// this order.
    pub pools: &'a [IpPool],
    /// Addresses that are given to nobody new.
    pub reserved: &'a [IpNet],
    /// The IPAMConfig.
    pub config: &'a IpamConfigSpec,
    /// The labels of this node.
    pub node_labels: &'a BTreeMap<String, String>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of a network.
    pub fn of(network: IpNet) -> Self {
        match network {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
