//! The kernel, as the agent sees it: implemented by `manx-felix-linux`, and by a fake in the simulation.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;

use ipnet::IpNet;

use crate::route::{IfIndex, Route, Snapshot};
use crate::ruleset::{FoundRuleset, Ruleset};

/// The name of the IPIP device; the kernel's own fallback device, one in each network namespace.
pub const TUNNEL_DEVICE: &str = "tunl0";

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The kernel of one network namespace. Cheap to share; calls may run at the same time.
pub trait Kernel: Send + Sync {
    /// Prepares the node itself: lets it forward IPv4 packets, and IPv6 packets as soon as a pod has an IPv6 address,
    /// unless `forwarding` is false (`FELIX_IPFORWARDING=Disabled`), and looks whether anything about `device`, the link that carries the node's
    /// address, will be in the way. Returns warnings for the operator.
    fn prepare<'a>(
        &'a self,
        device: &'a str,
        forwarding: bool,
    ) -> BoxFuture<'a, Result<Vec<String>, KernelError>>;

    /// Reads everything that a [`Snapshot`] holds, in one consistent pass.
    fn read(&self) -> BoxFuture<'_, Result<Snapshot, KernelError>>;

    /// Carries out the operations in order and answers for each. One that fails does not stop the rest.
    fn apply(&self, operations: Vec<Operation>) -> BoxFuture<'_, Vec<Result<(), KernelError>>>;

    /// Reads our table of nftables; `None` where there is none. Cheap as long as nobody changed anything in nftables.
    fn ruleset(&self) -> BoxFuture<'_, Result<Option<FoundRuleset>, KernelError>>;

    /// Puts this in place of our table, in one step: no packet meets a part of it. `None` removes it. Other tables are never
    /// touched.
    fn write_ruleset(&self, ruleset: Option<Ruleset>) -> BoxFuture<'_, Result<(), KernelError>>;

    /// Resolves when something in the kernel changed that was not our own [`Self::apply`], [`Self::write_ruleset`] or
    /// attachment, and that could change a [`Snapshot`] or our table. Many changes may be told as one; after lost events it resolves, too. A change that nobody
    /// waited for is told to the next who does. For one waiter at a time.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// Makes the two ends of the pod's link, one of them inside `netns`, with their sysctls, while its addresses are not known
    /// yet (those of `pod` are not looked at): [`Self::attach`] makes the rest. `ipv6`: one of them will be an IPv6
    /// address. Where a link of this name exists, nothing is done. After an error nothing of it is left.
    fn begin<'a>(
        &'a self,
        netns: OwnedFd,
        pod: &'a PodLink,
        ipv6: bool,
    ) -> BoxFuture<'a, Result<Begun, KernelError>>;

    /// Makes the pod's link, as far as [`Self::begin`] has not made it: veth with its peer inside the pod's namespace,
    /// addresses, routes, neighbour entries and sysctls as Calico has them, and the host routes. When this link existed
    /// already and is right, nothing is changed, not even the MTU; a link of this name that belongs to another container
    /// (by its alias), or is damaged, is replaced. After an error nothing of it is left. For one pod at a time by name.
    fn attach<'a>(&'a self, begun: Begun, pod: &'a PodLink) -> BoxFuture<'a, Result<Attached, KernelError>>;

    /// Says what differs from what [`Self::attach`] made; empty when nothing does. A pod keeps the MTU that it was given
    /// when the wanted one changes, so both ends are compared with each other, and with nothing else.
    fn check<'a>(
        &'a self,
        netns: OwnedFd,
        pod: &'a PodLink,
    ) -> BoxFuture<'a, Result<Vec<String>, KernelError>>;

    /// Deletes the host's end (and with it the pod's) if its alias is `handle`; a missing link is success, and the
    /// link of another container is left alone.
    fn detach<'a>(&'a self, host_device: &'a str, handle: &'a str) -> BoxFuture<'a, Result<(), KernelError>>;
}

/// A pod's link, wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// The host's end, as `calic440f455693`; at most 15 bytes.
    pub host_device: String,
    /// The pod's end, as `eth0`; at most 15 bytes.
    pub pod_device: String,
    /// Whose the link is, kept as the host end's alias: the IPAM handle, and behind it, of a pod that IPAM does not know, its
    /// addresses; at most 255 bytes.
    pub handle: String,
    /// Addresses; each becomes a /32 (or /128).
    pub addresses: Vec<IpAddr>,
    /// MTU of both ends in bytes, for a link that is made now.
    pub mtu: u32,
    /// The MAC address of the pod's end (`cni.projectcalico.org/hwAddr`); `None`: one that the kernel chooses.
    pub pod_mac: Option<MacAddress>,
    /// Where the pod's routes over its gateway lead (`ipam.routes`); empty: everywhere, by a default route of each family.
    pub destinations: Vec<IpNet>,
    /// Transmit and receive queues of both ends (`num_queues`); `None`: one each, as the kernel has it.
    pub queues: Option<u32>,
    /// The pod may forward packets itself (`allow_ip_forwarding`).
    pub allow_ip_forwarding: bool,
}

/// The namespace of a pod, and what was made of its link. [`From`] a namespace alone: nothing.
#[derive(Debug)]
pub struct Begun {
    /// The pod's network namespace.
    pub netns: OwnedFd,
    /// The ends, if they were made now.
    pub ends: Option<Ends>,
}

/// The two ends of a pod's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The host's.
    pub host: IfIndex,
    /// The pod's, in its own namespace.
    pub pod: IfIndex,
    /// MTU of both in bytes.
    pub mtu: u32,
    /// They are ready for a pod with IPv6.
    pub ipv6: bool,
}

impl From<OwnedFd> for Begun {
    fn from(netns: OwnedFd) -> Self {
        Self { netns, ends: None }
    }
}

/// A pod's link, made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The host end's MAC address.
    pub host_mac: MacAddress,
    /// The pod end's MAC address.
    pub pod_mac: MacAddress,
    /// MTU of both ends in bytes: that of a link which was there already may not be the one that was asked for.
    pub mtu: u32,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The host end of every pod's veth (Calico's): pods may cache it for 169.254.1.1 for ever.
    pub const HOST_END: Self = Self([0xee; 6]);

    /// Why a pod's end cannot have this address, if so.
    pub fn unfit_for_a_pod(self) -> Option<&'static str> {
        match self {
            Self([0, 0, 0, 0, 0, 0]) => Some("it is zero"),
            // IEEE 802-2014 §8.2.2: the first bit on the wire is the lowest of the first octet.
            Self([first, ..]) if first & 1 == 1 => Some("it is a multicast address"),
            Self::HOST_END => Some("it is that of the link's other end"),
            _ => None,
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One write to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Adds the route. Where a route of ours with its key appeared meanwhile it is replaced; where another program's
    /// has its key, that one stays and this is an error (EEXIST).
    AddRoute(Route),
    /// Replaces the route of ours with its key, in one step: no packet finds neither.
    ReplaceRoute(Route),
    /// Deletes exactly this route; its absence is success.
    DeleteRoute(Route),
    /// Makes `tunl0` (loading the module if the kernel must), gives it this MTU and exactly this address, a /32,
    /// loosens its reverse-path filter, lets it forward, and sets it up.
    TunnelUp {
        /// The tunnel's own address.
        address: std::net::Ipv4Addr,
        /// Bytes.
        mtu: u32,
    },
    /// Removes every IPv4 address of `tunl0` and sets it down; its absence is success. The device stays: it is the kernel's.
    TunnelDown,
}

/// Why the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {reason}")]
pub struct KernelError {
    /// What was being done, as `route 192.168.1.0/26 via 10.0.0.2 dev eth0` or `link calic440f455693`.
    pub action: String,
    /// What the kernel said, in words, with what to do where that is known.
    pub reason: String,
    /// The errno, when there was one.
    pub errno: Option<i32>,
}
