//! A pod's link: made, kept and taken away.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use manx_felix::{Attached, Begun, Ends, IfIndex, KernelError, MacAddress, Operation, PodLink};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use crate::Node;
use crate::check;
use crate::error::{EEXIST, EINVAL, failed, refuse, refused};
use crate::link;
use crate::message::{self, Family};
use crate::netns::{self, Relation};
use crate::parse::{self, Device};
use crate::parts;
use crate::route;
use crate::socket::{Request, Socket};
use crate::sysctl::{Parameter, Sysctl};

/// After which a link that is being deleted is looked for; then after twice that time, and so on.
const FIRST_LOOK: Duration = Duration::from_micros(500);

/// Makes the ends of a link that is not there, and sets their parameters.
pub(crate) fn begin(
    node: &Node,
    socket: &mut Socket,
    netns: &OwnedFd,
    pod: &PodLink,
    ipv6: bool,
) -> Result<Option<Ends>, KernelError> {
    parts::validate_ends(pod, ipv6)?;
    refuse_namespace(node, netns, pod)?;
    let _hand = node.monitor.hold(&pod.host_device);
    match link::find(socket, &pod.host_device)? {
        Some(_) => Ok(None),
        None => make(node, socket, netns, pod, ipv6).map(Some),
    }
}

/// Makes the link, or the rest of it, unless it is there and right.
pub(crate) fn attach(
    node: &Node,
    socket: &mut Socket,
    begun: &Begun,
    pod: &PodLink,
) -> Result<Attached, KernelError> {
    let netns = &begun.netns;
    let _hand = node.monitor.hold(&pod.host_device);
    let (ends, valid) = match begun.ends {
        Some(ends) => (ends, parts::validate(pod)),
        None => {
            parts::validate(pod)?;
            let ipv6 = parts::wants(pod, Family::V6);
            if ipv6 {
                prepare_ipv6(node, pod)?;
            }
            refuse_namespace(node, netns, pod)?;
            if let Some(present) = link::find(socket, &pod.host_device)? {
                if let Some(attached) = keep(node, socket, netns, pod, &present)? {
                    return Ok(attached);
                }
                link::delete(socket, &pod.host_device, present.link.index)?;
            }
            (make(node, socket, netns, pod, ipv6)?, Ok(()))
        }
    };
    valid.and_then(|()| finish(node, socket, netns, pod, ends)).inspect_err(|_| {
        // Nothing is left behind; the first error is the one to tell.
        let _ = link::delete(socket, &pod.host_device, ends.host);
    })
}

fn refuse_namespace(node: &Node, netns: &OwnedFd, pod: &PodLink) -> Result<(), KernelError> {
    let action = parts::attaching(pod);
    match netns::relation(netns.as_fd(), node.netns()) {
        Ok(Relation::Other) => Ok(()),
        Ok(Relation::Own) => Err(refuse(action, "the pod's network namespace is the node's own")),
        Ok(Relation::NoNamespace) => Err(refuse(action, "the pod's file is no network namespace")),
        Err(error) => Err(failed(action, &error)),
    }
}

/// Before the first pod with IPv6 comes, the node may not have had a reason to forward it. Not sooner: a node that
/// forwards IPv6 stops listening to its routers' advertisements, unless `accept_ra` is 2.
fn prepare_ipv6(node: &Node, pod: &PodLink) -> Result<(), KernelError> {
    const ALL: Parameter<'_> = Parameter::Device6("all", "forwarding");
    match node.sysctl.read(ALL)? {
        None => {
            let reason = "the pod is to have an IPv6 address, and this kernel has no IPv6 (ipv6.disable=1?)";
            Err(refuse(parts::attaching(pod), reason))
        }
        // Only where it changes: writing it resets parameters of every device.
        Some(value) if value != "1" && node.forwards() => node.sysctl.write(ALL, "1"),
        Some(_) => Ok(()),
    }?;
    node.watch_ipv6().map(drop)
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
            parts::attaching(pod),
            format!("a device of this name exists and is no veth but {kind}; remove or rename it"),
        ));
    }
    if present.link.alias.as_ref() != Some(&pod.handle) || !check::check(node, socket, netns, pod)?.is_empty()
    {
        return Ok(None);
    }
    let mac = in_pod(netns, pod, || {
        Ok(link::find(&mut open_in_pod(pod)?, &pod.pod_device)?.and_then(|end| end.mac))
    })?;
    let pod_mac = mac.ok_or_else(|| refuse(configuring(pod), "it is gone"))?;
    Ok(Some(Attached { host_mac: MacAddress::HOST_END, pod_mac, mtu: present.link.mtu }))
}

/// Both ends, with all that waits for no address.
fn make(
    node: &Node,
    socket: &mut Socket,
    netns: &OwnedFd,
    pod: &PodLink,
    ipv6: bool,
) -> Result<Ends, KernelError> {
    let ends = create(socket, netns, pod, ipv6)?;
    prepare(node, socket, netns, pod, ends).inspect_err(|_| {
        let _ = link::delete(socket, &pod.host_device, ends.host);
    })?;
    Ok(ends)
}

/// The parameters of both ends; then the host's is up.
fn prepare(
    node: &Node,
    socket: &mut Socket,
    netns: &OwnedFd,
    pod: &PodLink,
    ends: Ends,
) -> Result<(), KernelError> {
    if ends.ipv6 {
        prepare_ipv6(node, pod)?;
    }
    for (parameter, value) in parts::host_parameters6(&pod.host_device, ends.ipv6) {
        node.sysctl.write(parameter, value)?;
    }
    socket
        .request(&host_requests(ends))
        .map_err(|refusal| refused(format!("configuring {}", pod.host_device), refusal))?;
    in_pod(netns, pod, || set_parameters(pod, ends.ipv6))
}

/// Both ends, the host's with its alias. Where the pod has IPv6 the host's end is left down, since the kernel begins
/// with IPv6 as soon as a device is up, and must have its parameters before.
fn create(socket: &mut Socket, netns: &OwnedFd, pod: &PodLink, ipv6: bool) -> Result<Ends, KernelError> {
    let action = || format!("making link {} with {} in the pod", pod.host_device, pod.pod_device);
    // The alias comes in the same `send`, so that no crash of ours can come between.
    let requests = [
        message::veth(pod, netns.as_fd(), !ipv6),
        message::identify(&pod.host_device, &pod.handle),
        message::link_by_name(&pod.host_device),
    ];
    let mut made = None;
    let outcomes = socket.exchange(&requests, |reply| made = parse::device(reply.payload));
    match outcomes.map_err(|error| refused(action(), error.into()))?.as_slice() {
        [Err(refusal), ..] if refusal.errno == EEXIST => {
            let device = &pod.pod_device;
            let reason = format!(
                "the pod already has a device {device}, which is not Manx's: another plugin made it?"
            );
            Err(refuse(action(), reason))
        }
        [Err(refusal), ..] => Err(refused(action(), refusal.clone())),
        [_, Err(refusal), ..] | [.., Err(refusal)] => {
            if let Some(host) = link::find(socket, &pod.host_device)? {
                link::delete(socket, &pod.host_device, host.link.index)?;
            }
            Err(refused(action(), refusal.clone()))
        }
        _ => {
            let host = made.ok_or_else(|| refuse(action(), "it vanished while it was set up"))?;
            let end = host.peer.map(IfIndex);
            let end = end.ok_or_else(|| refuse(action(), "the kernel does not tell the pod's end"))?;
            Ok(Ends { host: host.link.index, pod: end, mtu: host.link.mtu, ipv6 })
        }
    }
}

/// All that comes when the addresses are known.
fn finish(
    node: &Node,
    socket: &mut Socket,
    netns: &OwnedFd,
    pod: &PodLink,
    ends: Ends,
) -> Result<Attached, KernelError> {
    if parts::wants(pod, Family::V6) && !ends.ipv6 {
        prepare(node, socket, netns, pod, Ends { ipv6: true, ..ends })?;
    }
    let pod_mac = in_pod(netns, pod, || set_up(&mut open_in_pod(pod)?, pod, ends.pod))?;
    let routes: Vec<Operation> = parts::host_routes(pod, ends.host).map(Operation::AddRoute).collect();
    route::write(socket, &routes).into_iter().collect::<Result<(), KernelError>>()?;
    Ok(Attached { host_mac: MacAddress::HOST_END, pod_mac, mtu: ends.mtu })
}

fn host_requests(ends: Ends) -> Vec<Request> {
    let mut requests = vec![message::answer_at_once(ends.host)];
    if ends.ipv6 {
        // Given, and not waited for.
        requests.push(message::add_address(ends.host, parts::host_address()));
        requests.push(message::set_up(ends.host, true));
    }
    requests
}

/// Runs `work` inside the pod's namespace.
pub(crate) fn in_pod<T>(
    netns: &OwnedFd,
    pod: &PodLink,
    work: impl FnOnce() -> Result<T, KernelError>,
) -> Result<T, KernelError> {
    netns::within(netns.as_fd(), work).map_err(|error| match error.raw_os_error() {
        Some(EINVAL) => refuse(entering(pod), "the file is no network namespace"),
        _ => failed(entering(pod), &error),
    })?
}

/// A socket of the namespace in which the calling thread is, which is the pod's.
pub(crate) fn open_in_pod(pod: &PodLink) -> Result<Socket, KernelError> {
    Socket::open(NETLINK_ROUTE).map_err(|error| failed(entering(pod), &error))
}

fn entering(pod: &PodLink) -> String {
    format!("entering the network namespace of the pod behind {}", pod.host_device)
}

/// The pod's own side; its end has the index `device`. Runs inside its namespace.
fn set_up(socket: &mut Socket, pod: &PodLink, device: IfIndex) -> Result<MacAddress, KernelError> {
    let mut requests = vec![message::set_up(message::LOOPBACK, true), message::set_up(device, true)];
    requests.extend(parts::addresses(pod).map(|address| message::add_address(device, address)));
    for family in parts::families(pod) {
        let gateway = parts::gateway(family);
        // A link-local address is on the link anyway.
        requests.extend(gateway.is_ipv4().then(|| message::pod_route(device, gateway.into(), None)));
        let destinations = parts::destinations(pod, family);
        requests.extend(destinations.iter().map(|to| message::pod_route(device, *to, Some(gateway))));
        // Proxy ARP alone answers only where the node has a route to 169.254.1.1 over another link, a default route
        // mostly; and IPv6 need not ask either.
        requests.push(message::permanent_neighbour(device, gateway, MacAddress::HOST_END));
    }
    requests.push(message::link_by_index(device));
    let mut mac = None;
    let outcomes =
        socket.exchange(&requests, |reply| mac = parse::device(reply.payload).and_then(|end| end.mac));
    let outcomes = outcomes.map_err(|error| refused(configuring(pod), error.into()))?;
    outcomes.into_iter().collect::<Result<(), _>>().map_err(|refusal| refused(configuring(pod), refusal))?;
    mac.ok_or_else(|| refuse(configuring(pod), "it has no MAC address"))
}

/// First of all, since forwarding resets the parameters of the devices, and IPv6 looks at its own when they come up.
fn set_parameters(pod: &PodLink, ipv6: bool) -> Result<(), KernelError> {
    let sysctl = Sysctl::open(ipv6).map_err(|error| failed(configuring(pod), &error))?;
    if sysctl.read(Parameter::Forwarding)?.as_deref() != Some(parts::pod_forwarding(pod)) {
        sysctl.write(Parameter::Forwarding, parts::pod_forwarding(pod))?;
    }
    if ipv6 {
        // Of every device, and of those to come.
        sysctl.write(Parameter::Device6("all", "disable_ipv6"), "0")?;
        for (parameter, value) in parts::pod_parameters6(pod) {
            sysctl.write(parameter, value)?;
        }
    }
    Ok(())
}

fn configuring(pod: &PodLink) -> String {
    format!("configuring {} in the pod", pod.pod_device)
}

/// Deletes the pod's link, if it is this container's.
pub(crate) fn detach(
    node: &Arc<Node>,
    socket: &mut Socket,
    host_device: &str,
    handle: &str,
) -> Result<(), KernelError> {
    parts::validate_name(host_device, host_device)?;
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
