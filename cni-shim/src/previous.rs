//! `prevResult`: the result of the plugins before us (ADD), or of the whole chain at ADD (CHECK).
//!
//! It is read in the words of any version: a plugin may have answered in another than the list's. What a version cannot
//! say is left out, what it demands is added (specification 1.1.0, section 5, and the results of 0.3.1, 0.4.0, 1.0.0).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::CniVersion;
use crate::settings::Cidr;

/// What began with 1.1.0 in an interface and in a route.
const INTERFACE_1_1: [&str; 3] = ["mtu", "socketPath", "pciID"];
const ROUTE_1_1: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

/// What an earlier ADD reported about the pod's device, to which later plugins of the chain may have added interfaces
/// and addresses of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Previous {
    /// The names of the interfaces on the host.
    pub host_devices: Vec<String>,
    /// The addresses on the pod's device, without their prefix lengths.
    pub addresses: Vec<IpAddr>,
}

impl Previous {
    /// Reads a `prevResult` for the pod's device `pod_device`. Errors say in words what is missing or unreadable.
    pub fn read(prev_result: &Value, pod_device: &str) -> Result<Self, String> {
        let interfaces = list(prev_result, "interfaces")?;
        let index = interfaces
            .iter()
            .position(|interface| in_pod(interface) && text(interface, "name") == Some(pod_device))
            .ok_or_else(|| format!("prevResult has no interface {pod_device:?} with a sandbox"))?;
        let on_pod = |ip: &&Value| ip.get("interface").and_then(Value::as_u64) == Some(index as u64);
        let host = interfaces.iter().filter(|interface| !in_pod(interface));
        Ok(Self {
            host_devices: host.filter_map(|interface| text(interface, "name").map(str::to_owned)).collect(),
            addresses: list(prev_result, "ips")?
                .iter()
                .filter(on_pod)
                .map(address)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// `prev_result` in the words of `version`, for an ADD that puts its own after it. Errors say in words what is wrong: it
/// cannot be read, or it has the pod's device `pod_device` already.
pub fn convert(prev_result: &Value, version: CniVersion, pod_device: &str) -> Result<Value, String> {
    let mut result = prev_result.clone();
    let Some(fields) = result.as_object_mut() else { return Err("prevResult is no object".to_owned()) };
    fields.insert("cniVersion".to_owned(), json!(version.as_str()));
    if version < CniVersion::V1_0_0 {
        fields.entry("dns").or_insert_with(|| json!({}));
    }
    let mut taken = false;
    for (key, convert) in PARTS {
        for part in fields.get_mut(key).map(|list| entries(list, key)).transpose()?.into_iter().flatten() {
            taken |= key == "interfaces" && in_pod(part) && text(part, "name") == Some(pod_device);
            convert(part, version)?;
        }
    }
    if taken {
        return Err(format!(
            "prevResult has {pod_device:?} in the pod already; manx-cni makes the pod's device and belongs before every \
             plugin that needs one"
        ));
    }
    Ok(result)
}

type Convert = fn(&mut Value, CniVersion) -> Result<(), String>;

const PARTS: [(&str, Convert); 3] = [("interfaces", interface), ("ips", ip), ("routes", route)];

fn interface(interface: &mut Value, version: CniVersion) -> Result<(), String> {
    without(interface, version, &INTERFACE_1_1);
    Ok(())
}

fn route(route: &mut Value, version: CniVersion) -> Result<(), String> {
    without(route, version, &ROUTE_1_1);
    Ok(())
}

fn ip(ip: &mut Value, version: CniVersion) -> Result<(), String> {
    let family = if address(ip)?.is_ipv4() { "4" } else { "6" };
    let Some(fields) = ip.as_object_mut() else { return Ok(()) };
    match version < CniVersion::V1_0_0 {
        true => fields.insert("version".to_owned(), json!(family)),
        false => fields.remove("version"),
    };
    Ok(())
}

fn without(part: &mut Value, version: CniVersion, keys: &[&str]) {
    if let Some(fields) = part.as_object_mut().filter(|_| version < CniVersion::V1_1_0) {
        fields.retain(|key, _| !keys.contains(&key.as_str()));
    }
}

/// The list under `key`; Go writes an empty one as `null`.
fn entries<'a>(value: &'a mut Value, key: &str) -> Result<&'a mut Vec<Value>, String> {
    if value.is_null() {
        *value = json!([]);
    }
    let list = value.as_array_mut().filter(|list| list.iter().all(Value::is_object));
    list.ok_or_else(|| format!("prevResult.{key} is no list of objects"))
}

fn in_pod(interface: &Value) -> bool {
    text(interface, "sandbox").is_some_and(|sandbox| !sandbox.is_empty())
}

fn address(ip: &Value) -> Result<IpAddr, String> {
    let cidr = text(ip, "address").ok_or("an entry of prevResult.ips has no address")?;
    let read = cidr.parse::<Cidr>().map(|cidr| cidr.address);
    read.map_err(|reason| format!("prevResult.ips: {reason}"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value], String> {
    value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .ok_or(format!("prevResult has no list {key:?}"))
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
