//! Address pools: who may take addresses from them, for what, and when their packets travel inside IP-in-IP.

mod check;
mod fields;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use check::check_pool_cidr;
pub use fields::{AllowedUse, AssignmentMode, IpipMode};

use crate::read::strict;
use crate::{Invalid, Object, Selector};

/// The name of the IPv4 pool that an agent creates when there is none.
pub const DEFAULT_IPV4_POOL: &str = "default-ipv4-ippool";

/// The same of IPv6.
pub const DEFAULT_IPV6_POOL: &str = "default-ipv6-ippool";

/// `spec` of an IPPool as it is stored. What is not acted on yet is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// The pool's addresses.
    pub cidr: String,
    /// Prefix length of its blocks: 20 to 32 (default 26) for IPv4, 116 to 128 (default 122) for IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// `Always`, `CrossSubnet` or `Never`; `Never` when absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<String>,
    /// The same for VXLAN, which Manx does not speak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<String>,
    /// Whether traffic that leaves the pools is translated to the node's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_outgoing: Option<bool>,
    /// No new allocations; what is allocated stays routed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Nothing of the pool is told to BGP peers.
    #[serde(rename = "disableBGPExport", skip_serializing_if = "Option::is_none")]
    pub disable_bgp_export: Option<bool>,
    /// Which nodes may take addresses; `all()` when absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<String>,
    /// The pods of which namespaces may have addresses; of all when absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<String>,
    /// `Workload`, `Tunnel`, `LoadBalancer`; the first two when absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_uses: Option<Vec<String>>,
    /// `Automatic` or `Manual`; `Automatic` when absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment_mode: Option<String>,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A pool that can be used: masked CIDR, sizes in range, fields that go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPool {
    /// Its name.
    pub name: String,
    /// Its addresses; no host bits.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// When its packets travel inside IP-in-IP.
    pub ipip: IpipMode,
    /// Whether traffic that leaves the pools is translated to the node's address.
    pub nat_outgoing: bool,
    /// No new allocations; what is allocated stays routed.
    pub disabled: bool,
    /// Nothing of the pool is told to BGP peers.
    pub disable_bgp_export: bool,
    /// Which nodes may take addresses, by their labels.
    pub node_selector: Selector,
    /// The pods of which namespaces may have addresses, by the namespaces' labels; of all when `None`.
    pub namespace_selector: Option<Selector>,
    /// What its addresses may be used for; never empty.
    pub allowed_uses: BTreeSet<AllowedUse>,
    /// Whether it is used only where it is asked for by name.
    pub assignment: AssignmentMode,
}

impl IpPool {
    /// Reads and checks an IPPool (the rules of Calico's `ippool.go`).
    ///
    /// # Errors
    /// [`Invalid`] with the field and what is allowed.
    pub fn from_object(object: &Object) -> Result<Self, Invalid> {
        let spec: IpPoolSpec = strict(object)?;
        check::pool(object.name(), &spec)
            .map_err(|(field, reason)| object.invalid(format!("spec.{field}"), reason))
    }

    /// Whether `address` is one of the pool's.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address)
    }

    /// Whether its addresses may be used for this.
    pub fn allows(&self, usage: AllowedUse) -> bool {
        self.allowed_uses.contains(&usage)
    }

    /// Whether a node with these labels may take addresses for pods of a namespace with those. Where there is no
    /// namespace (a tunnel's address) a pool that selects by namespace is not meant.
    pub fn selects(
        &self,
        node: &BTreeMap<String, String>,
        namespace: Option<&BTreeMap<String, String>>,
    ) -> bool {
        let namespace_selected = match (&self.namespace_selector, namespace) {
            (None, _) => true,
            (Some(selector), Some(labels)) => selector.matches(labels),
            (Some(_), None) => false,
        };
        namespace_selected && self.node_selector.matches(node)
    }

    /// How many blocks the pool holds.
    pub fn block_count(&self) -> u128 {
        1u128
            .checked_shl(u32::from(self.block_size.saturating_sub(self.cidr.prefix_len())))
            .unwrap_or(u128::MAX)
    }
}
