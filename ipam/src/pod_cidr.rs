//! `usePodCidr`: addresses straight from the node's podCIDR, without blocks, as the plugin host-local gives them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The next free address of `cidr` after `last` (the one that was given last, so that an address rests as long as
/// possible before it is used again), around the end if need be. The network's own address, the one after it (the
/// gateway's in host-local; a tunnel's in Calico) and IPv4's broadcast address are given to no pod.
pub fn next_in_pod_cidr(
    cidr: IpNet,
    in_use: impl Fn(&IpAddr) -> bool,
    last: Option<IpAddr>,
) -> Option<IpAddr> {
    let (first, end) = range(cidr);
    let last = last.filter(|last| cidr.contains(last)).map_or(end, to_bits);
    let after = last.saturating_add(1).max(first);
    let mut candidates = (after..=end).chain(first..=end.min(last)).map(|bits| from_bits(cidr, bits));
    candidates.find(|address| !in_use(address))
}

/// Whether `address` is one that [`next_in_pod_cidr`] gives to pods.
pub fn is_for_pods(cidr: IpNet, address: IpAddr) -> bool {
    let (first, last) = range(cidr);
    cidr.contains(&address) && (first..=last).contains(&to_bits(address))
}

/// The address of the node's tunnel in its podCIDR, as Calico has it: the one after the network's own. `None` where there is
/// none, or it is no IPv4.
pub fn tunnel_in_pod_cidr(cidr: IpNet) -> Option<Ipv4Addr> {
    let IpNet::V4(cidr) = cidr else { return None };
    let next = Ipv4Addr::from_bits(cidr.network().to_bits().checked_add(1)?);
    cidr.contains(&next).then_some(next)
}

/// The first and the last address for pods; none where the first is beyond the last.
fn range(cidr: IpNet) -> (u128, u128) {
    let (network, broadcast) = (to_bits(cidr.network()), to_bits(cidr.broadcast()));
    match cidr {
        IpNet::V4(_) => (network.saturating_add(2), broadcast.saturating_sub(1)),
        IpNet::V6(_) => (network.saturating_add(2), broadcast),
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_bits(cidr: IpNet, bits: u128) -> IpAddr {
    match cidr {
        IpNet::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn next(cidr: &str, in_use: &[&str], last: Option<&str>) -> Option<String> {
        let in_use: BTreeSet<IpAddr> = in_use.iter().map(|text| text.parse().unwrap()).collect();
        let last = last.map(|text| text.parse().unwrap());
        next_in_pod_cidr(cidr.parse().unwrap(), |address| in_use.contains(address), last)
            .map(|address| address.to_string())
    }

    #[test]
    fn addresses_go_round_and_skip_what_is_no_pods() {
        for (cidr, in_use, last, expected) in [
            ("10.0.0.0/29", &[][..], None, Some("10.0.0.2")),
            ("10.0.0.0/29", &["10.0.0.2"], None, Some("10.0.0.3")),
            ("10.0.0.0/29", &[], Some("10.0.0.4"), Some("10.0.0.5")),
            ("10.0.0.0/29", &["10.0.0.5"], Some("10.0.0.4"), Some("10.0.0.6")),
            ("10.0.0.0/29", &["10.0.0.5", "10.0.0.6"], Some("10.0.0.4"), Some("10.0.0.2")),
            ("10.0.0.0/29", &[], Some("10.0.0.6"), Some("10.0.0.2")),
            ("10.0.0.0/29", &[], Some("10.9.0.6"), Some("10.0.0.2")),
            ("10.0.0.0/30", &["10.0.0.2"], Some("10.0.0.2"), None),
            ("10.0.0.0/31", &[], None, None),
            ("10.0.0.0/32", &[], None, None),
            ("255.255.255.248/29", &[], Some("255.255.255.254"), Some("255.255.255.250")),
            ("fd00::/64", &["fd00::2"], None, Some("fd00::3")),
            ("fd00::/126", &["fd00::2"], None, Some("fd00::3")),
        ] {
            assert_eq!(next(cidr, in_use, last).as_deref(), expected, "{cidr} {in_use:?} {last:?}");
        }
    }

    #[test]
    fn every_address_is_given_once_before_one_comes_again() {
        let (mut last, mut given) = (None, Vec::new());
        for _ in 0..13 {
            let address = next("10.0.0.0/28", &[], last.as_deref()).unwrap();
            given.push(address.clone());
            last = Some(address);
        }
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 13);
        assert_eq!(next("10.0.0.0/28", &[], last.as_deref()), Some(given[0].clone()));
    }

    #[test]
    fn the_tunnel_has_the_address_that_no_pod_gets() {
        let tunnel =
            |cidr: &str| tunnel_in_pod_cidr(cidr.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(tunnel("10.0.0.0/24").as_deref(), Some("10.0.0.1"));
        assert_eq!((tunnel("10.0.0.7/32"), tunnel("fd00::/64")), (None, None));
        let for_pods = |text: &str| is_for_pods("10.0.0.0/24".parse().unwrap(), text.parse().unwrap());
        let given =
            ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.254", "10.0.0.255", "10.0.1.2"].map(for_pods);
        assert_eq!(given, [false, false, true, true, false, false]);
    }
}
