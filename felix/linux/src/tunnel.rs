//! `tunl0`, the kernel's own IPIP device: one in each network namespace, there as soon as the module is.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use manx_felix::{KernelError, TUNNEL_DEVICE};

use crate::Node;
use crate::error::{EADDRNOTAVAIL, EEXIST, EOPNOTSUPP, refuse, refused};
use crate::link;
use crate::message::{self, Family};
use crate::parse::Device;
use crate::read;
use crate::socket::{Request, Socket};
use crate::sysctl::Parameter;

/// Sets the tunnel up with exactly this address.
pub(crate) fn up(node: &Node, socket: &mut Socket, address: Ipv4Addr, mtu: u32) -> Result<(), KernelError> {
    let _hand = node.monitor.hold(TUNNEL_DEVICE);
    let device = find_or_make(socket)?;
    // Loose: a packet that comes by the tunnel is taken although the way back is plain, as in the middle of a switch.
    // The kernel goes by the greater of this and `all`.
    node.sysctl.write(Parameter::Device(TUNNEL_DEVICE, "rp_filter"), "2")?;
    node.sysctl.write(Parameter::Device(TUNNEL_DEVICE, "forwarding"), "1")?;
    let present = read::addresses_of(socket, Family::V4, device.link.index)?;
    let wanted = IpNet::V4(Ipv4Net::from(address));
    let mut requests = Vec::new();
    if !present.contains(&wanted) {
        requests.push(message::add_address(device.link.index, wanted));
    }
    requests.push(message::set_mtu(device.link.index, mtu));
    requests.push(message::set_up(device.link.index, true));
    requests.extend(delete(&device, present.iter().filter(|address| **address != wanted)));
    carry_out(socket, &requests, &format!("setting up {TUNNEL_DEVICE} with {address}, MTU {mtu}"))
}

/// Takes the tunnel's addresses away and sets it down.
pub(crate) fn down(node: &Node, socket: &mut Socket) -> Result<(), KernelError> {
    let _hand = node.monitor.hold(TUNNEL_DEVICE);
    let Some(device) = link::find(socket, TUNNEL_DEVICE)? else { return Ok(()) };
    let present = read::addresses_of(socket, Family::V4, device.link.index)?;
    let mut requests: Vec<Request> = delete(&device, present.iter()).collect();
    requests.push(message::set_up(device.link.index, false));
    carry_out(socket, &requests, &format!("setting down {TUNNEL_DEVICE}"))
}

fn find_or_make(socket: &mut Socket) -> Result<Device, KernelError> {
    let action = format!("making {TUNNEL_DEVICE}");
    if let Some(device) = link::find(socket, TUNNEL_DEVICE)? {
        return match device.kind.as_str() {
            "ipip" => Ok(device),
            other => Err(refuse(
                action,
                format!("a device of this name exists and is no ipip tunnel but {other:?}"),
            )),
        };
    }
    match socket.request(&[message::ipip(TUNNEL_DEVICE)]) {
        Ok(()) => {}
        // Loading the module made it.
        Err(refusal) if refusal.errno == EEXIST => {}
        Err(refusal) if refusal.errno == EOPNOTSUPP => {
            let reason = "this kernel has no ipip: load the module `ipip`, or set CALICO_IPV4POOL_IPIP=Never";
            return Err(KernelError { errno: Some(EOPNOTSUPP), ..refuse(action, reason) });
        }
        Err(refusal) => return Err(refused(action, refusal)),
    }
    link::find(socket, TUNNEL_DEVICE)?.ok_or_else(|| refuse(action, "it vanished at once"))
}

fn delete<'a>(device: &Device, addresses: impl Iterator<Item = &'a IpNet>) -> impl Iterator<Item = Request> {
    let index = device.link.index;
    addresses.map(move |net| message::delete_address(index, *net))
}

/// An address that vanished meanwhile (a secondary one goes with its primary) is no failure.
fn carry_out(socket: &mut Socket, requests: &[Request], action: &str) -> Result<(), KernelError> {
    let outcomes = socket.exchange(requests, |_| ()).map_err(|error| refused(action, error.into()))?;
    match outcomes.into_iter().filter_map(Result::err).find(|refusal| refusal.errno != EADDRNOTAVAIL) {
        Some(refusal) => Err(refused(action, refusal)),
        None => Ok(()),
    }
}
