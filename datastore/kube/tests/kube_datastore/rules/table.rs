//! Good and bad objects of each kind.

use super::*;

macro_rules! cases {
    ($($spec:tt => $refused:expr),* $(,)?) => { vec![$((json!($spec), $refused)),*] };
}

#[tokio::test]
async fn pools_that_cannot_be_are_refused() {
    check(
        Kind::IPPool,
        cases![
            {"cidr": "192.168.0.0/16"} => None,
            {"cidr": "192.168.0.0/16", "blockSize": 24, "ipipMode": "CrossSubnet", "vxlanMode": "Never",
             "natOutgoing": true, "nodeSelector": "all()", "assignmentMode": "Manual"} => None,
            {"cidr": "fd00:10::/64", "blockSize": 116, "ipipMode": "Never"} => None,
            {"cidr": "10.0.0.0/28", "disabled": true} => None,
            {"cidr": "10.0.0.0/24", "allowedUses": ["LoadBalancer"], "nodeSelector": "all()"} => None,
            {"cidr": "10.0.0.0/24", "namespaceSelector": "a == 'b'", "allowedUses": ["Workload"]} => None,
            {"natOutgoing": true} => Some(("spec.cidr", "Required")),
            {"cidr": "192.168.0.0"} => Some(("spec.cidr", "is no CIDR, as 192.168.0.0/16")),
            {"cidr": "192.168.0.0/33"} => Some(("spec.cidr", "is no CIDR")),
            {"cidr": "192.168.0.1/16"} => Some(("spec.cidr", "bits set after its prefix")),
            {"cidr": "169.254.4.0/24"} => Some(("spec.cidr", "link-local")),
            {"cidr": "128.0.0.0/1"} => Some(("spec.cidr", "link-local")),
            {"cidr": "fe80:1::/64"} => Some(("spec.cidr", "link-local")),
            {"cidr": "10.0.0.0/16", "blockSize": 19} => Some(("spec.blockSize", "20 to 32 for IPv4")),
            {"cidr": "10.0.0.0/16", "blockSize": 122} => Some(("spec.blockSize", "20 to 32 for IPv4")),
            {"cidr": "fd00::/64", "blockSize": 26} => Some(("spec.blockSize", "116 to 128 for IPv6")),
            {"cidr": "10.0.0.0/28"} => Some(("spec.cidr", "smaller than one block")),
            {"cidr": "10.0.0.0/27", "blockSize": 26} => Some(("spec.cidr", "smaller than one block")),
            {"cidr": "10.0.0.0/16", "ipipMode": "Off"} => Some(("spec.ipipMode", "\"CrossSubnet\"")),
            {"cidr": "10.0.0.0/16", "natOutgoing": "yes"} => Some(("spec.natOutgoing", "boolean")),
            {"cidr": "fd00::/64", "ipipMode": "Always"} => Some(("spec.ipipMode", "IPv6 pool can only have Never")),
            {"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}
                => Some(("spec.vxlanMode", "not both")),
            {"cidr": "10.0.0.0/16", "nodeSelector": "global()"} => Some(("spec.nodeSelector", "global()")),
            {"cidr": "10.0.0.0/16", "namespaceSelector": "a == 'b'", "allowedUses": ["Tunnel"]}
                => Some(("spec.namespaceSelector", "Tunnel")),
            {"cidr": "10.0.0.0/16", "allowedUses": ["Pods"]} => Some(("spec.allowedUses", "\"Workload\"")),
            {"cidr": "10.0.0.0/16", "allowedUses": ["Workload", "Workload"]} => Some(("spec.allowedUses", "Duplicate")),
            {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer", "Workload"]}
                => Some(("spec.allowedUses", "stands alone")),
            {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "nodeSelector": "a == 'b'"}
                => Some(("spec.nodeSelector", "all() nodes")),
            {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "ipipMode": "Always"}
                => Some(("spec.allowedUses", "no tunnel")),
            {"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "disableBGPExport": true}
                => Some(("spec.disableBGPExport", "announced")),
            {"cidr": "10.0.0.0/16", "assignmentMode": "Sometimes"} => Some(("spec.assignmentMode", "\"Automatic\"")),
        ],
    )
    .await;
}

#[tokio::test]
async fn peers_that_cannot_be_are_refused() {
    check(
        Kind::BGPPeer,
        cases![
            {"peerIP": "10.0.0.1", "asNumber": 64512} => None,
            {"peerIP": "10.0.0.1:1179", "asNumber": "1.10", "node": "n1", "reachableBy": "10.0.1.1"} => None,
            {"peerIP": "[fd00::1]:179", "asNumber": 4_294_967_295_u32, "nodeSelector": "all()"} => None,
            {"peerIP": "fd00::1", "asNumber": 1, "reachableBy": "fd00::2"} => None,
            {"peerSelector": "rr == 'true'", "nodeSelector": "all()", "reversePeering": "Manual"} => None,
            {"localWorkloadSelector": "a == 'b'", "asNumber": 1, "filters": ["a"], "ttlSecurity": 255} => None,
            {"node": "n1", "nodeSelector": "all()", "peerIP": "10.0.0.1", "asNumber": 1}
                => Some(("spec.nodeSelector", "not both")),
            {"peerIP": "10.0.0.1", "peerSelector": "all()", "asNumber": 1} => Some(("spec.", "not both")),
            {"peerIP": "10.0.0.1"} => Some(("spec.asNumber", "missing")),
            {"localWorkloadSelector": "all()"} => Some(("spec.asNumber", "missing")),
            {"localWorkloadSelector": "all()", "peerIP": "10.0.0.1", "asNumber": 1}
                => Some(("spec.localWorkloadSelector", "alone")),
            {"peerSelector": "all()", "asNumber": 1} => Some(("spec.asNumber", "leave it out")),
            {"peerIP": "10.0.0.256", "asNumber": 1} => Some(("spec.peerIP", "is no address")),
            {"peerIP": "fd00::1:x", "asNumber": 1} => Some(("spec.peerIP", "is no address")),
            {"peerIP": "tor.example", "asNumber": 1} => Some(("spec.peerIP", "IPV4:PORT")),
            {"peerIP": "10.0.0.1:70000", "asNumber": 1} => Some(("spec.peerIP", "1 to 65535")),
            {"peerIP": "10.0.0.1", "asNumber": 4_294_967_296_u64} => Some(("spec.asNumber", "4294967295")),
            {"peerIP": "10.0.0.1", "asNumber": "sixty"} => Some(("spec.asNumber", "should match")),
            {"peerIP": "10.0.0.1", "asNumber": 1, "reachableBy": "fd00::1"}
                => Some(("spec.reachableBy", "another family")),
            {"peerIP": "10.0.0.1", "asNumber": 1, "reachableBy": "gw"} => Some(("spec.reachableBy", "no address")),
            {"peerSelector": "all()", "reachableBy": "10.0.0.1"} => Some(("spec.reachableBy", "without peerIP")),
            {"peerIP": "10.0.0.1", "asNumber": 1, "ttlSecurity": 256} => Some(("spec.ttlSecurity", "255")),
            {"peerIP": "10.0.0.1", "asNumber": 1, "nextHopMode": "Always"} => Some(("spec.nextHopMode", "\"Keep\"")),
            {"peerIP": "10.0.0.1", "asNumber": 1, "nextHopMode": "Keep", "keepOriginalNextHop": true}
                => Some(("spec.keepOriginalNextHop", "replaces")),
            {"peerIP": "10.0.0.1", "asNumber": 1, "password": {"secretKeyRef": {"name": "s"}}}
                => Some(("spec.password.secretKeyRef.key", "Required")),
        ],
    )
    .await;
}

#[tokio::test]
async fn filters_that_cannot_be_are_refused() {
    check(
        Kind::BGPFilter,
        cases![
            {} => None,
            {"exportV4": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In",
                "prefixLength": {"min": 16, "max": 24}, "source": "RemotePeers", "interface": "eth*", "peerType": "eBGP",
                "communities": {"values": ["65000:1"]}, "asPathPrefix": [65000, "1.10"], "priority": 100,
                "operations": [{"addCommunity": {"value": "1:2:3"}}, {"prependASPath": {"prefix": [65000]}},
                    {"setPriority": {"value": 5}}]}],
             "importV6": [{"action": "Reject", "cidr": "fd00::/8", "matchOperator": "NotIn"}]} => None,
            {"importV4": [{"cidr": "10.0.0.0/8", "matchOperator": "In"}]} => Some(("spec.importV4[0].action", "Required")),
            {"importV4": [{"action": "Drop"}]} => Some(("spec.importV4[0].action", "\"Reject\"")),
            {"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}]} => Some(("spec.importV4[0]", "come together")),
            {"importV4": [{"action": "Accept", "matchOperator": "In"}]} => Some(("spec.importV4[0]", "come together")),
            {"importV4": [{"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In"}]}
                => Some(("spec.importV4[0].cidr", "no IPv4 CIDR")),
            {"exportV6": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In"}]}
                => Some(("spec.exportV6[0].cidr", "no IPv6 CIDR")),
            {"importV4": [{"action": "Accept", "prefixLength": {"min": 8}}]}
                => Some(("spec.importV4[0].prefixLength", "needs a cidr")),
            {"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In",
                "prefixLength": {"min": 24, "max": 16}}]} => Some(("spec.importV4[0].prefixLength", "min is more")),
            {"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In",
                "prefixLength": {"max": 33}}]} => Some(("spec.importV4[0].prefixLength.max", "32")),
            {"exportV4": [{"action": "Reject", "operations": [{"setPriority": {"value": 5}}]}]}
                => Some(("spec.exportV4[0].operations", "accepted")),
            {"exportV4": [{"action": "Accept", "operations": []}]} => Some(("spec.exportV4[0].operations", "at least 1")),
            {"exportV4": [{"action": "Accept", "operations": [
                {"setPriority": {"value": 5}, "addCommunity": {"value": "1:2"}}]}]}
                => Some(("spec.exportV4[0].operations[0]", "one of addCommunity")),
            {"exportV4": [{"action": "Accept", "communities": {"values": ["1:2", "1:3"]}}]}
                => Some(("spec.exportV4[0].communities.values", "at most 1")),
            {"exportV4": [{"action": "Accept", "communities": {"values": ["x"]}}]}
                => Some(("spec.exportV4[0].communities.values[0]", "should match")),
            {"exportV4": [{"action": "Accept", "peerType": "both"}]} => Some(("spec.exportV4[0].peerType", "\"iBGP\"")),
            {"exportV4": [{"action": "Accept", "priority": 0}]} => Some(("spec.exportV4[0].priority", "1")),
        ],
    )
    .await;
}

#[tokio::test]
async fn configurations_that_cannot_be_are_refused() {
    check(
        Kind::BGPConfiguration,
        cases![
            {"asNumber": "64512", "listenPort": 178, "logSeverityScreen": "info", "bindMode": "NodeIP",
             "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}], "communities": [{"name": "a", "value": "65000:1"}],
             "prefixAdvertisements": [{"cidr": "10.0.0.0/16", "communities": ["a", "1:2:3"]}]} => None,
            {"listenPort": 0} => Some(("spec.listenPort", "1")),
            {"listenPort": 65536} => Some(("spec.listenPort", "65535")),
            {"asNumber": 0} => Some(("spec.asNumber", "1")),
            {"logSeverityScreen": "Loud"} => Some(("spec.logSeverityScreen", "should match")),
            {"serviceClusterIPs": [{"cidr": "10.96.0.0"}]} => Some(("spec.serviceClusterIPs[0].cidr", "is no CIDR")),
            {"serviceLoadBalancerAggregation": "On"} => Some(("spec.serviceLoadBalancerAggregation", "\"Enabled\"")),
            {"communities": [{"name": "a", "value": "65000"}]} => Some(("spec.communities[0].value", "is no community")),
            {"communities": [{"name": "a", "value": "65536:1"}]} => Some(("spec.communities[0].value", "too large")),
            {"communities": [{"name": "a", "value": "1:4294967296:1"}]} => Some(("spec.communities[0].value", "too large")),
            {"prefixAdvertisements": [{"cidr": "all"}]} => Some(("spec.prefixAdvertisements[0].cidr", "is no CIDR")),
            {"nodeToNodeMeshEnabled": false, "nodeMeshPassword": {"secretKeyRef": {"name": "s", "key": "k"}}}
                => Some(("spec.nodeMeshPassword", "of no use")),
            {"nodeToNodeMeshEnabled": false, "nodeMeshMaxRestartTime": "60s"}
                => Some(("spec.nodeMeshMaxRestartTime", "of no use")),
            {"bindMode": "All"} => Some(("spec.bindMode", "\"NodeIP\"")),
            {"localWorkloadPeeringIPV4": "fd00::1"} => Some(("spec.localWorkloadPeeringIPV4", "no IPv4 address")),
        ],
    )
    .await;
    check(
        Kind::IPAMConfig,
        cases![
            {"strictAffinity": true, "autoAllocateBlocks": false, "maxBlocksPerHost": 4, "ipCooldownSeconds": 1200} => None,
            {"strictAffinity": false, "autoAllocateBlocks": false} => Some(("spec.autoAllocateBlocks", "strictAffinity")),
            {"maxBlocksPerHost": -1} => Some(("spec.maxBlocksPerHost", "0")),
            {"ipCooldownSeconds": 1201} => Some(("spec.ipCooldownSeconds", "1200")),
        ],
    )
    .await;
    check(
        Kind::FelixConfiguration,
        cases![
            {"ipipMTU": 1480, "natPortRange": "1:2", "logSeverityScreen": ""} => None,
            {"ipipMTU": "big"} => Some(("spec.ipipMTU", "integer")),
            {"healthPort": 65536} => Some(("spec.healthPort", "65535")),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_ipam_and_the_rest_write_is_checked_too() {
    check(
        Kind::IPAMBlock,
        cases![
            {"cidr": "10.0.0.0/30", "allocations": [0, null, null, null], "unallocated": [1, 2, 3],
             "attributes": [{"handle_id": "h", "secondary": {"pod": "p"}, "alternateOwnerAttrs": {"a": "b"}}],
             "sequenceNumber": 1_793_487_600_123_456_789_u64, "sequenceNumberForAllocation": {"0": 7},
             "strictAffinity": false, "affinity": "host:n1", "deleted": false} => None,
            {"cidr": "10.0.0.0/30"} => Some(("spec.allocations", "Required")),
            {"cidr": "x", "allocations": [], "unallocated": [], "attributes": [], "strictAffinity": false}
                => Some(("spec.cidr", "is no CIDR")),
        ],
    )
    .await;
    check(
        Kind::BlockAffinity,
        cases![
            {"cidr": "10.0.0.0/26", "node": "n1", "state": "", "deleted": "false", "type": "host"} => None,
            {"cidr": "10.0.0.0/26", "node": "n1", "state": "claimed", "deleted": "false"}
                => Some(("spec.state", "\"pendingDeletion\"")),
            {"cidr": "10.0.0.0/26", "node": "n1", "state": "pending", "deleted": false} => Some(("spec.deleted", "string")),
        ],
    )
    .await;
    check(
        Kind::IPAMHandle,
        cases![
            {"handleID": "h", "block": {"10.0.0.0/26": 1}, "deleted": false} => None,
            {"handleID": "h", "block": {"10.0.0.0/26": -1}} => Some(("spec.block", "0")),
            {"block": {}} => Some(("spec.handleID", "Required")),
        ],
    )
    .await;
    check(
        Kind::IPReservation,
        cases![
            {"reservedCIDRs": ["10.0.0.0/28", "10.0.1.1", "fd00::/120"]} => None,
            {"reservedCIDRs": ["10.0.0.0-10.0.0.9"]} => Some(("spec.reservedCIDRs[0]", "neither a CIDR")),
        ],
    )
    .await;
    check(
        Kind::CalicoNodeStatus,
        cases![
            {"node": "n1", "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 86_400} => None,
            {"node": "n1", "classes": ["Weather"]} => Some(("spec.classes[0]", "\"Routes\"")),
            {"node": "n1", "updatePeriodSeconds": 86_401} => Some(("spec.updatePeriodSeconds", "86400")),
        ],
    )
    .await;
    check(
        Kind::ClusterInformation,
        cases![
            {"datastoreReady": true, "clusterGUID": "x"} => None,
            {"datastoreReady": "yes"} => Some(("spec.datastoreReady", "boolean")),
        ],
    )
    .await;
}
