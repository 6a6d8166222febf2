//! What a pod's link consists of, named once for making it and for checking it; and what cannot be made.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use manx_felix::{Hop, IfIndex, KernelError, MacAddress, PodLink, Protocol, Route, RouteKey, Target};

use crate::error::refuse;
use crate::message::Family;
use crate::sysctl::Parameter;

/// The IPv4 gateway of every pod: an address that no host has, since the host's end of the link answers for it.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The IPv6 gateway of every pod: the host end's link-local address, which follows from [`MacAddress::HOST_END`]
/// (RFC 4291 appendix A).
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// Of the kernel (IFNAMSIZ, IFALIASZ, with the terminating zero).
const NAME_MAX: usize = 15;
const ALIAS_MAX: usize = 255;
/// What every IPv6 link must carry, in bytes (RFC 8200 §5); below, the kernel takes IPv6 off a device.
const IPV6_MTU_MIN: u32 = 1280;

/// The address of the gateway.
pub(crate) fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => GATEWAY.into(),
        Family::V6 => GATEWAY6.into(),
    }
}

/// The host end's own address: of the gateways, the one that a host has.
pub(crate) fn host_address() -> IpNet {
    ipnet::Ipv6Net::new_assert(GATEWAY6, 64).into()
}

/// The parameters of the host's end, with their values, as Calico's CNI plugin sets them
/// (`cni-plugin/pkg/dataplane/linux/dataplane_linux.go`). Those of IPv4 are given to the link by
/// [`crate::message::identify`] and [`crate::message::answer_at_once`], which costs less than a file for each.
pub(crate) fn host_parameters(device: &str) -> [(Parameter<'_>, &'static str); 4] {
    [
        // Packets from the pod to 127.0.0.0/8, as a host port's DNAT makes them, are not martians.
        (Parameter::Device(device, "route_localnet"), "1"),
        // Answer for the gateway at once.
        (Parameter::Neighbour(device, "proxy_delay"), "0"),
        (Parameter::Device(device, "proxy_arp"), "1"),
        (Parameter::Device(device, "forwarding"), "1"),
    ]
}

/// The IPv6 parameters of the host's end; of a pod without IPv6 only the first.
pub(crate) fn host_parameters6(
    device: &str,
    ipv6: bool,
) -> impl Iterator<Item = (Parameter<'_>, &'static str)> {
    let all = [
        // A pod is no router to its host.
        (Parameter::Device6(device, "accept_ra"), "0"),
        (Parameter::Device6(device, "disable_ipv6"), "0"),
        // There is nobody else on the link, and the test would take a second or two.
        (Parameter::Device6(device, "accept_dad"), "0"),
        (Parameter::Device6(device, "proxy_ndp"), "1"),
        (Parameter::Device6(device, "forwarding"), "1"),
    ];
    all.into_iter().take(if ipv6 { all.len() } else { 1 })
}

/// The value of `net.ipv4.ip_forward` in the pod.
pub(crate) fn pod_forwarding(pod: &PodLink) -> &'static str {
    if pod.allow_ip_forwarding { "1" } else { "0" }
}

/// The parameters of the end of a pod that has IPv6. A runtime may have switched IPv6 off in all of the namespace.
pub(crate) fn pod_parameters6(pod: &PodLink) -> [(Parameter<'_>, &'static str); 3] {
    let device = pod.pod_device.as_str();
    [
        (Parameter::Device6(device, "disable_ipv6"), "0"),
        (Parameter::Device6(device, "accept_dad"), "0"),
        (Parameter::Device6(device, "accept_ra"), "0"),
    ]
}

/// The families of the pod's addresses.
pub(crate) fn families(pod: &PodLink) -> impl Iterator<Item = Family> {
    [Family::V4, Family::V6].into_iter().filter(|family| wants(pod, *family))
}

/// The pod has an address of this family.
pub(crate) fn wants(pod: &PodLink, family: Family) -> bool {
    pod.addresses.iter().any(|address| Family::of(*address) == family)
}

/// The pod's addresses, each a subnet of its own.
pub(crate) fn addresses(pod: &PodLink) -> impl Iterator<Item = IpNet> {
    pod.addresses.iter().copied().map(IpNet::from)
}

/// Where the pod's routes over the gateway lead, each once.
pub(crate) fn destinations(pod: &PodLink, family: Family) -> BTreeSet<IpNet> {
    if pod.destinations.is_empty() {
        return [default_of(family)].into();
    }
    let of_family = pod.destinations.iter().filter(|net| Family::of(net.addr()) == family);
    of_family.map(IpNet::trunc).collect()
}

fn default_of(family: Family) -> IpNet {
    match family {
        Family::V4 => ipnet::Ipv4Net::default().into(),
        Family::V6 => ipnet::Ipv6Net::default().into(),
    }
}

/// The host's routes to the pod.
pub(crate) fn host_routes(pod: &PodLink, device: IfIndex) -> impl Iterator<Item = Route> {
    addresses(pod).map(move |destination| Route {
        key: RouteKey::of(destination),
        protocol: Protocol::MANX,
        target: Target::Hops(vec![Hop { device, gateway: None, onlink: false }]),
    })
}

/// Refuses what the kernel would refuse in fewer words, or take in part.
pub(crate) fn validate(pod: &PodLink) -> Result<(), KernelError> {
    validate_ends(pod, wants(pod, Family::V6))?;
    let unusable = |address: &&IpAddr| {
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        address.is_unspecified() || address.is_multicast() || address.is_loopback() || link_local
    };
    let reason = match pod {
        _ if pod.addresses.is_empty() => "it has no address".to_owned(),
        _ => match pod.addresses.iter().find(unusable) {
            Some(address) => format!("{address} is no address for a pod"),
            None => return Ok(()),
        },
    };
    Err(refuse(attaching(pod), reason))
}

/// The same, of what is known before the addresses are; `ipv6`: one of them will be an IPv6 address.
pub(crate) fn validate_ends(pod: &PodLink, ipv6: bool) -> Result<(), KernelError> {
    let action = attaching(pod);
    validate_name(&action, &pod.host_device)?;
    validate_name(&action, &pod.pod_device)?;
    let reason = match pod {
        _ if pod.handle.is_empty() => "the handle is empty".to_owned(),
        _ if pod.handle.len() > ALIAS_MAX => {
            format!("the handle has {} bytes; a link's alias holds at most {ALIAS_MAX}", pod.handle.len())
        }
        _ if pod.handle.contains('\0') => "the handle contains a zero byte".to_owned(),
        _ if !(68..=65535).contains(&pod.mtu) => format!("MTU {} is not within 68 to 65535", pod.mtu),
        _ if ipv6 && pod.mtu < IPV6_MTU_MIN => {
            format!("MTU {} is below {IPV6_MTU_MIN}, which IPv6 needs", pod.mtu)
        }
        _ => match unfit(pod.pod_mac) {
            Some((mac, why)) => format!("the MAC address {mac} cannot be given to a pod: {why}"),
            None => return Ok(()),
        },
    };
    Err(refuse(action, reason))
}

/// What is being done, in an error.
pub(crate) fn attaching(pod: &PodLink) -> String {
    format!("attaching {}", pod.host_device)
}

fn unfit(mac: Option<MacAddress>) -> Option<(MacAddress, &'static str)> {
    mac.and_then(|mac| Some((mac, mac.unfit_for_a_pod()?)))
}

/// The kernel's rule for names of devices (`dev_valid_name`).
pub(crate) fn validate_name(action: &str, name: &str) -> Result<(), KernelError> {
    let reason = match name {
        "" => "a device's name is empty".to_owned(),
        "." | ".." => format!("{name:?} is no name for a device"),
        _ if name.len() > NAME_MAX => {
            format!("{name:?} has {} bytes; a device's name has at most {NAME_MAX}", name.len())
        }
        _ if name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace()) => {
            format!("{name:?} is no name for a device: it must not contain '/', ':' or white space")
        }
        _ => return Ok(()),
    };
    Err(refuse(action, reason))
}
