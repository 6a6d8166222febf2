//! Nodes: what a node publishes about itself, as annotations on its Node object.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
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
}

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
    /// The address of its `tunl0`; a node is sent IP-in-IP (protocol 4) only once it has published one.
    pub tunnel_address: Option<Ipv4Addr>,
    /// Its AS, where it is not the cluster's.
    pub asn: Option<Asn>,
}

impl Node {
    /// Reads a Node object. Like Calico, an annotation that cannot be read counts as absent; unlike Calico, every
    /// such annotation is handed back, so that it can be shown to the operator.
    ///
    /// # Errors
    /// [`Invalid`] when the name itself is no node name.
    pub fn from_object(object: &Object) -> Result<(Self, Vec<Invalid>), Invalid> {
        debug_assert_eq!(object.kind, Kind::Node);
        let name = object.name().parse().map_err(|reason: String| object.invalid("metadata.name", reason))?;
        let mut refused = Vec::new();
        let address = annotated(object, annotation::IPV4_ADDRESS, &mut refused);
        let tunnel_address = annotated(object, annotation::IPV4_IPIP_TUNNEL_ADDR, &mut refused);
        let asn = annotated(object, annotation::AS_NUMBER, &mut refused);
        Ok((Self { name, address, tunnel_address, asn }, refused))
    }
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
    use serde_json::Value;

    fn node_with(key: &str, value: &str) -> Object {
        let mut object = Object::new(Kind::Node, "n1", &Value::Null);
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
}
