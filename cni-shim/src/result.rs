//! The result of ADD in the words of each version of the specification (section 5, "ADD Success").
//!
//! What Calico's plugin prints, and a Calico user's tools expect: the host's veth first and the pod's second, each
//! address /32 or /128 on interface 1, no gateway (169.254.1.1 is no address of the subnet), no routes (the runtime has
//! none to add), and before 1.0.0 an empty `dns`.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::{Attached, CniVersion, Mac};

/// `attached` as the specification's `version` writes it; `sandbox` is `CNI_NETNS` as the runtime gave it.
pub fn render(version: CniVersion, attached: &Attached, sandbox: &str) -> Value {
    let ips: Vec<Value> = attached.addresses.iter().map(|address| ip(version, *address)).collect();
    let mut pod = interface(version, &attached.pod_device, attached.pod_mac, attached.mtu);
    pod.insert("sandbox".to_owned(), json!(sandbox));
    let host = interface(version, &attached.host_device, attached.host_mac, attached.mtu);
    let mut result = json!({ "cniVersion": version.as_str(), "interfaces": [host, pod], "ips": ips });
    if version < CniVersion::V1_0_0 {
        result["dns"] = json!({});
    }
    result
}

fn interface(version: CniVersion, name: &str, mac: Mac, mtu: u32) -> Map<String, Value> {
    let mut interface = Map::new();
    interface.insert("name".to_owned(), json!(name));
    interface.insert("mac".to_owned(), json!(mac));
    if version >= CniVersion::V1_1_0 {
        interface.insert("mtu".to_owned(), json!(mtu));
    }
    interface
}

fn ip(version: CniVersion, address: IpAddr) -> Value {
    let (family, bits) = if address.is_ipv4() { ("4", 32) } else { ("6", 128) };
    let mut ip = json!({ "address": format!("{address}/{bits}"), "interface": 1 });
    if version < CniVersion::V1_0_0 {
        ip["version"] = json!(family);
    }
    ip
}

/// What an earlier ADD reported, as far as CHECK needs it: read from a `prevResult` of any version, to which later
/// plugins of the chain may have added interfaces and addresses of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The pod's MAC, if it was reported.
    pub pod_mac: Option<Mac>,
    /// The names of the interfaces on the host.
    pub host_devices: Vec<String>,
    /// The addresses on the pod's device, without their prefix lengths.
    pub addresses: Vec<IpAddr>,
}

/// Reads a `prevResult` for the pod's device `pod_device`. Errors say in words what is missing or unreadable.
pub fn previous(prev_result: &Value, pod_device: &str) -> Result<Previous, String> {
    let interfaces = list(prev_result, "interfaces")?;
    let in_pod = |interface: &Value| text(interface, "sandbox").is_some_and(|sandbox| !sandbox.is_empty());
    let index = interfaces
        .iter()
        .position(|interface| in_pod(interface) && text(interface, "name") == Some(pod_device))
        .ok_or_else(|| format!("prevResult has no interface {pod_device:?} with a sandbox"))?;
    let on_pod = |ip: &&Value| ip.get("interface").and_then(Value::as_u64) == Some(index as u64);
    Ok(Previous {
        pod_mac: text(&interfaces[index], "mac").and_then(|mac| Mac::try_from(mac.to_owned()).ok()),
        host_devices: interfaces
            .iter()
            .filter(|interface| !in_pod(interface))
            .filter_map(|interface| text(interface, "name").map(str::to_owned))
            .collect(),
        addresses: list(prev_result, "ips")?.iter().filter(on_pod).map(address).collect::<Result<_, _>>()?,
    })
}

fn address(ip: &Value) -> Result<IpAddr, String> {
    let cidr = text(ip, "address").ok_or("an entry of prevResult.ips has no address")?;
    let address = cidr.split('/').next().unwrap_or(cidr);
    address.parse().map_err(|_| format!("prevResult.ips: {cidr:?} is no address"))
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
mod tests {
    use super::*;

    fn attached() -> Attached {
        Attached {
            host_device: "calic440f455693".to_owned(),
            host_mac: Mac([0xee; 6]),
            pod_device: "eth0".to_owned(),
            pod_mac: Mac([0x02, 0, 0, 0, 0, 0x0a]),
            mtu: 1480,
            addresses: vec!["192.168.171.65".parse().unwrap(), "fd00::41".parse().unwrap()],
        }
    }

    /// `MANX_BLESS=1` rewrites the files.
    #[test]
    fn each_version_has_its_own_words_for_a_result() {
        for version in CniVersion::ALL {
            let rendered = render(version, &attached(), "/run/netns/pod");
            let path = format!("{}/testdata/result-{version}.json", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("MANX_BLESS").is_some() {
                std::fs::write(&path, format!("{rendered:#}\n")).unwrap();
            }
            let golden: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(rendered, golden, "{path}");
        }
    }

    #[test]
    fn a_result_of_any_version_is_read_back_as_the_previous_one() {
        for version in CniVersion::ALL {
            let expected = Previous {
                pod_mac: Some(attached().pod_mac),
                host_devices: vec![attached().host_device],
                addresses: attached().addresses,
            };
            assert_eq!(previous(&render(version, &attached(), "/run/netns/pod"), "eth0"), Ok(expected));
        }
    }

    #[test]
    fn what_later_plugins_added_to_a_result_is_not_taken_for_the_pods() {
        let mut result = render(CniVersion::LATEST, &attached(), "/run/netns/pod");
        result["ips"][0]["interface"] = json!(0);
        let read = previous(&result, "eth0").unwrap();
        assert_eq!(read.addresses, [attached().addresses[1]]);
    }

    #[test]
    fn a_previous_result_that_cannot_be_used_is_named() {
        for (result, complaint) in [
            (json!({}), "interfaces"),
            (json!({ "interfaces": [] }), "\"eth0\""),
            (json!({ "interfaces": [{ "name": "eth0", "sandbox": "/n" }] }), "ips"),
            (
                json!({ "interfaces": [{ "name": "eth0", "sandbox": "/n" }], "ips": [{ "interface": 0 }] }),
                "address",
            ),
        ] {
            let error = previous(&result, "eth0").unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
