//! What a node finds out about itself from its links: its address, and the MTUs that follow from its link's.

use std::net::Ipv4Addr;

use manx_model::InterfaceAddress;

use crate::{Link, Snapshot};

/// Devices that never carry a node's address, by the beginning of their names (Calico's list,
/// `node/pkg/lifecycle/startup/autodetection`).
const NOT_BY_PREFIX: [&str; 18] = [
    "docker",
    "cbr",
    "dummy",
    "podman",
    "virbr",
    "lxcbr",
    "veth",
    "br-",
    "cali",
    "tunl",
    "flannel",
    "kube-ipvs",
    "cni",
    "vxlan.calico",
    "vxlan-v6.calico",
    "wireguard.cali",
    "wg-v6.cali",
    "nodelocaldns",
];

/// The outer IPv4 header that IP-in-IP adds (RFC 2003 §3.1), in bytes.
const IPIP_OVERHEAD: u32 = 20;

/// The node's address as `IP=autodetect` finds it ("first found"): the first global unicast IPv4 address of a link that
/// is up and not excluded by name. As in Calico, the link with the highest index is looked at first.
pub fn first_found(snapshot: &Snapshot) -> Option<(&Link, InterfaceAddress)> {
    snapshot.links.values().rev().filter(|link| link.up && !is_excluded(&link.name)).find_map(|link| {
        let net = link.addresses.iter().find(|net| is_global_unicast(net.addr()))?;
        Some((link, InterfaceAddress::new(net.addr(), net.prefix_len())?))
    })
}

fn is_excluded(name: &str) -> bool {
    name == "lo" || NOT_BY_PREFIX.iter().any(|prefix| name.starts_with(prefix))
}

/// As Go's `net.IP.IsGlobalUnicast`, by which Calico decides.
fn is_global_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_broadcast()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_link_local())
}

/// How the MTU of tunnel and pods is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mtu {
    /// `FELIX_IPINIPMTU`, in bytes.
    pub configured: Option<u32>,
    /// `FELIX_IPINIPENABLED=false`.
    pub ipip_ruled_out: bool,
}

impl Mtu {
    /// The MTU of `tunl0`: as configured, else that of the link which carries the node's address less the outer header.
    ///
    /// # Errors
    /// In words: no link carries the address.
    pub fn tunnel(self, snapshot: &Snapshot, address: Ipv4Addr) -> Result<u32, String> {
        match self.configured {
            Some(mtu) => Ok(mtu),
            None => Ok(link_mtu(snapshot, address)?.saturating_sub(IPIP_OVERHEAD)),
        }
    }

    /// The MTU of pods: it leaves room for the tunnel even when no pool wants one, so that a live switch needs no
    /// change in pods, unless IPIP is ruled out.
    ///
    /// # Errors
    /// In words: no link carries the address.
    pub fn pod(self, snapshot: &Snapshot, address: Ipv4Addr) -> Result<u32, String> {
        match self.ipip_ruled_out {
            true => link_mtu(snapshot, address),
            false => self.tunnel(snapshot, address),
        }
    }
}

fn link_mtu(snapshot: &Snapshot, address: Ipv4Addr) -> Result<u32, String> {
    let link =
        snapshot.link_with(address).ok_or_else(|| format!("no link carries the node's address {address}"))?;
    Ok(link.mtu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{link, snapshot};
    use crate::{IfIndex, Link};

    #[test]
    fn the_nodes_address_is_the_first_usable_one_of_the_newest_link() {
        let mut snapshot = snapshot();
        let found = |snapshot: &Snapshot| {
            first_found(snapshot).map(|(link, address)| (link.name.clone(), address.to_string()))
        };
        let eth0 = Some(("eth0".to_owned(), "172.171.5.95/24".to_owned()));
        assert_eq!(found(&snapshot), eth0);
        for (index, name) in [(20, "docker0"), (21, "br-1"), (22, "tunl0"), (23, "veth1")] {
            snapshot.links.insert(IfIndex(index), link(IfIndex(index), name, &["10.0.0.1/24"]));
        }
        snapshot.links.insert(IfIndex(24), Link { up: false, ..link(IfIndex(24), "eth9", &["10.0.0.1/24"]) });
        snapshot.links.insert(IfIndex(25), link(IfIndex(25), "eth8", &["169.254.7.7/16"]));
        assert_eq!(found(&snapshot), eth0);
        snapshot.links.insert(IfIndex(26), link(IfIndex(26), "eth1", &["10.0.0.1/24"]));
        assert_eq!(found(&snapshot), Some(("eth1".to_owned(), "10.0.0.1/24".to_owned())));
    }

    #[test]
    fn the_pods_mtu_leaves_room_for_the_tunnel_unless_it_is_ruled_out() {
        let address = Ipv4Addr::new(172, 171, 5, 95);
        for (mtu, tunnel, pod) in [
            (Mtu::default(), 1480, 1480),
            (Mtu { configured: Some(1400), ipip_ruled_out: false }, 1400, 1400),
            (Mtu { configured: None, ipip_ruled_out: true }, 1480, 1500),
        ] {
            assert_eq!(mtu.tunnel(&snapshot(), address), Ok(tunnel), "{mtu:?}");
            assert_eq!(mtu.pod(&snapshot(), address), Ok(pod), "{mtu:?}");
        }
        assert!(Mtu::default().pod(&snapshot(), Ipv4Addr::BROADCAST).is_err());
    }
}
