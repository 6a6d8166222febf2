//! Nodes: what a node publishes about itself, as annotations on its Node object.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Asn, Invalid, Kind, Object};

/// The annotations that carry a node's address and the like.
pub mod annotation {
    /// The node's address with its subnet's length, `10.0.0.5/24`: the length decides CrossSubnet.
    pub const IPV4_ADDRESS: &str = "projectcalico.org/IPv4Address";
    /// The address of the node's `tunl0`; present only while its tunnel takes packets.
    pub const IPV4_IPIP_TUNNEL_ADDR: &str = "projectcalico.org/IPv4IPIPTunnelAddr";
    /// The node's own AS number, where it differs from the cluster's.
    pub const AS_NUMBER: &str = "projectcalico.org/ASNumber";
    /// The node's IPv6 address with its subnet's length.
    pub const IPV6_ADDRESS: &str = "projectcalico.org/IPv6Address";
    /// The cluster id of a node that reflects routes (RFC 4456), in the form of an IPv4 address.
    pub const ROUTE_REFLECTOR_CLUSTER_ID: &str = "projectcalico.org/RouteReflectorClusterID";
    /// Those of the node's `spec.podCIDRs` of which it gives addresses to its pods, with commas between: Manx's own, so that no
    /// other node takes a block among them.
    pub const POD_CIDRS_IN_USE: &str = "manx.projectcalico.org/pod-cidrs-in-use";
    /// Labels that only Calico's clients see, as JSON.
    pub const LABELS: &str = "projectcalico.org/labels";
}

/// The label, whatever its value, of a node that is not to attract the traffic of services.
pub const EXCLUDE_FROM_LOAD_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The name of a node: a Kubernetes name (DNS-1123 subdomain), at most 253 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = !name.is_empty()
            && name.len() <= 253
            && name.chars().all(allowed)
            && name.starts_with(edge)
            && name.ends_with(edge);
        match good {
            true => Ok(Self(name.to_owned())),
            false => Err(format!(
                "{name:?} is no node name: 1 to 253 characters of a-z, 0-9, '-' and '.', a letter or digit first and last"
            )),
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An IPv4 address and the subnet in which it lives, as `172.171.5.95/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress(Ipv4Net);

impl InterfaceAddress {
    /// `address` in a subnet of length `prefix_len` (0 to 32); `None` where the length is out of range.
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Option<Self> {
        Ipv4Net::new(address, prefix_len).ok().map(Self)
    }

    /// The address alone.
    pub fn address(self) -> Ipv4Addr {
        self.0.addr()
    }

    /// The subnet, without host bits.
    pub fn subnet(self) -> Ipv4Net {
        self.0.trunc()
    }
}

impl FromStr for InterfaceAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = match text.contains('/') {
            true => text.parse::<Ipv4Net>().ok(),
            false => text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from),
        };
        net.map(Self)
            .ok_or_else(|| format!("{text:?} is no IPv4 address with a prefix length, as 10.0.0.5/24"))
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node has published about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its address and subnet; `None` until it has published one: such a node is neither peered with nor routed to.
    pub address: Option<InterfaceAddress>,
    /// Its IPv6 address and subnet.
    pub ipv6_address: Option<Ipv6Net>,
    /// The address of its `tunl0`; a node is sent IP-in-IP (protocol 4) only once it has published one.
    pub tunnel_address: Option<Ipv4Addr>,
    /// Its AS, where it is not the cluster's.
    pub asn: Option<Asn>,
    /// Its cluster id, if it reflects routes.
    pub cluster_id: Option<Ipv4Addr>,
    /// Its labels, with those that only Calico's clients see.
    pub labels: BTreeMap<String, String>,
    /// What Kubernetes has set aside for its pods, of each family at most one (`spec.podCIDRs`).
    pub pod_cidrs: Vec<IpNet>,
    /// Those of them, or of those that it had once, that it gives to its pods: nobody else may.
    pub pod_cidrs_in_use: Vec<IpNet>,
}

impl Node {
    /// A node of which nothing is known but the name.
    pub fn new(name: NodeName) -> Self {
        Self {
            name,
            address: None,
            ipv6_address: None,
            tunnel_address: None,
            asn: None,
            cluster_id: None,
            labels: BTreeMap::new(),
            pod_cidrs: Vec::new(),
            pod_cidrs_in_use: Vec::new(),
        }
    }

    /// Reads a Node object. Like Calico, an annotation that cannot be read counts as absent; unlike Calico, every
    /// such annotation is handed back, so that it can be shown to the operator.
    ///
    /// # Errors
    /// [`Invalid`] when the name itself is no node name.
    pub fn from_object(object: &Object) -> Result<(Self, Vec<Invalid>), Invalid> {
        debug_assert_eq!(object.kind, Kind::Node);
        let name = object.name().parse().map_err(|reason: String| object.invalid("metadata.name", reason))?;
        let mut refused = Vec::new();
        let node = Self {
            name,
            address: annotated(object, annotation::IPV4_ADDRESS, &mut refused),
            ipv6_address: annotated(object, annotation::IPV6_ADDRESS, &mut refused)
                .map(|HostAddress(address)| address),
            tunnel_address: annotated(object, annotation::IPV4_IPIP_TUNNEL_ADDR, &mut refused),
            asn: annotated(object, annotation::AS_NUMBER, &mut refused),
            cluster_id: annotated(object, annotation::ROUTE_REFLECTOR_CLUSTER_ID, &mut refused),
            labels: labels(object, &mut refused),
            pod_cidrs: pod_cidrs(object, &mut refused),
            pod_cidrs_in_use: annotated(object, annotation::POD_CIDRS_IN_USE, &mut refused)
                .map(|Cidrs(cidrs)| cidrs)
                .unwrap_or_default(),
        };
        Ok((node, refused))
    }

    /// Whether it is not to attract the traffic of services.
    pub fn is_excluded_from_load_balancers(&self) -> bool {
        self.labels.contains_key(EXCLUDE_FROM_LOAD_BALANCERS)
    }
}

/// An IPv6 address with or without a prefix length.
struct HostAddress(Ipv6Net);

impl FromStr for HostAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = match text.contains('/') {
            true => text.parse::<Ipv6Net>().ok(),
            false => text.parse::<Ipv6Addr>().ok().map(Ipv6Net::from),
        };
        net.map(Self).ok_or_else(|| "is no IPv6 address with a prefix length, as fd00::5/64".to_owned())
    }
}

/// Kubernetes' labels, and over them those of Calico's clients.
fn labels(object: &Object, refused: &mut Vec<Invalid>) -> BTreeMap<String, String> {
    let mut labels = object.metadata.labels.clone();
    labels
        .extend(annotated(object, annotation::LABELS, refused).map(|Labels(more)| more).unwrap_or_default());
    labels
}

struct Cidrs(Vec<IpNet>);

impl FromStr for Cidrs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cidr = |cidr: &str| cidr.trim().parse().map_err(|_| format!("{cidr:?} is no CIDR"));
        text.split(',').map(cidr).collect::<Result<_, _>>().map(Self)
    }
}

struct Labels(BTreeMap<String, String>);

impl FromStr for Labels {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }
}

fn pod_cidrs(object: &Object, refused: &mut Vec<Invalid>) -> Vec<IpNet> {
    let several = object.spec["podCIDRs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = [object.spec["podCIDR"].clone()];
    let (field, values) = if several.is_empty() { ("podCIDR", &one[..]) } else { ("podCIDRs", several) };
    let mut cidrs = Vec::new();
    for value in values.iter().filter(|value| !value.is_null()) {
        match value.as_str().and_then(|text| text.parse::<IpNet>().ok()) {
            Some(cidr) => cidrs.push(cidr.trunc()),
            None => refused.push(object.invalid(format!("spec.{field}"), format!("{value} is no CIDR"))),
        }
    }
    cidrs
}

fn annotated<T: FromStr<Err: fmt::Display>>(
    object: &Object,
    key: &str,
    refused: &mut Vec<Invalid>,
) -> Option<T> {
    let text = object.metadata.annotations.get(key).filter(|text| !text.is_empty())?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            refused
                .push(object.invalid(format!("metadata.annotations[{key}]"), format!("{text:?}: {error}")));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node_with(key: &str, value: &str) -> Object {
        let mut object = Object::new(Kind::Node, "n1", &serde_json::Value::Null);
        object.metadata.annotations.insert(key.into(), value.into());
        object
    }

    #[test]
    fn a_nodes_address_carries_its_subnet() {
        let (node, refused) =
            Node::from_object(&node_with(annotation::IPV4_ADDRESS, "172.171.5.95/24")).unwrap();
        let address = node.address.unwrap();
        assert_eq!(address.address(), Ipv4Addr::new(172, 171, 5, 95));
        assert_eq!(address.subnet(), "172.171.5.0/24".parse().unwrap());
        assert!(refused.is_empty());
    }

    #[test]
    fn an_annotation_that_cannot_be_read_is_named_and_counts_as_absent() {
        let (node, refused) = Node::from_object(&node_with(annotation::AS_NUMBER, "sixty")).unwrap();
        assert_eq!(node.asn, None);
        assert!(refused[0].to_string().contains("projectcalico.org/ASNumber"), "{}", refused[0]);
    }

    #[test]
    fn a_reflector_a_v6_address_labels_and_pod_cidrs_are_read() {
        let mut object = Object::new(Kind::Node, "n1", &json!({"podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]}));
        object.metadata.labels = [("a".to_owned(), "1".to_owned()), ("b".into(), "1".into())].into();
        object.metadata.annotations = [
            (annotation::IPV6_ADDRESS.to_owned(), "fd00::5/64".to_owned()),
            (annotation::ROUTE_REFLECTOR_CLUSTER_ID.into(), "244.0.0.1".into()),
            (annotation::LABELS.into(), r#"{"b": "2", "c": "3"}"#.into()),
            (annotation::POD_CIDRS_IN_USE.into(), "10.1.0.0/24,fd00:1::/64".into()),
        ]
        .into();
        let (node, refused) = Node::from_object(&object).unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(node.ipv6_address.unwrap().to_string(), "fd00::5/64");
        assert_eq!(node.cluster_id, Some(Ipv4Addr::new(244, 0, 0, 1)));
        let labels: Vec<_> = node.labels.values().map(String::as_str).collect();
        assert_eq!(labels, ["1", "2", "3"]);
        assert_eq!((node.pod_cidrs.len(), &node.pod_cidrs), (2, &node.pod_cidrs_in_use));
        assert!(!node.is_excluded_from_load_balancers());
        object.metadata.labels.insert(EXCLUDE_FROM_LOAD_BALANCERS.into(), String::new());
        assert!(Node::from_object(&object).unwrap().0.is_excluded_from_load_balancers());
    }

    #[test]
    fn each_annotation_that_cannot_be_read_is_named_and_the_others_count() {
        let mut object = Object::new(Kind::Node, "n1", &json!({"podCIDR": "ten"}));
        object.metadata.labels = [("a".to_owned(), "1".to_owned())].into();
        for (key, value) in [
            (annotation::IPV4_ADDRESS, "10.0.0.5/24"),
            (annotation::IPV6_ADDRESS, "10.0.0.5/24"),
            (annotation::IPV4_IPIP_TUNNEL_ADDR, "fd00::1"),
            (annotation::ROUTE_REFLECTOR_CLUSTER_ID, "7"),
            (annotation::LABELS, "{"),
        ] {
            object.metadata.annotations.insert(key.into(), value.into());
        }
        let (node, refused) = Node::from_object(&object).unwrap();
        assert_eq!(refused.len(), 5, "{refused:?}");
        assert!(node.address.is_some() && node.labels.len() == 1 && node.pod_cidrs.is_empty());
    }
}
