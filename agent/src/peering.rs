//! Whom this node peers with: BGPConfiguration, BGPPeers and the mesh, as the speaker's configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use manx_model::{Asn, BgpPeer, InterfaceAddress, NodeName, PeeringNodes, Peers};

use crate::cluster::Cluster;

/// The port of BGP (RFC 4271 section 8.2.1).
const BGP_PORT: u16 = 179;

/// What the speaker is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peering {
    /// This node's AS.
    pub asn: Asn,
    /// The TCP port that it listens on.
    pub listen_port: u16,
    /// By address.
    pub peers: BTreeMap<IpAddr, Peer>,
    /// What in the objects cannot be acted on, each naming its object.
    pub problems: Vec<String>,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// As Calico names it: `Mesh_172_171_5_96`, `Global_…`, `Node_…`.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its AS.
    pub asn: Asn,
    /// It dials us, and we do not dial it.
    pub passive: bool,
}

/// Computes the peers of `node`, whose address is `address` and whose own AS (from `AS`) is `own_asn`.
pub fn peering(cluster: &Cluster, node: &NodeName, address: Ipv4Addr, own_asn: Option<Asn>) -> Peering {
    let cluster_asn = cluster.bgp.as_number.unwrap_or(Asn::DEFAULT);
    let published = cluster.nodes.get(node).and_then(|node| node.asn);
    let mut peering = Peering {
        asn: own_asn.or(published).unwrap_or(cluster_asn),
        listen_port: cluster.bgp.listen_port.unwrap_or(BGP_PORT),
        peers: BTreeMap::new(),
        problems: not_supported("BGPConfiguration default", cluster.bgp.rest.keys().map(String::as_str)),
    };
    peering.add_configured(cluster, node, address);
    if cluster.bgp.node_to_node_mesh_enabled.unwrap_or(true) {
        peering.add_mesh(cluster, node, address, cluster_asn);
    }
    peering
}

impl Peering {
    /// Global peers first, then the node's own: of two for one address, the first stays (as in Calico).
    fn add_configured(&mut self, cluster: &Cluster, node: &NodeName, own: Ipv4Addr) {
        let global = cluster.peers.values().filter(|peer| peer.nodes == PeeringNodes::All);
        let ours = cluster.peers.values().filter(|peer| peer.nodes == PeeringNodes::One(node.clone()));
        let named = |kind| move |peer| (kind, peer);
        for (kind, spec) in global.map(named("Global")).chain(ours.map(named("Node"))) {
            match configured(kind, spec) {
                Ok(peer) if peer.address.ip() == IpAddr::V4(own) => {}
                Ok(peer) => drop(self.peers.entry(peer.address.ip()).or_insert(peer)),
                Err(reason) => self.problems.push(format!("BGPPeer {}: {reason}", spec.name)),
            }
            let unknown = spec.unknown.iter().map(String::as_str);
            self.problems.extend(not_supported(&format!("BGPPeer {}", spec.name), unknown));
        }
    }

    fn add_mesh(&mut self, cluster: &Cluster, node: &NodeName, own: Ipv4Addr, cluster_asn: Asn) {
        for other in cluster.nodes.values().filter(|other| other.name != *node) {
            let Some(address) = other.address.map(InterfaceAddress::address) else { continue };
            if address == own {
                self.problems.push(format!(
                    "Node {} has published this node's address {own}: one of the two is wrong",
                    other.name
                ));
                continue;
            }
            let peer = Peer {
                name: peer_name("Mesh", address.into()),
                address: SocketAddr::new(address.into(), self.listen_port),
                asn: other.asn.unwrap_or(cluster_asn),
                // Calico's rule, and so that of every mixed mesh: the address that sorts lower as text dials.
                passive: address.to_string() < own.to_string(),
            };
            self.peers.entry(address.into()).or_insert(peer);
        }
    }
}

fn configured(kind: &str, spec: &BgpPeer) -> Result<Peer, String> {
    let Peers::Address { endpoint, asn, .. } = spec.peers else {
        return Err("spec.peerSelector is not supported yet".into());
    };
    if endpoint.address.is_ipv6() {
        return Err("spec.peerIP: IPv6 is not supported yet".into());
    }
    let address = SocketAddr::new(endpoint.address, endpoint.port.unwrap_or(BGP_PORT));
    Ok(Peer { name: peer_name(kind, address.ip()), address, asn, passive: false })
}

fn peer_name(kind: &str, address: IpAddr) -> String {
    format!("{kind}_{}", address.to_string().replace(['.', ':'], "_"))
}

fn not_supported<'a>(object: &str, fields: impl Iterator<Item = &'a str>) -> Vec<String> {
    fields.map(|field| format!("{object}: spec.{field} is not supported yet and has no effect")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_model::{Kind, Node, Object};
    use serde_json::{Value, json};

    fn node(name: &str, address: Option<&str>) -> (NodeName, Node) {
        let name: NodeName = name.parse().unwrap();
        let address = address.map(|text| text.parse().unwrap());
        (name.clone(), Node { address, ..Node::new(name) })
    }

    fn cluster() -> Cluster {
        let nodes = [node("a", Some("10.0.0.10/24")), node("b", Some("10.0.0.9/24")), node("c", None)];
        Cluster { nodes: std::sync::Arc::new(nodes.into()), ..Cluster::default() }
    }

    fn peers_of_a(cluster: &Cluster) -> Peering {
        peering(cluster, &"a".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 10), None)
    }

    fn add_peer(cluster: &mut Cluster, name: &str, spec: Value) {
        let peer = BgpPeer::from_object(&Object::new(Kind::BGPPeer, name, &spec)).unwrap();
        std::sync::Arc::make_mut(&mut cluster.peers).insert(name.into(), std::sync::Arc::new(peer));
    }

    #[test]
    fn in_a_mesh_the_address_that_sorts_lower_as_text_dials() {
        let of_a = peers_of_a(&cluster());
        let b = &of_a.peers[&"10.0.0.9".parse().unwrap()];
        assert_eq!((b.name.as_str(), b.passive, b.asn), ("Mesh_10_0_0_9", false, Asn::DEFAULT));
        let of_b = peering(&cluster(), &"b".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 9), None);
        assert!(of_b.peers[&"10.0.0.10".parse().unwrap()].passive);
    }

    #[test]
    fn a_node_without_an_address_is_no_peer_and_a_mesh_can_be_switched_off() {
        let mut cluster = cluster();
        assert_eq!(peers_of_a(&cluster).peers.len(), 1);
        std::sync::Arc::make_mut(&mut cluster.bgp).node_to_node_mesh_enabled = Some(false);
        assert!(peers_of_a(&cluster).peers.is_empty());
    }

    #[test]
    fn a_peer_is_for_every_node_or_for_the_one_that_it_names() {
        let mut cluster = cluster();
        add_peer(&mut cluster, "tor", json!({"peerIP": "10.0.0.1", "asNumber": 65000}));
        add_peer(&mut cluster, "mine", json!({"node": "a", "peerIP": "10.0.0.2:1790", "asNumber": 65001}));
        add_peer(&mut cluster, "other", json!({"node": "b", "peerIP": "10.0.0.3", "asNumber": 65001}));
        let names: Vec<_> = peers_of_a(&cluster).peers.into_values().map(|peer| peer.name).collect();
        assert_eq!(names, ["Global_10_0_0_1", "Node_10_0_0_2", "Mesh_10_0_0_9"]);
    }

    #[test]
    fn a_peer_that_cannot_be_is_named_and_the_others_stay() {
        let mut cluster = cluster();
        add_peer(&mut cluster, "six", json!({"peerIP": "fd00::1", "asNumber": 1}));
        add_peer(&mut cluster, "selector", json!({"peerSelector": "all()"}));
        let peering = peers_of_a(&cluster);
        assert_eq!(peering.peers.len(), 1);
        let problems = peering.problems.join("\n");
        for part in ["six: spec.peerIP: IPv6", "selector: spec.peerSelector is not supported"] {
            assert!(problems.contains(part), "{problems}");
        }
    }

    #[test]
    fn two_nodes_with_one_address_are_named() {
        let mut cluster = cluster();
        std::sync::Arc::make_mut(&mut cluster.nodes).extend([node("thief", Some("10.0.0.10/24"))]);
        let problems = peers_of_a(&cluster).problems;
        assert!(problems[0].contains("thief") && problems[0].contains("10.0.0.10"), "{problems:?}");
    }
}
