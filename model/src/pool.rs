//! Address pools, and when their packets travel inside IP-in-IP.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Invalid, Object};

/// The name of the IPv4 pool that an agent creates when there is none.
pub const DEFAULT_IPV4_POOL: &str = "default-ipv4-ippool";

/// When packets to a pool's addresses on another node travel inside IP-in-IP (protocol 4, over `tunl0`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpipMode {
    /// To every other node.
    Always,
    /// Only to nodes of another subnet.
    CrossSubnet,
    /// Never: plain routing.
    #[default]
    Never,
}

impl FromStr for IpipMode {
    type Err = String;

    /// The grammar of `CALICO_IPV4POOL_IPIP`: case does not matter; empty and `off` mean `Never`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "always" => Ok(Self::Always),
            "crosssubnet" | "cross-subnet" => Ok(Self::CrossSubnet),
            "never" | "off" | "" => Ok(Self::Never),
            _ => Err(format!("{text:?} is none of Always, CrossSubnet, Never, off")),
        }
    }
}

impl fmt::Display for IpipMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "Always",
            Self::CrossSubnet => "CrossSubnet",
            Self::Never => "Never",
        })
    }
}

/// `spec` of an IPPool as it is stored. What is not acted on yet is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// The pool's addresses.
    pub cidr: String,
    /// Prefix length of its blocks: 20 to 32 (default 26) for IPv4, 116 to 128 (default 122) for IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// `Always`, `CrossSubnet` or `Never`; `Never` when absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<String>,
    /// Whether traffic that leaves the pools is translated to the node's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_outgoing: Option<bool>,
    /// No new allocations; what is allocated stays routed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Fields that are not acted on yet.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A pool that can be used: masked CIDR, sizes in range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPool {
    /// Its name.
    pub name: String,
    /// Its addresses; no host bits.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// When its packets travel inside IP-in-IP.
    pub ipip: IpipMode,
    /// Whether traffic that leaves the pools is translated to the node's address.
    pub nat_outgoing: bool,
    /// No new allocations; what is allocated stays routed.
    pub disabled: bool,
}

impl IpPool {
    /// Reads and checks an IPPool (the rules of Calico's `ippool.go` that concern the fields we act on).
    ///
    /// # Errors
    /// [`Invalid`] with the field and what is allowed.
    pub fn from_object(object: &Object) -> Result<Self, Invalid> {
        let spec: IpPoolSpec = object.spec()?;
        let cidr: IpNet = spec.cidr.parse().map_err(|_| {
            object.invalid("spec.cidr", format!("{:?} is no CIDR, as 192.168.0.0/16", spec.cidr))
        })?;
        let disabled = spec.disabled.unwrap_or(false);
        let block_size = check_pool_cidr(cidr, spec.block_size, disabled)
            .map_err(|(field, reason)| object.invalid(format!("spec.{field}"), reason))?;
        let ipip: IpipMode = stored_mode(spec.ipip_mode.as_deref())
            .map_err(|reason| object.invalid("spec.ipipMode", reason))?;
        if ipip != IpipMode::Never && cidr.addr().is_ipv6() {
            return Err(object.invalid("spec.ipipMode", format!("{ipip}: an IPv6 pool can only have Never")));
        }
        let nat_outgoing = spec.nat_outgoing.unwrap_or(false);
        Ok(Self { name: object.name().to_owned(), cidr, block_size, ipip, nat_outgoing, disabled })
    }

    /// Whether `address` is one of the pool's.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address)
    }

    /// How many blocks the pool holds.
    pub fn block_count(&self) -> u128 {
        1u128
            .checked_shl(u32::from(self.block_size.saturating_sub(self.cidr.prefix_len())))
            .unwrap_or(u128::MAX)
    }
}

/// In a stored object the mode is exact; the loose grammar is the environment's only.
fn stored_mode(text: Option<&str>) -> Result<IpipMode, String> {
    match text {
        Some("Always") => Ok(IpipMode::Always),
        Some("CrossSubnet") => Ok(IpipMode::CrossSubnet),
        Some("Never" | "") | None => Ok(IpipMode::Never),
        Some(other) => Err(format!("{other:?} is none of Always, CrossSubnet, Never")),
    }
}

/// The block size of a pool, checked.
///
/// # Errors
/// The name of the field that is wrong, and the reason.
pub fn check_pool_cidr(
    cidr: IpNet,
    block_size: Option<u8>,
    disabled: bool,
) -> Result<u8, (&'static str, String)> {
    let (range, default) = match cidr {
        IpNet::V4(_) => (20..=32, 26),
        IpNet::V6(_) => (116..=128, 122),
    };
    let block_size = block_size.unwrap_or(default);
    if cidr != cidr.trunc() {
        return Err((
            "cidr",
            format!("{cidr} has bits set beyond its length; did you mean {}?", cidr.trunc()),
        ));
    }
    if !range.contains(&block_size) {
        return Err((
            "blockSize",
            format!("{block_size} is not within {} to {}", range.start(), range.end()),
        ));
    }
    if cidr.prefix_len() > block_size && !disabled {
        return Err(("cidr", format!("{cidr} is smaller than one block (/{block_size})")));
    }
    let link_local: [IpNet; 2] =
        ["169.254.0.0/16", "fe80::/10"].map(|text| text.parse().expect("a constant CIDR"));
    if link_local.iter().any(|net| net.contains(&cidr) || cidr.contains(net)) {
        return Err(("cidr", format!("{cidr} overlaps the link-local range")));
    }
    Ok(block_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use serde_json::json;

    fn read(spec: Value) -> Result<IpPool, String> {
        IpPool::from_object(&Object::new(Kind::IPPool, "p", &spec)).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn the_environment_may_write_the_mode_in_any_case_and_off_means_never() {
        for (text, mode) in [
            ("Always", IpipMode::Always),
            ("always", IpipMode::Always),
            ("CrossSubnet", IpipMode::CrossSubnet),
            ("cross-subnet", IpipMode::CrossSubnet),
            ("CROSSSUBNET", IpipMode::CrossSubnet),
            ("Never", IpipMode::Never),
            ("off", IpipMode::Never),
            ("Off", IpipMode::Never),
            ("", IpipMode::Never),
        ] {
            assert_eq!(text.parse(), Ok(mode), "{text:?}");
        }
        assert!("sometimes".parse::<IpipMode>().unwrap_err().contains("Always, CrossSubnet, Never, off"));
    }

    #[test]
    fn a_pool_has_calicos_defaults() {
        let pool = read(json!({"cidr": "192.168.0.0/16"})).unwrap();
        assert_eq!(
            (pool.block_size, pool.ipip, pool.nat_outgoing, pool.disabled),
            (26, IpipMode::Never, false, false)
        );
        assert_eq!(pool.block_count(), 1024);
    }

    #[test]
    fn a_pool_that_cannot_be_is_refused_by_field() {
        for (spec, field) in [
            (json!({"cidr": "192.168.0.0/33"}), "spec.cidr"),
            (json!({"cidr": "192.168.0.1/16"}), "spec.cidr"),
            (json!({"cidr": "192.168.0.0/27"}), "spec.cidr"),
            (json!({"cidr": "169.254.1.0/24"}), "spec.cidr"),
            (json!({"cidr": "192.168.0.0/16", "blockSize": 19}), "spec.blockSize"),
            (json!({"cidr": "fd00::/64", "blockSize": 64}), "spec.blockSize"),
            (json!({"cidr": "192.168.0.0/16", "ipipMode": "always"}), "spec.ipipMode"),
            (json!({"cidr": "fd00::/64", "ipipMode": "Always"}), "spec.ipipMode"),
            (json!({"cidr": 5}), "spec"),
            (json!({}), "spec"),
        ] {
            let error = read(spec.clone()).unwrap_err();
            assert!(error.starts_with(&format!("IPPool p: {field}")), "{spec}: {error}");
        }
    }
}
