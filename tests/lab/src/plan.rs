//! A topology as lines for `ip -batch` and sysctls, per namespace. Pure: [`crate::Lab::up`] carries it out.

use anyhow::Result;

use crate::topology::{
    NodeSpec, OUTSIDE_GATEWAY, OUTSIDE_HOST, OUTSIDE_NET, ReversePath, Topology, bridge, gateway,
};

/// What is to be done in one namespace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The namespace, without the lab's prefix.
    pub(crate) namespace: String,
    /// Files below `/proc/sys/net/ipv4` and their values, written before any link is made, so that it inherits them.
    pub(crate) sysctls: Vec<(&'static str, &'static str)>,
    /// Lines for `ip -batch`.
    pub(crate) lines: Vec<String>,
}

/// The steps, in order: the ToR makes all links, so it comes before those who use them.
pub(crate) fn steps(lab: &str, topology: &Topology) -> Result<Vec<Step>> {
    let mut steps = vec![tor(lab, topology)?];
    for node in &topology.nodes {
        steps.push(self::node(topology, node)?);
    }
    if topology.outside {
        steps.push(outside());
    }
    Ok(steps)
}

/// The names of all namespaces, without the lab's prefix.
pub(crate) fn namespaces(topology: &Topology) -> Vec<String> {
    let outside = topology.outside.then(|| "outside".to_owned());
    let nodes = topology.nodes.iter().map(|node| node.name.clone());
    std::iter::once("tor".to_owned()).chain(nodes).chain(outside).collect()
}

fn tor(lab: &str, topology: &Topology) -> Result<Step> {
    let mut lines = vec!["link set lo up".to_owned()];
    for subnet in &topology.subnets {
        let (bridge, gateway) = (bridge(subnet), gateway(subnet));
        let [a, b, c, d] = gateway.octets();
        // A bridge without a MAC of its own takes that of a port, and changes it when the port goes.
        lines.push(format!("link add {bridge} address 02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x} type bridge"));
        if topology.routes() {
            lines.push(format!("address add {gateway}/{} brd + dev {bridge}", subnet.prefix_len()));
        }
        lines.push(format!("link set {bridge} up"));
    }
    for NodeSpec { name, mtu, .. } in &topology.nodes {
        lines
            .push(format!("link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {lab}-{name}"));
    }
    for node in &topology.nodes {
        let bridge = bridge(&topology.subnet_of(node)?);
        lines.push(format!("link set {} master {bridge} up", node.name));
    }
    if topology.outside {
        lines.push(format!("link add outside type veth peer name eth0 netns {lab}-outside"));
        lines.push(format!("address add {OUTSIDE_GATEWAY}/24 brd + dev outside"));
        lines.push("link set outside up".to_owned());
    }
    let forward = if topology.routes() { "1" } else { "0" };
    let sysctls = vec![("ip_forward", forward), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")];
    Ok(Step { namespace: "tor".into(), sysctls, lines })
}

fn node(topology: &Topology, node: &NodeSpec) -> Result<Step> {
    let subnet = topology.subnet_of(node)?;
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("address add {}/{} brd + dev eth0", node.address, subnet.prefix_len()),
        "link set eth0 up".to_owned(),
    ];
    if node.default_route {
        lines.push(format!("route add default via {} dev eth0 proto static", gateway(&subnet)));
    }
    let check = match node.reverse_path {
        ReversePath::Off => "0",
        ReversePath::Strict => "1",
        ReversePath::Loose => "2",
    };
    // A machine as the installer leaves it: making it a router is the agent's work.
    let sysctls = vec![("ip_forward", "0"), ("conf/all/rp_filter", check), ("conf/default/rp_filter", check)];
    Ok(Step { namespace: node.name.clone(), sysctls, lines })
}

fn outside() -> Step {
    let prefix = OUTSIDE_NET.rsplit('/').next().unwrap_or("24");
    let lines = vec![
        "link set lo up".to_owned(),
        format!("address add {OUTSIDE_HOST}/{prefix} brd + dev eth0"),
        "link set eth0 up".to_owned(),
        format!("route add default via {OUTSIDE_GATEWAY} dev eth0 proto static"),
    ];
    Step { namespace: "outside".into(), sysctls: vec![("ip_forward", "0")], lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_its_address_and_a_static_default_route_via_the_tor() {
        let topology = Topology::founding();
        let step = node(&topology, &topology.nodes[2]).unwrap();
        assert_eq!(
            step.lines,
            [
                "link set lo up",
                "address add 172.171.6.95/24 brd + dev eth0",
                "link set eth0 up",
                "route add default via 172.171.6.1 dev eth0 proto static",
            ]
        );
    }

    #[test]
    fn every_link_is_made_in_the_tor_with_its_other_end_already_in_place() {
        let steps = steps("manx", &Topology::founding()).unwrap();
        let links = |step: &Step| step.lines.iter().filter(|line| line.starts_with("link add")).count();
        assert_eq!(steps.iter().map(links).collect::<Vec<_>>(), [7, 0, 0, 0, 0, 0]);
        assert!(steps[0].lines.contains(
            &"link add node1 mtu 1500 type veth peer name eth0 mtu 1500 netns manx-node1".to_owned()
        ));
    }

    #[test]
    fn a_switch_has_no_address_and_does_not_forward() {
        let steps = steps("x", &Topology::one_subnet(2)).unwrap();
        assert!(!steps[0].lines.iter().any(|line| line.starts_with("address")));
        assert_eq!(steps[0].sysctls[0], ("ip_forward", "0"));
        assert!(!steps[1].lines.iter().any(|line| line.starts_with("route")));
    }
}
