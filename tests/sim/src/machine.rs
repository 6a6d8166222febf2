//! One network stack of Linux, as far as a router of pods can see it: links, addresses, the main table.
//!
//! What the kernel does by itself is done here, too: connected routes come and go with addresses and links, and
//! routes vanish without a word when their link goes down, is deleted, or loses its last address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use manx_felix::{
    FoundRuleset, Hook, Hop, IfIndex, KernelError, Link, Operation, Ownership, Protocol, Route, RouteKey,
    Snapshot, TUNNEL_DEVICE, Target,
};
use tokio::sync::Notify;

/// Routes that the kernel itself wrote (RTPROT_KERNEL).
pub const KERNEL: Protocol = Protocol(2);
/// Routes that an administrator wrote (RTPROT_STATIC).
pub const STATIC: Protocol = Protocol(4);

const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const ENETDOWN: i32 = 100;
const ENETUNREACH: i32 = 101;

/// A link layer on which machines see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment(pub u8);

/// What is behind a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `lo`.
    Loopback,
    /// A wire to others.
    Wire(Segment),
    /// The host's end of a pod's link, with the addresses which the pod has configured so far.
    Veth(BTreeSet<Ipv4Addr>),
    /// `tunl0`.
    Tunnel,
}

/// A device: what the kernel tells of it, and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As netlink tells it.
    pub link: Link,
    /// What is behind it.
    pub kind: Kind,
}

/// Whether this kernel has ipip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipip {
    /// It will be loaded when `tunl0` is made.
    Loadable,
    /// There is no such module.
    Unsupported,
}

/// How often calls fail, in percent of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Reads.
    pub read: u8,
    /// Single operations of an apply, and attachments.
    pub write: u8,
}

/// The network stack of one node or router.
#[derive(Debug)]
pub struct Machine {
    /// By index.
    pub devices: BTreeMap<IfIndex, Device>,
    /// The main table.
    pub routes: Vec<Route>,
    /// `net.ipv4.ip_forward`.
    pub forwarding: bool,
    /// Whether there can be a `tunl0`.
    pub ipip: Ipip,
    /// Whether there can be a ruleset.
    pub nftables: bool,
    /// Our table of nftables.
    pub ruleset: Option<FoundRuleset>,
    /// What goes wrong.
    pub faults: Faults,
    /// Wakes whoever watches this kernel.
    pub changed: Arc<Notify>,
    last_index: u32,
}

impl Machine {
    /// A machine with `lo` and nothing else.
    pub fn new() -> Self {
        let mut machine = Self {
            devices: BTreeMap::new(),
            routes: Vec::new(),
            forwarding: false,
            ipip: Ipip::Loadable,
            nftables: true,
            ruleset: None,
            faults: Faults::default(),
            changed: Arc::default(),
            last_index: 0,
        };
        let lo = machine.add_device("lo", Kind::Loopback, 65536, None);
        machine.set_up(lo, true);
        machine
    }

    /// A new device, down.
    pub fn add_device(&mut self, name: &str, kind: Kind, mtu: u32, alias: Option<String>) -> IfIndex {
        self.last_index += 1;
        let index = IfIndex(self.last_index);
        let link = Link { index, name: name.to_owned(), up: false, mtu, alias, addresses: Vec::new() };
        self.devices.insert(index, Device { link, kind });
        index
    }

    /// A wire that is up and has an address.
    pub fn add_wire(&mut self, name: &str, segment: Segment, address: Ipv4Net) -> IfIndex {
        let index = self.add_device(name, Kind::Wire(segment), 1500, None);
        self.set_up(index, true);
        self.add_address(index, address);
        index
    }

    /// The device of this name.
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.values().find(|device| device.link.name == name)
    }

    /// Sets a device up or down; routes over one that goes down are gone.
    pub fn set_up(&mut self, index: IfIndex, up: bool) {
        let Some(device) = self.devices.get_mut(&index) else { return };
        device.link.up = up;
        let addresses = device.link.addresses.clone();
        match up {
            true => addresses.into_iter().for_each(|address| self.connect(index, address)),
            false => self.flush(index),
        }
    }

    /// Deletes a device and the routes over it.
    pub fn delete_device(&mut self, index: IfIndex) {
        self.devices.remove(&index);
        self.flush(index);
    }

    /// Adds an address, and with it the connected route.
    pub fn add_address(&mut self, index: IfIndex, address: Ipv4Net) {
        let Some(device) = self.devices.get_mut(&index) else { return };
        if !device.link.addresses.contains(&address) {
            device.link.addresses.push(address);
        }
        if device.link.up {
            self.connect(index, address);
        }
    }

    /// Deletes an address and its connected route; with the last one, every route over the device.
    pub fn delete_address(&mut self, index: IfIndex, address: Ipv4Net) {
        let Some(device) = self.devices.get_mut(&index) else { return };
        device.link.addresses.retain(|present| *present != address);
        if device.link.addresses.is_empty() {
            self.flush(index);
        } else {
            let subnet = IpNet::V4(address.trunc());
            self.routes.retain(|route| route.protocol != KERNEL || route.key.destination != subnet);
        }
    }

    fn connect(&mut self, index: IfIndex, address: Ipv4Net) {
        let is_wire = matches!(self.devices.get(&index).map(|device| &device.kind), Some(Kind::Wire(_)));
        let route = Route {
            key: RouteKey { destination: IpNet::V4(address.trunc()), priority: 0 },
            protocol: KERNEL,
            target: Target::Hops(vec![Hop { device: index, gateway: None, onlink: false }]),
        };
        if is_wire && address.prefix_len() < 32 && !self.routes.contains(&route) {
            self.routes.push(route);
        }
    }

    /// Takes the hops over a device away, and the routes which have no other.
    fn flush(&mut self, index: IfIndex) {
        for route in &mut self.routes {
            if let Target::Hops(hops) = &mut route.target {
                hops.retain(|hop| hop.device != index);
            }
        }
        self.routes.retain(|route| !matches!(&route.target, Target::Hops(hops) if hops.is_empty()));
    }

    /// What a dump tells: other BGP speakers' routes only where they have the key of one of ours.
    pub fn snapshot(&self) -> Snapshot {
        let ours: BTreeSet<RouteKey> =
            self.routes.iter().filter(|route| Ownership::is_ours(route)).map(|route| route.key).collect();
        let matters = |route: &&Route| {
            !route.protocol.is_bgp() || Ownership::is_ours(route) || ours.contains(&route.key)
        };
        Snapshot {
            links: self.devices.iter().map(|(index, device)| (*index, device.link.clone())).collect(),
            routes: self.routes.iter().filter(matters).cloned().collect(),
        }
    }

    /// Whether an address is this machine's own, on a device that is up.
    pub fn has_address(&self, address: Ipv4Addr) -> bool {
        let up = self.devices.values().filter(|device| device.link.up);
        up.flat_map(|device| &device.link.addresses).any(|net| net.addr() == address)
    }

    /// Its first address on a wire, which packets of its own have as their source.
    pub fn address(&self) -> Option<Ipv4Addr> {
        let wires = self.devices.values().filter(|device| matches!(device.kind, Kind::Wire(_)));
        wires.flat_map(|device| &device.link.addresses).map(Ipv4Net::addr).next()
    }

    /// Whether its ruleset lets protocol 4 of `source` in: what comes by no pod's interface is judged by the sets alone.
    pub fn takes_ipip_of(&self, source: Ipv4Addr) -> bool {
        let Some(found) = &self.ruleset else { return true };
        let input = found.ruleset.chains.values().any(|chain| chain.hook == Hook::Input);
        !input || found.ruleset.sets.get("nodes").is_some_and(|nodes| nodes.contains(source))
    }

    /// The route by which a packet leaves: the longest prefix, then the lowest metric.
    pub fn lookup(&self, destination: Ipv4Addr) -> Option<&Route> {
        let matching =
            self.routes.iter().filter(|route| route.key.destination.contains(&IpAddr::V4(destination)));
        matching
            .max_by_key(|route| (route.key.destination.prefix_len(), std::cmp::Reverse(route.key.priority)))
    }

    /// Carries out one operation as the door to Linux does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn operate(&mut self, operation: &Operation) -> Result<(), KernelError> {
        let refused = |(errno, reason): (i32, &str)| KernelError {
            action: format!("{operation:?}"),
            reason: reason.to_owned(),
            errno: Some(errno),
        };
        match operation {
            Operation::AddRoute(route) => self.add_route(route, false).map_err(refused),
            Operation::ReplaceRoute(route) => self.add_route(route, true).map_err(refused),
            Operation::DeleteRoute(route) => {
                self.routes.retain(|present| present != route);
                Ok(())
            }
            Operation::TunnelUp { address, mtu } => self.tunnel_up(*address, *mtu).map_err(refused),
            Operation::TunnelDown => {
                self.tunnel_down();
                Ok(())
            }
        }
    }

    fn add_route(&mut self, route: &Route, replace: bool) -> Result<(), (i32, &'static str)> {
        self.check(route)?;
        let present = self.routes.iter_mut().find(|present| present.key == route.key);
        match present {
            None => self.routes.push(route.clone()),
            Some(present) if replace || Ownership::is_ours(present) => *present = route.clone(),
            Some(_) => return Err((EEXIST, "another program's route has this key")),
        }
        Ok(())
    }

    fn check(&self, route: &Route) -> Result<(), (i32, &'static str)> {
        let Target::Hops(hops) = &route.target else { return Ok(()) };
        for hop in hops {
            let device = self.devices.get(&hop.device).ok_or((ENODEV, "no such device"))?;
            if !device.link.up {
                return Err((ENETDOWN, "the device is down"));
            }
            let Some(IpAddr::V4(gateway)) = hop.gateway else { continue };
            if self.has_address(gateway) {
                return Err((EINVAL, "the gateway is this machine's own address"));
            }
            if !hop.onlink && !self.reaches(gateway, hop.device) {
                return Err((ENETUNREACH, "the gateway is not on the device's link"));
            }
        }
        Ok(())
    }

    fn reaches(&self, gateway: Ipv4Addr, device: IfIndex) -> bool {
        let hops = self.lookup(gateway).map(|route| &route.target);
        matches!(hops, Some(Target::Hops(hops)) if hops.iter().any(|hop| hop.device == device && hop.gateway.is_none()))
    }

    fn tunnel_up(&mut self, address: Ipv4Addr, mtu: u32) -> Result<(), (i32, &'static str)> {
        let present = self.device(TUNNEL_DEVICE).map(|device| device.link.index);
        let index = match (present, self.ipip) {
            (Some(index), _) => index,
            (None, Ipip::Loadable) => self.add_device(TUNNEL_DEVICE, Kind::Tunnel, 1480, None),
            (None, Ipip::Unsupported) => return Err((EOPNOTSUPP, "this kernel has no ipip")),
        };
        self.add_address(index, Ipv4Net::from(address));
        if let Some(device) = self.devices.get_mut(&index) {
            device.link.mtu = mtu;
            // In this order no moment is without an address.
            device.link.addresses.retain(|present| *present == Ipv4Net::from(address));
        }
        self.set_up(index, true);
        Ok(())
    }

    fn tunnel_down(&mut self) {
        let Some(device) = self.device(TUNNEL_DEVICE) else { return };
        let (index, addresses) = (device.link.index, device.link.addresses.clone());
        addresses.into_iter().for_each(|address| self.delete_address(index, address));
        self.set_up(index, false);
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}
