//! IPAM's objects, field for field as Calico stores them. What they mean is decided in `manx-ipam`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::NodeName;

/// The `type` attribute of the allocation that is a node's `tunl0` address.
pub const TUNNEL_IPIP: &str = "ipipTunnelAddress";

/// The attribute `type` of an address that a node holds back for pods that come while the datastore is away. Without
/// `pod` and `namespace` Calico's collector leaves it alone while the node exists, as it does a tunnel's address.
pub const RESERVE: &str = "manxReserve";

/// `spec` of an IPAMBlock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockSpec {
    /// The block's addresses; ordinal 0 is the network address, and is used.
    pub cidr: IpNet,
    /// `host:<node>` of the owner; absent when nobody owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// When the affinity was claimed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// One entry for each address: an index into `attributes`, or null where the address is free.
    pub allocations: Vec<Option<usize>>,
    /// The free ordinals, first to be used first.
    pub unallocated: Vec<usize>,
    /// Who holds addresses of this block.
    pub attributes: Vec<AllocationAttribute>,
    /// Grows with every write. A new block starts at the time in nanoseconds, so that a deleted and newly made
    /// block is never mistaken for the old one.
    #[serde(default)]
    pub sequence_number: u64,
    /// By ordinal, the sequence number at which it was allocated.
    #[serde(default)]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// The first half of a deletion: readers treat the block as absent and finish deleting it.
    #[serde(default)]
    pub deleted: bool,
    /// Deprecated, and required by Calico's schema: false.
    #[serde(default)]
    pub strict_affinity: bool,
    /// What we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One holder of addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AllocationAttribute {
    /// The handle by which the address is released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle_id: Option<String>,
    /// `node`, `pod`, `namespace`, `timestamp` of a pod; `node`, `type` of a tunnel.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secondary: BTreeMap<String, String>,
    /// When the address was released, RFC 3339, while it cools down; such an attribute has no handle.
    #[serde(rename = "releasedAt", default, skip_serializing_if = "Option::is_none")]
    pub released_at: Option<String>,
    /// What we do not know (`alternateOwnerAttrs`, …).
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// `spec` of a BlockAffinity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AffinitySpec {
    /// How far the claim has come.
    #[serde(default)]
    pub state: AffinityState,
    /// The claiming node.
    pub node: NodeName,
    /// `host`; absent or empty means the same.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The block.
    pub cidr: IpNet,
    /// The text `"true"` or `"false"`: the first half of a deletion.
    #[serde(default)]
    pub deleted: String,
    /// What we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// How far a claim has come. Only a confirmed one may influence routing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AffinityState {
    /// Claimed, the block not yet written.
    Pending,
    /// The block is ours. Old rows have an empty state, which means the same.
    #[default]
    #[serde(alias = "")]
    Confirmed,
    /// Being given up.
    PendingDeletion,
}

/// `spec` of an IPAMHandle: in which blocks a handle holds how many addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandleSpec {
    /// The handle.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// Addresses held, by block CIDR.
    pub block: BTreeMap<String, u32>,
    /// The first half of a deletion.
    #[serde(default)]
    pub deleted: bool,
    /// What we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_affinity_as_calico_wrote_it_is_read_and_written_back_unchanged() {
        let stored = json!({"cidr": "10.244.1.0/26", "deleted": "false", "node": "n1", "state": "confirmed",
                            "type": "host", "fromTheFuture": {"a": 1}});
        let affinity: AffinitySpec = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(affinity.state, AffinityState::Confirmed);
        assert_eq!(serde_json::to_value(&affinity).unwrap(), stored);
    }

    #[test]
    fn an_old_affinity_without_a_state_counts_as_confirmed() {
        let old = json!({"cidr": "10.244.1.0/26", "deleted": "false", "node": "n1", "state": ""});
        assert_eq!(serde_json::from_value::<AffinitySpec>(old).unwrap().state, AffinityState::Confirmed);
    }
}
