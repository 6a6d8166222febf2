//! What a node finds out about itself from its links: its address, and the MTUs that follow from its link's.

use std::net::Ipv4Addr;

use crate::Snapshot;

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

/// Whether a link of this name never carries a node's address.
pub(crate) fn is_excluded(name: &str) -> bool {
    name == "lo" || NOT_BY_PREFIX.iter().any(|prefix| name.starts_with(prefix))
}

/// As Go's `net.IP.IsGlobalUnicast`, by which Calico decides.
pub(crate) fn is_global_unicast(address: Ipv4Addr) -> bool {
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
    use crate::testing::snapshot;

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
