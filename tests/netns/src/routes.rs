//! The whole main table of a node, as `ip route` prints it, from what the cluster consists of.
//!
//! ```text
//! default via 172.171.5.1 dev eth0 proto static              the lab's
//! 172.171.5.0/24 dev eth0 proto kernel scope link src ...    the kernel's
//! 10.99.0.0/24 via 172.171.5.1 dev eth0 proto 77             what the ToR's BIRD tells
//! blackhole 192.168.7.0/26 proto 77                          our block
//! 192.168.7.1 dev cali... proto 77 scope link                our pod
//! 192.168.9.0/26 via 172.171.5.96 dev eth0 proto 77          the block of a node in our subnet
//! 192.168.8.0/26 via 172.171.5.1 dev eth0 proto 77           ... of a node elsewhere, bare
//! 192.168.8.0/26 via 172.171.6.95 dev tunl0 proto 77 onlink  ... of any node, inside IPIP
//! ```

use std::collections::BTreeSet;

use anyhow::Result;
use manx_lab::{Cluster, Fabric};

/// What the ToR's BIRD tells the nodes that peer with it.
pub const OUTSIDE_NET: &str = "10.99.0.0/24";

/// The lines that `ip -4 route show` must print on `node` while the default pool is in `mode`, in any order.
pub fn expected_routes(cluster: &Cluster, node: &str, mode: &str) -> Result<BTreeSet<String>> {
    let lab = cluster.lab();
    let spec = lab.node(node)?.spec().clone();
    let subnet = lab.topology().subnet_of(&spec)?;
    let gateway = subnet.hosts().next().unwrap_or(spec.address);
    let mut lines = BTreeSet::new();
    lines.insert(format!("{subnet} dev eth0 proto kernel scope link src {}", spec.address));
    if spec.default_route {
        lines.insert(format!("default via {gateway} dev eth0 proto static"));
    }
    if lab.topology().fabric == Fabric::Bird {
        lines.insert(format!("{OUTSIDE_NET} via {gateway} dev eth0 proto 77"));
    }
    for (block, owner) in cluster.blocks()? {
        let far = lab.node(&owner)?.spec().clone();
        lines.insert(if owner == node {
            format!("blackhole {block} proto 77")
        } else if cluster.through_tunnel(mode, node, &owner)? {
            format!("{block} via {} dev tunl0 proto 77 onlink", far.address)
        } else if subnet.contains(&far.address) {
            format!("{block} via {} dev eth0 proto 77", far.address)
        } else {
            format!("{block} via {gateway} dev eth0 proto 77")
        });
    }
    for pod in lab.pods()?.iter().filter(|pod| pod.node == node) {
        let device = host_device(&pod.namespace, &pod.name);
        lines.insert(format!("{} dev {device} proto 77 scope link", pod.address));
    }
    Ok(lines)
}

/// The host's device of a pod.
pub fn host_device(namespace: &str, pod: &str) -> String {
    manx_model::veth_name("cali", namespace, pod)
}
