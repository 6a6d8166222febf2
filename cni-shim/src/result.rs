//! The result of ADD in the words of each version of the specification (section 5, "ADD Success").
//!
//! What Calico's plugin prints, and a Calico user's tools expect: the host's veth first and the pod's second, each
//! address /32 or /128 on interface 1, no gateway (169.254.1.1 is no address of the subnet), no routes (the runtime has
//! none to add), and before 1.0.0 an empty `dns`.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::{Attached, CniVersion, Mac};

/// `attached` as the specification's `version` writes it; `sandbox` is `CNI_NETNS` as the runtime gave it. The result
/// of plugins `before` us comes first, in the words of the same version ([`crate::previous::convert`]).
pub fn render(version: CniVersion, attached: &Attached, sandbox: &str, before: Option<Value>) -> Value {
    let mut result = before.unwrap_or_else(|| empty(version));
    let host = interface(version, &attached.host_device, attached.host_mac, attached.mtu);
    let mut pod = interface(version, &attached.pod_device, attached.pod_mac, attached.mtu);
    pod.insert("sandbox".to_owned(), json!(sandbox));
    let interfaces = append(&mut result, "interfaces", [Value::from(host), Value::from(pod)]);
    let index = interfaces - 1;
    append(&mut result, "ips", attached.addresses.iter().map(|address| ip(version, *address, index)));
    result
}

fn empty(version: CniVersion) -> Value {
    let mut result = json!({ "cniVersion": version.as_str() });
    if version < CniVersion::V1_0_0 {
        result["dns"] = json!({});
    }
    result
}

/// Puts `more` at the end of the list under `key`; its new length.
fn append(result: &mut Value, key: &str, more: impl IntoIterator<Item = Value>) -> usize {
    let mut list = match result[key].take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    list.extend(more);
    let length = list.len();
    result[key] = Value::Array(list);
    length
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

fn ip(version: CniVersion, address: IpAddr, interface: usize) -> Value {
    let (family, bits) = if address.is_ipv4() { ("4", 32) } else { ("6", 128) };
    let mut ip = json!({ "address": format!("{address}/{bits}"), "interface": interface });
    if version < CniVersion::V1_0_0 {
        ip["version"] = json!(family);
    }
    ip
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
            let rendered = render(version, &attached(), "/run/netns/pod", None);
            let path = format!("{}/testdata/result-{version}.json", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("MANX_BLESS").is_some() {
                std::fs::write(&path, format!("{rendered:#}\n")).unwrap();
            }
            let golden: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(rendered, golden, "{path}");
        }
    }

    #[test]
    fn what_plugins_before_us_made_comes_first_and_keeps_its_places() {
        let before = json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "dummy0", "sandbox": "/n" }],
            "ips": [{ "address": "10.0.0.1/24", "interface": 0 }], "routes": [], "dns": { "domain": "x" } });
        let result = render(CniVersion::V1_0_0, &attached(), "/n", Some(before));
        let names: Vec<&Value> =
            result["interfaces"].as_array().unwrap().iter().map(|interface| &interface["name"]).collect();
        assert_eq!(names, ["dummy0", "calic440f455693", "eth0"]);
        let indices: Vec<&Value> =
            result["ips"].as_array().unwrap().iter().map(|ip| &ip["interface"]).collect();
        assert_eq!(indices, [0, 2, 2]);
        assert_eq!(result["dns"]["domain"], "x");
    }
}
