//! What the runtime, and not the network's author, asks for one container: capabilities and arguments.
//!
//! A capability is in `runtimeConfig` when our entry of the list declares it and the runtime has a value for it
//! (CNI conventions, "dynamic plugin specific fields"); `args.cni` is the older way to say the same.

use std::net::IpAddr;

use serde_json::Value;

use super::section::Section;
use crate::settings::{Bandwidth, Cidr, Wishes};
use crate::{CniError, Mac};

/// Reads the wishes. Errors: [`crate::Code::CONFIG`].
pub fn wishes(conf: &Value) -> Result<Wishes, CniError> {
    let section = Section::of(conf);
    let runtime = section.section("runtimeConfig")?;
    let mut addresses = self::addresses(&runtime)?;
    if addresses.is_empty() {
        addresses = self::addresses(&section.section("args")?.section("cni")?)?;
    }
    let mac = |value: &Value| Mac::try_from(value.as_str()?.to_owned()).ok();
    Ok(Wishes {
        addresses,
        mac: runtime.read("mac", "a MAC address as \"02:00:00:00:00:01\"", mac)?,
        bandwidth: bandwidth(&runtime)?,
    })
}

/// With or without a prefix length, which says nothing here: every address of a pod is a /32 or /128.
fn addresses(section: &Section<'_>) -> Result<Vec<IpAddr>, CniError> {
    let addresses = |value: &Value| -> Option<Vec<IpAddr>> {
        value.as_array()?.iter().map(|text| address(text.as_str()?)).collect()
    };
    Ok(section.read("ips", "a list of addresses", addresses)?.unwrap_or_default())
}

/// An address, or the address of a CIDR.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| Some(text.parse::<Cidr>().ok()?.address))
}

fn bandwidth(runtime: &Section<'_>) -> Result<Option<Bandwidth>, CniError> {
    if runtime.value("bandwidth").is_none() {
        return Ok(None);
    }
    let section = runtime.section("bandwidth")?;
    let bits = |key| section.read(key, "a whole number of bits", Value::as_u64).map(unless_zero);
    Ok(Some(Bandwidth {
        ingress_rate: bits("ingressRate")?,
        ingress_burst: bits("ingressBurst")?,
        egress_rate: bits("egressRate")?,
        egress_burst: bits("egressBurst")?,
    })
    .filter(|bandwidth| *bandwidth != Bandwidth::default()))
}

fn unless_zero(bits: Option<u64>) -> Option<u64> {
    bits.filter(|bits| *bits > 0)
}
