//! Says what differs between a pod's link as it is and as it was made.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use manx_felix::{Hop, IfIndex, KernelError, Link, MacAddress, PodLink, Route, Target};

use crate::Node;
use crate::error::failed;
use crate::link;
use crate::message::{self, Family};
use crate::parse::{self, Device};
use crate::parts;
use crate::pod;
use crate::read;
use crate::socket::Socket;
use crate::sysctl::{Parameter, Sysctl, dotted};

/// `NUD_PERMANENT` (linux/neighbour.h).
const PERMANENT: u16 = 0x80;

/// What differs, each in a sentence; empty when nothing does.
pub(crate) fn check(
    node: &Node,
    socket: &mut Socket,
    netns: &OwnedFd,
    pod: &PodLink,
) -> Result<Vec<String>, KernelError> {
    parts::validate(pod)?;
    let Some(host) = link::find(socket, &pod.host_device)? else {
        return Ok(vec![format!("the host has no link {}", pod.host_device)]);
    };
    let mut differences = Vec::new();
    host_end(node, socket, pod, &host, &mut differences)?;
    differences.extend(pod::in_pod(netns, pod, || pod_side(&mut pod::open_in_pod(pod)?, pod, &host.link))?);
    Ok(differences)
}

fn host_end(
    node: &Node,
    socket: &mut Socket,
    pod: &PodLink,
    host: &Device,
    differences: &mut Vec<String>,
) -> Result<(), KernelError> {
    let name = &pod.host_device;
    if host.link.alias.as_ref() != Some(&pod.handle) {
        let alias = host.link.alias.as_deref().unwrap_or("none");
        differences
            .push(format!("{name} belongs to another container: its alias is {alias}, not {}", pod.handle));
    }
    if host.mac != Some(MacAddress::HOST_END) {
        differences.push(format!("{name} has not the MAC address {}", MacAddress::HOST_END));
    }
    is_up(&host.link, differences);
    let ipv6 = parts::wants(pod, Family::V6);
    let parameters = parts::host_parameters(name).into_iter().chain(parts::host_parameters6(name, ipv6));
    for (parameter, wanted) in parameters {
        differences.extend(parameter_is(&node.sysctl, parameter, wanted)?);
    }
    let device = host.link.index;
    let address = parts::host_address();
    if ipv6 && !read::addresses_of(socket, Family::V6, device)?.contains(&address) {
        differences.push(format!("{name} has no address {address}"));
    }
    for family in parts::families(pod) {
        let present = read::main_table(socket, family, Some(device))?;
        let is_there =
            |route: &Route| present.iter().any(|it| it.key == route.key && it.target == route.target);
        let missing = parts::host_routes(pod, device)
            .filter(|route| Family::of(route.key.destination.addr()) == family && !is_there(route));
        differences.extend(
            missing.map(|route| format!("the host has no route {} dev {name} scope link", route.key)),
        );
    }
    Ok(())
}

fn is_up(link: &Link, differences: &mut Vec<String>) {
    if !link.up {
        differences.push(format!("{} is down", link.name));
    }
}

fn parameter_is(
    sysctl: &Sysctl,
    parameter: Parameter<'_>,
    wanted: &str,
) -> Result<Option<String>, KernelError> {
    let other = sysctl.read(parameter)?.filter(|value| value != wanted);
    Ok(other.map(|value| format!("{} is {value}, not {wanted}", dotted(parameter))))
}

/// The pod's own side. Runs inside its namespace.
fn pod_side(socket: &mut Socket, pod: &PodLink, host: &Link) -> Result<Vec<String>, KernelError> {
    let name = &pod.pod_device;
    let Some(end) = link::find(socket, name)? else {
        return Ok(vec![format!("the pod has no link {name}")]);
    };
    let mut differences = Vec::new();
    end_itself(pod, &end, host, &mut differences);
    for family in parts::families(pod) {
        family_is(socket, family, pod, end.link.index, &mut differences)?;
    }
    if !link::find(socket, "lo")?.is_some_and(|lo| lo.link.up) {
        differences.push("the pod's lo is down".to_owned());
    }
    differences.extend(parameters_are(pod)?.into_iter().map(|difference| format!("in the pod {difference}")));
    Ok(differences)
}

fn end_itself(pod: &PodLink, end: &Device, host: &Link, differences: &mut Vec<String>) {
    let (name, host_name) = (&pod.pod_device, &pod.host_device);
    if end.peer != Some(host.index.0) || end.kind != "veth" {
        differences.push(format!("the pod's {name} is not the other end of {host_name}"));
    }
    is_up(&end.link, differences);
    // What the MTU was when the link was made, only the link itself remembers; what it would be today does not matter.
    if end.link.mtu != host.mtu {
        let (mtu, other) = (end.link.mtu, host.mtu);
        differences.push(format!("the pod's {name} has MTU {mtu}, its other end {host_name} has {other}"));
    }
    if let Some(wanted) = pod.pod_mac.filter(|wanted| end.mac != Some(*wanted)) {
        let mac = end.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
        differences.push(format!("the pod's {name} has the MAC address {mac}, not {wanted}"));
    }
}

/// Addresses, routes and neighbour.
fn family_is(
    socket: &mut Socket,
    family: Family,
    pod: &PodLink,
    device: IfIndex,
    differences: &mut Vec<String>,
) -> Result<(), KernelError> {
    addresses_are(&read::addresses_of(socket, family, device)?, family, pod, differences);
    routes_are(&read::main_table(socket, family, Some(device))?, family, pod, device, differences);
    let gateway = parts::gateway(family);
    if !has_neighbour(socket, device, gateway) {
        differences.push(format!("the pod has no permanent neighbour {gateway} {}", MacAddress::HOST_END));
    }
    Ok(())
}

fn addresses_are(present: &[IpNet], family: Family, pod: &PodLink, differences: &mut Vec<String>) {
    let wanted: Vec<IpNet> = parts::addresses(pod).filter(|net| Family::of(net.addr()) == family).collect();
    // The kernel gives every device with IPv6 a link-local one.
    let is_link_local = |net: &IpNet| matches!(net.addr(), IpAddr::V6(it) if it.is_unicast_link_local());
    for address in wanted.iter().filter(|address| !present.contains(address)) {
        differences.push(format!("the pod's {} has no address {address}", pod.pod_device));
    }
    for address in present.iter().filter(|address| !wanted.contains(address) && !is_link_local(address)) {
        differences
            .push(format!("the pod's {} has the address {address}, which is not its own", pod.pod_device));
    }
}

fn routes_are(
    present: &[Route],
    family: Family,
    pod: &PodLink,
    device: IfIndex,
    differences: &mut Vec<String>,
) {
    let (name, gateway) = (&pod.pod_device, parts::gateway(family));
    let has = |to: IpNet, gateway: Option<IpAddr>| {
        let target = Target::Hops(vec![Hop { device, gateway, onlink: false }]);
        present.iter().any(|route| route.key.destination == to && route.target == target)
    };
    if family == Family::V4 && !has(gateway.into(), None) {
        differences.push(format!("the pod has no route {gateway} dev {name} scope link"));
    }
    for to in parts::destinations(pod, family) {
        if !has(to, Some(gateway)) {
            let to = if to.prefix_len() == 0 { "default".to_owned() } else { to.to_string() };
            differences.push(format!("the pod has no route {to} via {gateway} dev {name}"));
        }
    }
}

fn has_neighbour(socket: &mut Socket, device: IfIndex, gateway: IpAddr) -> bool {
    let mut found = None;
    let asked = socket.exchange(&[message::neighbour_of(device, gateway)], |reply| {
        found = parse::neighbour(reply.payload);
    });
    asked.is_ok()
        && found.is_some_and(|(state, mac)| state & PERMANENT != 0 && mac == Some(MacAddress::HOST_END))
}

fn parameters_are(pod: &PodLink) -> Result<Vec<String>, KernelError> {
    let with_ipv6 = parts::wants(pod, Family::V6);
    let sysctl = Sysctl::open(with_ipv6).map_err(|error| failed("reading the pod's sysctls", &error))?;
    let mut differences = Vec::new();
    differences.extend(parameter_is(&sysctl, Parameter::Forwarding, parts::pod_forwarding(pod))?);
    for (parameter, wanted) in parts::pod_parameters6(pod).into_iter().filter(|_| with_ipv6) {
        differences.extend(parameter_is(&sysctl, parameter, wanted)?);
    }
    Ok(differences)
}
