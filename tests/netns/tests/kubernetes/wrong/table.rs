//! What users write wrongly: for each thing what our definitions refuse, and what the agents say of it once it is stored.

use serde_json::{Value, json};

/// One thing that somebody writes.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Of which object: its kind.
    pub(super) kind: &'static str,
    /// Its name, with `NAMESPACE/` in front of a Pod's.
    pub(super) name: &'static str,
    /// What is merged into it; it is made if there is none.
    pub(super) change: Value,
    /// The words with which the API server refuses it, where our definitions do.
    pub(super) refused: Option<&'static str>,
    /// The words in the Event and in `manx status` once it is stored.
    pub(super) said: &'static str,
}

fn spec(
    kind: &'static str,
    name: &'static str,
    spec: Value,
    refused: Option<&'static str>,
    said: &'static str,
) -> Row {
    Row { kind, name, change: json!({ "spec": spec }), refused, said }
}

fn annotated(kind: &'static str, name: &'static str, key: &str, value: &str, said: &'static str) -> Row {
    let change = json!({"metadata": {"annotations": {key: value}}});
    Row { kind, name, change, refused: None, said }
}

macro_rules! rows {
    ($kind:literal: $($name:literal $spec:tt => $refused:expr, $said:literal;)*) => {
        vec![$(spec($kind, $name, json!($spec), $refused, $said)),*]
    };
}

/// All of them. They can be there at once.
pub(super) fn rows() -> Vec<Row> {
    [pools(), ipam(), configurations(), peers(), filters(), others(), nodes(), pods()].concat()
}

fn pools() -> Vec<Row> {
    rows!["IPPool":
        "no-cidr" {"blockSize": 26} => Some("spec.cidr: Required"), "cidr";
        "no-network" {"cidr": "ten"} => Some("is no CIDR, as 192.168.0.0/16"), "is no CIDR";
        "host-bits" {"cidr": "10.1.0.1/16"} => Some("bits set after its prefix"), "did you mean 10.1.0.0/16";
        "link-local" {"cidr": "169.254.0.0/20"} => Some("link-local"), "link-local";
        "too-small" {"cidr": "10.2.0.0/28"} => Some("smaller than one block"), "smaller than one block";
        "block-size" {"cidr": "10.3.0.0/16", "blockSize": 19} => Some("20 to 32 for IPv4"), "20 to 32";
        "mode" {"cidr": "10.4.0.0/16", "ipipMode": "Sometimes"} => Some("spec.ipipMode"), "spec.ipipMode";
        "two-modes" {"cidr": "10.5.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"} => Some("not both"), "only one of them";
        "use" {"cidr": "10.6.0.0/16", "allowedUses": ["Pods"]} => Some("spec.allowedUses"), "spec.allowedUses";
        "global" {"cidr": "10.7.0.0/16", "nodeSelector": "global()"} => Some("global()"), "global()";
        "text-as-number" {"cidr": "10.8.0.0/16", "blockSize": "26"} => Some("integer"), "blockSize";
        "default-ipv4-ippool" {"cidr": "192.168.0.0"} => Some("cannot be changed"), "is no CIDR";
        "selector" {"cidr": "10.9.0.0/16", "nodeSelector": "rack =="} => None, "spec.nodeSelector";
        "a-twin" {"cidr": "192.168.128.0/17"} => None, "default-ipv4-ippool";
        "no-tunnel" {"cidr": "10.10.0.0/16", "vxlanMode": "Always"} => None, "vxlanMode: \"Always\" is not supported yet";
        "misspelt" {"cidr": "10.11.0.0/16", "dissabled": true} => None, "dissabled";
    ]
}

fn ipam() -> Vec<Row> {
    let reservations = rows!["IPReservation":
        "no-address" {"reservedCIDRs": ["192.168.255.0/24", "ten"]} => Some("neither a CIDR"), "spec.reservedCIDRs[1]";
        "no-list" {"reservedCIDRs": "192.168.255.0/24"} => Some("array"), "spec.reservedCIDRs";
        "misspelt" {"reservedCIDRS": ["192.168.255.0/24"]} => None, "reservedCIDRS";
    ];
    let configurations = rows!["IPAMConfig":
        "default" {"maxBlocksPerHost": -1} => Some("greater than or equal to 0"), "spec.maxBlocksPerHost";
        "default" {"ipCooldownSeconds": 1201} => Some("1200"), "spec.ipCooldownSeconds";
        "default" {"strictAffinity": false, "autoAllocateBlocks": false} => Some("strictAffinity"), "spec.autoAllocateBlocks";
        "default" {"strictAfinity": true} => None, "strictAfinity";
        "another" {"strictAffinity": true} => None, "only the one named default has";
    ];
    [reservations, configurations].concat()
}

fn configurations() -> Vec<Row> {
    rows!["BGPConfiguration":
        "default" {"asNumber": "sixty"} => Some("spec.asNumber"), "spec.asNumber";
        "default" {"listenPort": 70_000} => Some("65535"), "spec.listenPort";
        "default" {"logSeverityScreen": "Loud"} => Some("spec.logSeverityScreen"), "spec.logSeverityScreen";
        "default" {"nodeToNodeMeshEnabled": "no"} => Some("boolean"), "spec.nodeToNodeMeshEnabled";
        "default" {"bindMode": "All"} => Some("spec.bindMode"), "spec.bindMode";
        "default" {"communities": [{"name": "a", "value": "x"}]} => Some("is no community"), "spec.communities[0].value";
        "default" {"serviceClusterIPs": [{"cidr": "ten"}]} => Some("is no CIDR"), "spec.serviceClusterIPs[0].cidr";
        "default" {"prefixAdvertisements": [{"cidr": "all"}]} => Some("is no CIDR"), "spec.prefixAdvertisements[0].cidr";
        "default" {"nodeMeshMaxRestartTime": "soon"} => None, "spec.nodeMeshMaxRestartTime";
        "default" {"ipv4NormalRoutePriority": 77} => None, "ipv4NormalRoutePriority is not supported yet";
        "default" {"shade": "green"} => None, "shade";
        "node.node1" {"prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["nobody"]}]} => None, "\"nobody\"";
        "node.node2" {"asNumber": 65009} => None, "has no effect here";
        "another" {"listenPort": 1790} => None, "only those named default and node.NAME have";
        "node.node99" {"listenPort": 1790} => None, "there is no Node node99";
    ]
}

fn peers() -> Vec<Row> {
    rows!["BGPPeer":
        "no-as" {"peerIP": "10.99.9.1"} => Some("spec.asNumber"), "spec.asNumber";
        "no-peer" {"asNumber": 65001} => None, "spec.peerIP";
        "two-nodes" {"node": "node1", "nodeSelector": "all()", "peerIP": "10.99.9.1", "asNumber": 65001}
            => Some("not both"), "spec.nodeSelector";
        "no-address" {"peerIP": "tor.example", "asNumber": 65001} => Some("is no address"), "spec.peerIP";
        "port" {"peerIP": "10.99.9.1:70000", "asNumber": 65001} => Some("1 to 65535"), "spec.peerIP";
        "as-of-nodes" {"peerSelector": "rr == 'yes'", "asNumber": 65001} => Some("leave it out"), "spec.asNumber";
        "hop" {"peerIP": "10.99.9.1", "asNumber": 65001, "nextHopMode": "Always"} => Some("spec.nextHopMode"), "spec.nextHopMode";
        "hops" {"peerIP": "10.99.9.1", "asNumber": 65001, "ttlSecurity": 256} => Some("255"), "spec.ttlSecurity";
        "keepalive" {"peerIP": "10.99.9.1", "asNumber": 65001, "keepaliveTime": "soon"}
            => None, "spec.keepaliveTime";
        "no-key" {"peerIP": "10.99.9.1", "asNumber": 65001, "password": {"secretKeyRef": {"name": "s"}}}
            => Some("secretKeyRef.key: Required"), "spec.password";
        "selector" {"peerSelector": "rack =="} => None, "spec.peerSelector";
        "no-secret" {"peerIP": "10.99.9.2", "asNumber": 65001, "password": {"secretKeyRef": {"name": "nowhere", "key": "k"}}}
            => None, "Secret kube-system/nowhere does not exist";
        "no-secret-of-one" {"node": "node4", "peerIP": "10.99.9.3", "asNumber": 65001,
            "password": {"secretKeyRef": {"name": "nowhere", "key": "k"}}} => None, "Secret kube-system/nowhere does not exist";
        "no-filter" {"peerIP": "10.99.9.4", "asNumber": 65001, "filters": ["nowhere"]} => None, "there is no BGPFilter nowhere";
        "no-filter-of-one" {"nodeSelector": "kubernetes.io/hostname == 'node3'", "peerIP": "10.99.9.5", "asNumber": 65001,
            "filters": ["nowhere"]} => None, "there is no BGPFilter nowhere";
        "no-node" {"node": "node99", "peerIP": "10.99.9.6", "asNumber": 65001} => None, "there is no Node node99";
        "v6" {"peerIP": "fd00::1", "asNumber": 65001} => None, "IPv6 is not supported yet";
        "the-first" {"peerIP": "10.99.9.7", "asNumber": 65001, "shade": "green"} => None, "spec.shade";
        "the-second" {"peerIP": "10.99.9.7", "asNumber": 65002} => None, "the-first";
        "filtered" {"peerIP": "10.99.9.8", "asNumber": 65001, "filters": ["drop", "half", "family", "length", "misspelt"]}
            => None, "there is no BGPFilter drop";
    ]
}

/// They are looked at as soon as a BGPPeer uses them: `filtered`.
fn filters() -> Vec<Row> {
    rows!["BGPFilter":
        "drop" {"importV4": [{"action": "Drop"}]} => Some("spec.importV4[0].action"), "spec.importV4[0].action";
        "half" {"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}]} => Some("come together"), "spec.importV4[0]";
        "family" {"exportV4": [{"action": "Accept"}, {"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In"}]}
            => Some("no IPv4 CIDR"), "spec.exportV4[1]";
        "length" {"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 24, "max": 16}}]}
            => Some("min is more"), "spec.importV4[0].prefixLength";
        "misspelt" {"importv4": [{"action": "Reject"}]} => None, "spec.importv4";
    ]
}

fn others() -> Vec<Row> {
    let felix = rows!["FelixConfiguration":
        "default" {"ipipMTU": "big"} => Some("integer"), "spec.ipipMTU";
        "default" {"ipipEnabled": "yes"} => Some("boolean"), "spec.ipipEnabled";
        "default" {"natPortRange": "2:1"} => None, "spec.natPortRange";
        "default" {"externalNodesList": ["ten"]} => None, "spec.externalNodesList[0]";
        "default" {"vxlanPort": 1} => None, "vxlanPort is not supported yet";
        "default" {"shade": "green"} => None, "shade";
        "another" {"ipipMTU": 1400} => None, "only those named default and node.NAME have";
    ];
    let information = rows!["ClusterInformation":
        "default" {"datastoreReady": "no"} => Some("boolean"), "spec.datastoreReady";
        "another" {"datastoreReady": false} => None, "only the one named default has";
    ];
    let statuses = rows!["CalicoNodeStatus":
        "weather" {"node": "node3", "classes": ["Weather"]} => Some("spec.classes[0]"), "spec.classes[0]";
        "period" {"node": "node4", "classes": ["BGP"], "updatePeriodSeconds": 86_401} => Some("86400"), "spec.updatePeriodSeconds";
        "nobody" {"classes": ["BGP"]} => None, "node";
    ];
    [felix, information, statuses].concat()
}

/// `node9` is one whose machine nobody has seen.
fn nodes() -> Vec<Row> {
    let row = |name, key: &str, value, said| {
        annotated("Node", name, &format!("projectcalico.org/{key}"), value, said)
    };
    vec![
        row("node2", "ASNumber", "sixty", "projectcalico.org/ASNumber"),
        row("node2", "RouteReflectorClusterID", "seven", "projectcalico.org/RouteReflectorClusterID"),
        row("node2", "labels", "{", "projectcalico.org/labels"),
        row("node3", "IPv6Address", "nowhere", "projectcalico.org/IPv6Address"),
        row("node9", "IPv4IPIPTunnelAddr", "nowhere", "projectcalico.org/IPv4IPIPTunnelAddr"),
        row("node9", "IPv4Address", "172.171.5.95/24", "172.171.5.95"),
        row("node8", "IPv4Address", "nowhere", "projectcalico.org/IPv4Address"),
    ]
}

/// Pods of node1 and node4: what a node's own pods want is that node's business.
fn pods() -> Vec<Row> {
    let row = |name, key: &str, value, said| {
        annotated("Pod", name, &format!("cni.projectcalico.org/{key}"), value, said)
    };
    let space = |key: &str, value, said| {
        annotated("Namespace", "wishes", &format!("cni.projectcalico.org/{key}"), value, said)
    };
    vec![
        row("default/no-list", "ipv4pools", "mine", "cni.projectcalico.org/ipv4pools"),
        row("default/no-pool", "ipv4pools", "[\"nowhere\"]", "nowhere"),
        row("default/no-address", "ipAddrs", "[\"ten\"]", "\"ten\" is no IP address"),
        row("default/no-mac", "hwAddr", "01:00:00:00:00:01", "cni.projectcalico.org/hwAddr"),
        row("default/no-family", "ipFamilies", "[\"IPX\"]", "cni.projectcalico.org/ipFamilies"),
        row("default/floats", "floatingIPs", "[\"10.0.0.1\"]", "floatingIPs is not supported yet"),
        space("ipv4pools", "mine", "cni.projectcalico.org/ipv4pools"),
    ]
}
