//! What a lab consists of: subnets, nodes, and what lies between them.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The subnet of the host `outside`, behind the ToR.
pub(crate) const OUTSIDE_NET: &str = "10.99.0.0/24";
/// The ToR's address on that subnet.
pub(crate) const OUTSIDE_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The address of the host `outside`.
pub(crate) const OUTSIDE_HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 10);
/// The AS of the ToR.
pub(crate) const TOR_AS: u32 = 65000;
/// The AS of the nodes: Calico's default.
pub(crate) const NODE_AS: u32 = 64512;

const RESERVED: [&str; 2] = ["tor", "outside"];

/// What a lab consists of. Begin with [`Topology::founding`] or [`Topology::one_subnet`] and change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The subnets of the nodes; in each, the first address is the ToR's.
    pub subnets: Vec<Ipv4Net>,
    /// The nodes, each with one link `eth0`.
    pub nodes: Vec<NodeSpec>,
    /// What lies between the nodes.
    pub fabric: Fabric,
    /// Whether a host `outside` (10.99.0.10) hangs behind the ToR.
    pub outside: bool,
}

/// What lies between the nodes, in the namespace `tor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fabric {
    /// A bridge per subnet, and nothing that routes.
    Switch,
    /// Routes between the subnets by static knowledge; speaks no BGP.
    Router,
    /// Routes, and runs BIRD 2 in AS 65000 with a passive eBGP session for each node (AS 64512); it tells the nodes
    /// of 10.99.0.0/24 and nothing else, and puts what it learns into its kernel.
    Bird,
}

/// `net.ipv4.conf.*.rp_filter` of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReversePath {
    /// 0: no check.
    Off,
    /// 1: a packet must come in where its answer would go out.
    Strict,
    /// 2: some route back must exist. What systemd sets on Debian.
    Loose,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name, as in `NODENAME`: lower-case letters and digits.
    pub name: String,
    /// The address of its `eth0`, inside one of the subnets.
    pub address: Ipv4Addr,
    /// The MTU of its link, in bytes.
    pub mtu: u32,
    /// The reverse path check that its devices begin with.
    pub reverse_path: ReversePath,
    /// Whether it has a static default route via the ToR.
    pub default_route: bool,
}

impl NodeSpec {
    /// A node with MTU 1500, loose reverse path check and a default route.
    pub fn new(name: &str, address: Ipv4Addr) -> Self {
        let reverse_path = ReversePath::Loose;
        NodeSpec { name: name.to_owned(), address, mtu: 1500, reverse_path, default_route: true }
    }
}

impl Topology {
    /// The example that the project was founded on: four nodes in two subnets, a ToR with BIRD, a host outside.
    pub fn founding() -> Self {
        let subnet = |third: u8| (Ipv4Addr::new(172, 171, third, 0), [95, 96]);
        let mut topology =
            Topology { subnets: Vec::new(), nodes: Vec::new(), fabric: Fabric::Bird, outside: true };
        for (network, hosts) in [subnet(5), subnet(6)] {
            topology.subnets.push(Ipv4Net::new_assert(network, 24));
            for host in hosts {
                let [a, b, c, _] = network.octets();
                let name = format!("node{}", topology.nodes.len() + 1);
                topology.nodes.push(NodeSpec::new(&name, Ipv4Addr::new(a, b, c, host)));
            }
        }
        topology
    }

    /// `nodes` nodes (172.171.5.95 and up) on one switch, without a router and so without default routes.
    pub fn one_subnet(nodes: u8) -> Self {
        let subnets = vec![Ipv4Net::new_assert(Ipv4Addr::new(172, 171, 5, 0), 24)];
        let node = |index: u8| NodeSpec {
            default_route: false,
            ..NodeSpec::new(&format!("node{}", index + 1), Ipv4Addr::new(172, 171, 5, 95 + index))
        };
        Topology { subnets, nodes: (0..nodes).map(node).collect(), fabric: Fabric::Switch, outside: false }
    }

    /// Leaves only the named nodes.
    pub fn keeping(mut self, names: &[&str]) -> Self {
        self.nodes.retain(|node| names.contains(&node.name.as_str()));
        self
    }

    /// Puts another thing between the nodes.
    pub fn fabric(mut self, fabric: Fabric) -> Self {
        self.fabric = fabric;
        self
    }

    /// Leaves the host outside away.
    pub fn without_outside(mut self) -> Self {
        self.outside = false;
        self
    }

    /// Changes every node, for instance its MTU or reverse path check.
    pub fn each_node(mut self, change: impl FnMut(&mut NodeSpec)) -> Self {
        self.nodes.iter_mut().for_each(change);
        self
    }

    /// The subnet in which the node lies.
    pub fn subnet_of(&self, node: &NodeSpec) -> Result<Ipv4Net> {
        let found = self.subnets.iter().find(|subnet| subnet.contains(&node.address));
        found.copied().with_context(|| {
            format!("node {}: {} lies in none of the subnets {:?}", node.name, node.address, self.subnets)
        })
    }

    /// Whether the ToR forwards packets.
    pub fn routes(&self) -> bool {
        self.fabric != Fabric::Switch
    }

    /// Refuses what cannot be built, naming what is wrong.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.nodes.is_empty(), "a topology needs at least one node");
        ensure!(self.routes() || !self.outside, "`outside` needs a fabric that routes, not a switch");
        for (index, node) in self.nodes.iter().enumerate() {
            let name = &node.name;
            let plain = name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
            ensure!(
                plain && (1..=15).contains(&name.len()) && !name.starts_with("br"),
                "node {name:?}: a name is 1 to 15 lower-case letters and digits and does not begin with br"
            );
            ensure!(!RESERVED.contains(&name.as_str()), "node {name}: the name is taken by the lab itself");
            ensure!(
                self.nodes[..index].iter().all(|other| other.name != *name),
                "two nodes are named {name}"
            );
            ensure!(
                (68..=65535).contains(&node.mtu),
                "node {name}: MTU {} is not within 68..=65535",
                node.mtu
            );
            self.subnet_of(node)?;
        }
        for (index, subnet) in self.subnets.iter().enumerate() {
            let twin = self.subnets[..index].iter().find(|other| bridge(other) == bridge(subnet));
            ensure!(twin.is_none(), "{subnet} and {twin:?} would share the bridge {}", bridge(subnet));
        }
        Ok(())
    }
}

/// The ToR's address in a subnet: the first.
pub(crate) fn gateway(subnet: &Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + 1)
}

/// The name of a subnet's bridge: 172.171.5.0/24 is `br5`.
pub(crate) fn bridge(subnet: &Ipv4Net) -> String {
    format!("br{}", subnet.network().octets()[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_founding_topology_has_the_addresses_of_the_example() {
        let topology = Topology::founding();
        topology.check().unwrap();
        let nodes: Vec<String> = topology.nodes.iter().map(|n| format!("{}={}", n.name, n.address)).collect();
        assert_eq!(
            nodes,
            ["node1=172.171.5.95", "node2=172.171.5.96", "node3=172.171.6.95", "node4=172.171.6.96"]
        );
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_name() {
        type Change = fn(&mut Topology);
        let cases: [(Change, &str); 6] = [
            (|t| t.nodes.clear(), "at least one node"),
            (|t| t.nodes[1].name = "node1".into(), "two nodes are named node1"),
            (|t| t.nodes[0].name = "tor".into(), "node tor"),
            (|t| t.nodes[0].name = "Node_1".into(), "lower-case"),
            (|t| t.nodes[0].address = Ipv4Addr::new(10, 0, 0, 1), "10.0.0.1 lies in none"),
            (|t| t.fabric = Fabric::Switch, "`outside`"),
        ];
        for (change, words) in cases {
            let mut topology = Topology::founding();
            change(&mut topology);
            let error = topology.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
