//! A pod's link: made, and its parts named once for making and checking alike.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ipnet::IpNet;
use manx_felix::{
    Attached, Hop, IfIndex, KernelError, MacAddress, Operation, PodLink, Protocol, Route, RouteKey, Target,
};

use crate::Node;
use crate::check;
use crate::error::{EEXIST, EINVAL, failed, refuse, refused};
use crate::link;
use crate::message;
use crate::netns::{self, Relation};
use crate::parse::Device;
use crate::route;
use crate::socket::Socket;
use crate::sysctl::{Parameter, Sysctl};

/// The gateway of every pod: an address that no host has, since the host's end of the link answers for it.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Of the kernel (IFNAMSIZ, IFALIASZ, with the terminating zero).
const NAME_MAX: usize = 15;
const ALIAS_MAX: usize = 255;
/// After which a link that is being deleted is looked for; then after twice that time, and so on.
const FIRST_LOOK: Duration = Duration::from_micros(500);

/// The parameters of the host's end, with their values, as Calico's CNI plugin sets them
/// (`cni-plugin/pkg/dataplane/linux/dataplane_linux.go`).
pub(crate) fn host_parameters(device: &str) -> [(Parameter<'_>, &'static str); 5] {
    [
        // Packets from the pod to 127.0.0.0/8, as a host port's DNAT makes them, are not martians.
        (Parameter::Device(device, "route_localnet"), "1"),
        // Answer for the gateway at once.
        (Parameter::Neighbour(device, "proxy_delay"), "0"),
        (Parameter::Device(device, "proxy_arp"), "1"),
        (Parameter::Device(device, "forwarding"), "1"),
        // A pod is no router to its host.
        (Parameter::Device6(device, "accept_ra"), "0"),
    ]
}

/// The value of `net.ipv4.ip_forward` in the pod.
pub(crate) fn pod_forwarding(pod: &PodLink) -> &'static str {
    if pod.allow_ip_forwarding { "1" } else { "0" }
}

/// The pod's addresses, of which [`validate`] has made sure that they are IPv4.
pub(crate) fn addresses(pod: &PodLink) -> impl Iterator<Item = Ipv4Addr> {
    pod.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// The host's routes to the pod.
pub(crate) fn host_routes(pod: &PodLink, device: IfIndex) -> impl Iterator<Item = Route> {
    addresses(pod).map(move |address| Route {
        key: RouteKey { destination: IpNet::from(IpAddr::V4(address)), priority: 0 },
        protocol: Protocol::MANX,
        target: Target::Hops(vec![Hop { device, gateway: None, onlink: false }]),
    })
}

/// Makes the link, unless it is there and right.
pub(crate) fn attach(
    node: &Node,
    socket: &mut Socket,
    netns: &OwnedFd,
    pod: &PodLink,
) -> Result<Attached, KernelError> {
    validate(pod)?;
    refuse_namespace(node, netns, pod)?;
    let _hand = node.monitor.hold(&pod.host_device);
    if let Some(present) = link::find(socket, &pod.host_device)? {
        if let Some(attached) = keep(node, socket, netns, pod, &present)? {
            return Ok(attached);
        }
        link::delete(socket, &pod.host_device, present.link.index)?;
    }
    create(socket, netns, pod)?;
    let host = link::find(socket, &pod.host_device)?
        .ok_or_else(|| refuse(format!("attaching {}", pod.host_device), "it vanished while it was set up"))?;
    finish(node, socket, netns, pod, &host).inspect_err(|_| {
        // Nothing is left behind; the first error is the one to tell.
        let _ = link::delete(socket, &pod.host_device, host.link.index);
    })
}

fn refuse_namespace(node: &Node, netns: &OwnedFd, pod: &PodLink) -> Result<(), KernelError> {
    let action = format!("attaching {}", pod.host_device);
    match netns::relation(netns.as_fd(), node.netns()) {
        Ok(Relation::Other) => Ok(()),
        Ok(Relation::Own) => Err(refuse(action, "the pod's network namespace is the node's own")),
        Ok(Relation::NoNamespace) => Err(refuse(action, "the pod's file is no network namespace")),
        Err(error) => Err(failed(action, &error)),
    }
}

/// The present link, if it is this pod's and right; one that is not is to be replaced, unless it is no pod's at all.
fn keep(
    node: &Node,
    socket: &mut Socket,
    netns: &OwnedFd,
    pod: &PodLink,
    present: &Device,
) -> Result<Option<Attached>, KernelError> {
    if present.kind != "veth" {
        let kind = if present.kind.is_empty() { "hardware" } else { &present.kind };
        return Err(refuse(
            format!("attaching {}", pod.host_device),
            format!("a device of this name exists and is no veth but {kind}; remove or rename it"),
        ));
    }
    if present.link.alias.as_ref() != Some(&pod.handle) || !check::check(node, socket, netns, pod)?.is_empty()
    {
        return Ok(None);
    }
    let pod_mac = in_pod(netns, pod, |socket| mac(&pod_end(socket, pod)?, pod))?;
    Ok(Some(Attached { host_mac: MacAddress::HOST_END, pod_mac }))
}

fn create(socket: &mut Socket, netns: &OwnedFd, pod: &PodLink) -> Result<(), KernelError> {
    let action = || format!("making link {} with {} in the pod", pod.host_device, pod.pod_device);
    // The alias comes in the same `send`, so that no crash of ours can come between.
    let requests = [message::veth(pod, netns.as_fd()), message::set_alias(&pod.host_device, &pod.handle)];
    let outcomes = socket.exchange(&requests, |_| ()).map_err(|error| refused(action(), error.into()))?;
    match outcomes.as_slice() {
        [Err(refusal), _] if refusal.errno == EEXIST => {
            let device = &pod.pod_device;
            let reason = format!(
                "the pod already has a device {device}, which is not Manx's: another plugin made it?"
            );
            Err(refuse(action(), reason))
        }
        [Err(refusal), _] => Err(refused(action(), refusal.clone())),
        [Ok(()), Err(refusal)] => {
            if let Some(host) = link::find(socket, &pod.host_device)? {
                link::delete(socket, &pod.host_device, host.link.index)?;
            }
            Err(refused(action(), refusal.clone()))
        }
        _ => Ok(()),
    }
}

/// All that comes after the link's creation.
fn finish(
    node: &Node,
    socket: &mut Socket,
    netns: &OwnedFd,
    pod: &PodLink,
    host: &Device,
) -> Result<Attached, KernelError> {
    for (parameter, value) in host_parameters(&pod.host_device) {
        node.sysctl.write(parameter, value)?;
    }
    let pod_mac = in_pod(netns, pod, |socket| set_up(socket, pod))?;
    let routes: Vec<Operation> = host_routes(pod, host.link.index).map(Operation::AddRoute).collect();
    route::write(socket, &routes).into_iter().collect::<Result<(), KernelError>>()?;
    Ok(Attached { host_mac: host.mac.unwrap_or(MacAddress::HOST_END), pod_mac })
}

/// Runs `work` inside the pod's namespace, with a socket of it.
pub(crate) fn in_pod<T: Send>(
    netns: &OwnedFd,
    pod: &PodLink,
    work: impl FnOnce(&mut Socket) -> Result<T, KernelError> + Send,
) -> Result<T, KernelError> {
    let action = || format!("entering the network namespace of the pod behind {}", pod.host_device);
    let inside = || {
        let mut socket = Socket::open().map_err(|error| failed(action(), &error))?;
        work(&mut socket)
    };
    netns::within(netns.as_fd(), inside).map_err(|error| match error.raw_os_error() {
        Some(EINVAL) => refuse(action(), "the file is no network namespace"),
        _ => failed(action(), &error),
    })?
}

/// The pod's own side. Runs inside its namespace.
fn set_up(socket: &mut Socket, pod: &PodLink) -> Result<MacAddress, KernelError> {
    let action = || format!("configuring {} in the pod", pod.pod_device);
    // First, since it resets the parameters of the devices.
    let sysctl = Sysctl::open().map_err(|error| failed(action(), &error))?;
    if sysctl.read(Parameter::Forwarding)?.as_deref() != Some(pod_forwarding(pod)) {
        sysctl.write(Parameter::Forwarding, pod_forwarding(pod))?;
    }
    let end = pod_end(socket, pod)?;
    let device = end.link.index;
    let mut requests = vec![message::set_up(message::LOOPBACK, true), message::set_up(device, true)];
    requests.extend(addresses(pod).map(|address| message::add_address(device, address)));
    requests.push(message::pod_route(device, Some(GATEWAY), None));
    requests.push(message::pod_route(device, None, Some(GATEWAY)));
    // Proxy ARP alone answers only where the node has a route to 169.254.1.1 over another link, a default route mostly.
    requests.push(message::permanent_neighbour(device, GATEWAY, MacAddress::HOST_END));
    socket.request(&requests).map_err(|refusal| refused(action(), refusal))?;
    mac(&end, pod)
}

fn mac(end: &Device, pod: &PodLink) -> Result<MacAddress, KernelError> {
    end.mac
        .ok_or_else(|| refuse(format!("configuring {} in the pod", pod.pod_device), "it has no MAC address"))
}

/// The pod's end. Runs inside its namespace.
fn pod_end(socket: &mut Socket, pod: &PodLink) -> Result<Device, KernelError> {
    link::find(socket, &pod.pod_device)?
        .ok_or_else(|| refuse(format!("configuring {} in the pod", pod.pod_device), "it is gone"))
}

/// Deletes the pod's link, if it is this container's.
pub(crate) fn detach(
    node: &Arc<Node>,
    socket: &mut Socket,
    host_device: &str,
    handle: &str,
) -> Result<(), KernelError> {
    validate_name(host_device, host_device)?;
    match link::find(socket, host_device)? {
        Some(host) if host.link.alias.as_deref() == Some(handle) => {
            delete(node, socket, host_device, host.link.index)
        }
        _ => Ok(()),
    }
}

/// Deletes the link, and returns when it is gone. The kernel takes both ends out of its tables, with addresses and
/// routes, within a millisecond, and answers only after a grace period, 20 ms later; that answer is left to a thread.
fn delete(node: &Arc<Node>, socket: &mut Socket, device: &str, index: IfIndex) -> Result<(), KernelError> {
    let (done, answer) = mpsc::channel();
    let (node, name) = (Arc::clone(node), device.to_owned());
    tokio::task::spawn_blocking(move || {
        let _hand = node.monitor.hold(&name);
        let deleted = node.sockets.with(|socket| link::delete(socket, &name, index));
        // Nobody listens any more where the link was seen to be gone.
        let _ = done.send(deleted);
    });
    let mut pause = FIRST_LOOK;
    loop {
        match answer.recv_timeout(pause) {
            Ok(deleted) => {
                let broken = |error| Err(failed(format!("deleting link {device}"), &error));
                return deleted.unwrap_or_else(broken);
            }
            Err(RecvTimeoutError::Timeout) if link::find(socket, device)?.is_none() => return Ok(()),
            Err(RecvTimeoutError::Timeout) => pause *= 2,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(refuse(format!("deleting link {device}"), "the work was broken off"));
            }
        }
    }
}

/// Refuses what the kernel would refuse in fewer words, or take in part.
pub(crate) fn validate(pod: &PodLink) -> Result<(), KernelError> {
    let action = format!("attaching {}", pod.host_device);
    validate_name(&action, &pod.host_device)?;
    validate_name(&action, &pod.pod_device)?;
    let reason = match pod {
        _ if pod.handle.is_empty() => "the handle is empty".to_owned(),
        _ if pod.handle.len() > ALIAS_MAX => {
            format!("the handle has {} bytes; a link's alias holds at most {ALIAS_MAX}", pod.handle.len())
        }
        _ if pod.handle.contains('\0') => "the handle contains a zero byte".to_owned(),
        _ if pod.addresses.is_empty() => "it has no address".to_owned(),
        _ if pod.addresses.iter().any(IpAddr::is_ipv6) => "IPv6 addresses are not given to pods".to_owned(),
        _ if !(68..=65535).contains(&pod.mtu) => format!("MTU {} is not within 68 to 65535", pod.mtu),
        _ => return Ok(()),
    };
    Err(refuse(action, reason))
}

/// The kernel's rule for names of devices (`dev_valid_name`).
fn validate_name(action: &str, name: &str) -> Result<(), KernelError> {
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
