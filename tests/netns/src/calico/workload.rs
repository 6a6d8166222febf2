//! A pod attached as Calico's plugin leaves it, by plain `ip`.

use std::net::Ipv4Addr;

use anyhow::Result;
use manx_lab::{Lab, netns};

use super::Ipam;
use crate::host_device;

/// A pod on a node of Calico's. The lab keeps its namespace, under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its name, and its namespace's in the lab.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Workload {
    /// Takes an address under the handle that Calico gives it, makes the pod's namespace, and connects it.
    pub fn attach(lab: &Lab, ipam: &Ipam, node: &str, name: &str) -> Result<Workload> {
        let address = ipam.assign(&handle(name), name, "default")?;
        lab.pod_namespace(name)?;
        let device = host_device("default", name);
        let inside = lab.netns(name);
        // The host's end is made in the node, the other at once in the pod.
        netns::ip_lines(
            &lab.netns(node),
            &[
                format!("link add {device} type veth peer name eth0 netns {inside}"),
                format!("link set {device} address ee:ee:ee:ee:ee:ee up"),
            ],
        )?;
        for (file, value) in [("proxy_arp", 1), ("forwarding", 1), ("rp_filter", 0)] {
            let script = format!("echo {value} > /proc/sys/net/ipv4/conf/{device}/{file}");
            lab.exec(node, &["sh", "-c", &script])?;
        }
        netns::ip_lines(
            &inside,
            &[
                format!("address add {address}/32 dev eth0"),
                "link set eth0 up".to_owned(),
                "route add 169.254.1.1 dev eth0 scope link".to_owned(),
                "route add default via 169.254.1.1 dev eth0".to_owned(),
            ],
        )?;
        netns::ip_lines(&lab.netns(node), &[format!("route add {address}/32 dev {device} scope link")])?;
        Ok(Workload { name: name.to_owned(), node: node.to_owned(), address })
    }

    /// Removes the pod's namespace, and its links with it, and gives its address back.
    pub fn detach(self, lab: &Lab, ipam: &Ipam) -> Result<()> {
        netns::remove(&[lab.netns(&self.name)])?;
        ipam.release(&handle(&self.name))
    }
}

/// Network and container id.
fn handle(pod: &str) -> String {
    format!("k8s-pod-network.calico-{pod}")
}
