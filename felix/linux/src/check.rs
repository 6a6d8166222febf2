//! Says what differs between a pod's link as it is and as it would be made.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::{IpNet, Ipv4Net};
use manx_felix::{Hop, IfIndex, KernelError, Link, MacAddress, PodLink, Route, Target};

use crate::Node;
use crate::error::failed;
use crate::link;
use crate::message;
use crate::parse::{self, Device};
use crate::pod::{self, GATEWAY};
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
    pod::validate(pod)?;
    let Some(host) = link::find(socket, &pod.host_device)? else {
        return Ok(vec![format!("the host has no link {}", pod.host_device)]);
    };
    let mut differences = Vec::new();
    host_end(node, socket, pod, &host, &mut differences)?;
    differences.extend(pod::in_pod(netns, pod, |socket| pod_side(socket, pod, host.link.index))?);
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
    link_itself(&host.link, pod.mtu, differences);
    for (parameter, wanted) in pod::host_parameters(name) {
        parameter_is(&node.sysctl, parameter, wanted, differences)?;
    }
    let present = read::main_table(socket, Some(host.link.index))?;
    for route in pod::host_routes(pod, host.link.index) {
        if !present.iter().any(|it| it.key == route.key && it.target == route.target) {
            differences.push(format!("the host has no route {} dev {name} scope link", route.key));
        }
    }
    Ok(())
}

fn link_itself(link: &Link, mtu: u32, differences: &mut Vec<String>) {
    if !link.up {
        differences.push(format!("{} is down", link.name));
    }
    if link.mtu != mtu {
        differences.push(format!("{} has MTU {}, not {mtu}", link.name, link.mtu));
    }
}

fn parameter_is(
    sysctl: &Sysctl,
    parameter: Parameter<'_>,
    wanted: &str,
    differences: &mut Vec<String>,
) -> Result<(), KernelError> {
    if let Some(value) = sysctl.read(parameter)?.filter(|value| value != wanted) {
        differences.push(format!("{} is {value}, not {wanted}", dotted(parameter)));
    }
    Ok(())
}

/// The pod's own side. Runs inside its namespace.
fn pod_side(socket: &mut Socket, pod: &PodLink, host: IfIndex) -> Result<Vec<String>, KernelError> {
    let name = &pod.pod_device;
    let Some(end) = link::find(socket, name)? else {
        return Ok(vec![format!("the pod has no link {name}")]);
    };
    let mut differences = Vec::new();
    if end.peer != Some(host.0) || end.kind != "veth" {
        differences.push(format!("the pod's {name} is not the other end of {}", pod.host_device));
    }
    link_itself(&end.link, pod.mtu, &mut differences);
    addresses_are(&read::addresses_of(socket, end.link.index)?, pod, &mut differences);
    routes_are(&read::main_table(socket, Some(end.link.index))?, name, end.link.index, &mut differences);
    if !has_neighbour(socket, end.link.index) {
        differences.push(format!("the pod has no permanent neighbour {GATEWAY} {}", MacAddress::HOST_END));
    }
    if !link::find(socket, "lo")?.is_some_and(|lo| lo.link.up) {
        differences.push("the pod's lo is down".to_owned());
    }
    let sysctl = Sysctl::open().map_err(|error| failed("reading the pod's sysctls", &error))?;
    let mut forwarding = Vec::new();
    parameter_is(&sysctl, Parameter::Forwarding, pod::pod_forwarding(pod), &mut forwarding)?;
    differences.extend(forwarding.into_iter().map(|difference| format!("in the pod {difference}")));
    Ok(differences)
}

fn addresses_are(present: &[Ipv4Net], pod: &PodLink, differences: &mut Vec<String>) {
    let wanted: Vec<Ipv4Net> = pod::addresses(pod).map(Ipv4Net::from).collect();
    for address in wanted.iter().filter(|address| !present.contains(address)) {
        differences.push(format!("the pod's {} has no address {address}", pod.pod_device));
    }
    for address in present.iter().filter(|address| !wanted.contains(address)) {
        differences
            .push(format!("the pod's {} has the address {address}, which is not its own", pod.pod_device));
    }
}

fn routes_are(present: &[Route], name: &str, device: IfIndex, differences: &mut Vec<String>) {
    let gateway = IpAddr::V4(GATEWAY);
    let has = |destination: IpNet, gateway: Option<IpAddr>| {
        let target = Target::Hops(vec![Hop { device, gateway, onlink: false }]);
        present.iter().any(|route| route.key.destination == destination && route.target == target)
    };
    if !has(IpNet::from(gateway), None) {
        differences.push(format!("the pod has no route {GATEWAY} dev {name} scope link"));
    }
    if !has(IpNet::V4(Ipv4Net::default()), Some(gateway)) {
        differences.push(format!("the pod has no route default via {GATEWAY} dev {name}"));
    }
}

fn has_neighbour(socket: &mut Socket, device: IfIndex) -> bool {
    let mut found = None;
    let asked = socket.exchange(&[message::neighbour_of(device, GATEWAY)], |reply| {
        found = parse::neighbour(reply.payload);
    });
    asked.is_ok()
        && found.is_some_and(|(state, mac)| state & PERMANENT != 0 && mac == Some(MacAddress::HOST_END))
}
