//! What a network configuration asks of the agent: typed, checked, and small enough to travel with every request.
//!
//! A field that is missing in a frame has its default, and one that the reader does not know is skipped: a newer plugin
//! and an older agent understand each other as long as what was added may be ignored. Where it may not, the protocol's
//! version changes ([`crate::protocol::PROTOCOL`]).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Mac;

/// The part of a network configuration that the agent acts on; the keys are those of [`crate::config`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `mtu` in octets, 68 to 65535. `None`: the agent decides.
    #[serde(skip_serializing_if = "is_default")]
    pub mtu: Option<u32>,
    /// `num_queues`: transmit and receive queues of the veth. `None`: the kernel's default.
    #[serde(skip_serializing_if = "is_default")]
    pub queues: Option<u32>,
    /// `ipam`.
    #[serde(skip_serializing_if = "is_default")]
    pub ipam: Ipam,
    /// `ipam.routes` and `include_default_routes`.
    #[serde(skip_serializing_if = "is_default")]
    pub routes: PodRoutes,
    /// `container_settings.allow_ip_forwarding`: leave `ip_forward` on in the pod.
    #[serde(skip_serializing_if = "is_default")]
    pub allow_ip_forwarding: bool,
    /// `feature_control`: which annotations of a pod are honoured.
    #[serde(skip_serializing_if = "is_default")]
    pub features: Features,
    /// `readiness_gates`: URLs that must answer before a pod is attached.
    #[serde(skip_serializing_if = "is_default")]
    pub readiness_gates: Vec<String>,
    /// `policy_setup_timeout_seconds`: how long an ADD may wait for the pod's policy, seconds. `None`: without limit.
    #[serde(skip_serializing_if = "is_default")]
    pub policy_timeout_seconds: Option<u32>,
    /// `nodename`: the node that the configuration was written for.
    #[serde(skip_serializing_if = "is_default")]
    pub node: Option<String>,
    /// What the configuration says in vain, in words; for the operator to see.
    #[serde(skip_serializing_if = "is_default")]
    pub without_effect: Vec<String>,
}

/// `ipam`: Calico's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ipam {
    /// `type` and `subnet`.
    #[serde(skip_serializing_if = "is_default")]
    pub source: Source,
    /// Pools to choose from, as names or CIDRs; empty: any pool that selects the pod.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv4_pools: Vec<String>,
    /// The same for IPv6.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6_pools: Vec<String>,
    /// Assign an IPv4 address (default true).
    pub assign_ipv4: bool,
    /// Assign an IPv6 address (default false).
    pub assign_ipv6: bool,
}

impl Default for Ipam {
    fn default() -> Self {
        let (ipv4_pools, ipv6_pools) = (Vec::new(), Vec::new());
        Self { source: Source::Blocks, ipv4_pools, ipv6_pools, assign_ipv4: true, assign_ipv6: false }
    }
}

/// Where a pod's addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `calico-ipam`, `manx-ipam`: this node's blocks of the pools.
    #[default]
    Blocks,
    /// `host-local` with the subnet `usePodCidr`: the Node's `spec.podCIDRs`.
    PodCidr,
}

/// The routes in the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodRoutes {
    /// The destinations of `ipam.routes`; empty: the default routes.
    pub destinations: Vec<Cidr>,
    /// `include_default_routes`: the default routes beside [`Self::destinations`].
    pub defaults_too: bool,
}

/// `feature_control`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Features {
    /// `ip_addrs_no_ipam`: the annotation `cni.projectcalico.org/ipAddrsNoIpam`.
    pub ip_addrs_no_ipam: bool,
    /// `floating_ips`: the annotation `cni.projectcalico.org/floatingIPs`.
    pub floating_ips: bool,
}

/// What the runtime asks for one container, by capabilities or arguments. What is not asked for is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// The addresses to assign: the capability `ips`, `args.cni.ips`, or `IP` of `CNI_ARGS`.
    #[serde(skip_serializing_if = "is_default")]
    pub addresses: Vec<IpAddr>,
    /// The MAC of the pod's end: the capability `mac`, or `MAC` of `CNI_ARGS`.
    #[serde(skip_serializing_if = "is_default")]
    pub mac: Option<Mac>,
    /// The capability `bandwidth`.
    #[serde(skip_serializing_if = "is_default")]
    pub bandwidth: Option<Bandwidth>,
}

impl Wishes {
    /// These, and where they ask for nothing, those of `weaker`.
    pub fn or(self, weaker: Self) -> Self {
        Self {
            addresses: if self.addresses.is_empty() { weaker.addresses } else { self.addresses },
            mac: self.mac.or(weaker.mac),
            bandwidth: self.bandwidth.or(weaker.bandwidth),
        }
    }
}

/// Limits of a pod's traffic; rates in bits per second, bursts in bits. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    /// To the pod.
    pub ingress_rate: Option<u64>,
    /// To the pod, at once.
    pub ingress_burst: Option<u64>,
    /// From the pod.
    pub egress_rate: Option<u64>,
    /// From the pod, at once.
    pub egress_burst: Option<u64>,
}

/// An address and a prefix length; as text `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address, host bits included.
    pub address: IpAddr,
    /// The prefix length: 0 to 32, or to 128.
    pub bits: u8,
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (address, bits) = text.split_once('/')?;
            let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
            let longest = if address.is_ipv4() { 32 } else { 128 };
            (bits <= longest).then_some(Self { address, bits })
        };
        read().ok_or_else(|| format!("{text:?} is no CIDR: an address, '/' and a prefix length are one"))
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.bits)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

/// What equals its default is not written: most settings of most networks.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_ask_for_nothing_are_an_empty_object_and_an_unknown_field_is_skipped() {
        assert_eq!(serde_json::to_string(&Settings::default()).unwrap(), "{}");
        let newer: Settings = serde_json::from_str(r#"{"mtu": 1400, "of a later release": [1]}"#).unwrap();
        assert_eq!(newer, Settings { mtu: Some(1400), ..Settings::default() });
    }

    #[test]
    fn a_cidr_is_an_address_and_a_length_that_fits_it() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "fd00::1/128"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0.0/-1", "x/8"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }
}
