//! Every version of the specification: what is spoken, what a result looks like, and results that come before ours.

use serde_json::{Value, json};

use crate::runtime::{Runtime, cluster};

const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn a_result_has_the_shape_of_its_version_and_the_library_reads_it_back_for_check() {
    let cluster = cluster();
    for (index, version) in VERSIONS.into_iter().enumerate() {
        let runtime = Runtime::new(cluster.lab()).version(version);
        let pod = runtime.sandbox(&format!("pod{index}"));
        let result = runtime.call("ADD", &pod).ok().unwrap();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"].as_array().map(Vec::len), Some(2), "{result}");
        assert!(result["interfaces"][0]["name"].as_str().unwrap().starts_with("cali"), "{result}");
        assert_eq!(result["interfaces"][0]["mac"], "ee:ee:ee:ee:ee:ee");
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(result["interfaces"][1]["sandbox"], json!(pod.netns));
        let mtu = if version == "1.1.0" { json!(1480) } else { Value::Null };
        assert_eq!(result["interfaces"][1]["mtu"], mtu, "{version}");
        let ip = &result["ips"][0];
        assert_eq!(ip["interface"], 1);
        assert!(ip["address"].as_str().unwrap().ends_with("/32"), "{ip}");
        assert_eq!(ip["gateway"], Value::Null);
        let family = if version < "1.0.0" { json!("4") } else { Value::Null };
        assert_eq!(ip["version"], family, "{version}");

        assert_eq!(runtime.call("CACHED", &pod).ok().unwrap(), result);
        let check = runtime.call("CHECK", &pod);
        match version {
            "0.3.1" => {
                assert_eq!(check.code(), Some(0), "the library does not ask plugins of 0.3.1: {check:?}");
            }
            _ => drop(check.ok().unwrap()),
        }
        runtime.call("DEL", &pod).ok().unwrap();
    }
}

#[test]
fn the_library_and_the_plugin_agree_on_the_newest_version_that_both_speak() {
    let cluster = cluster();
    let mut runtime = Runtime::new(cluster.lab());
    runtime.list["cniVersions"] = json!(VERSIONS);
    let said = runtime.network("VERSION");
    assert_eq!(said.field("versions")["manx-cni"], json!(VERSIONS));
    assert_eq!(said.field("listVersion"), "1.1.0");
    for version in VERSIONS {
        let runtime = Runtime::new(cluster.lab()).version(version);
        runtime.network("VALIDATE").ok().unwrap();
        let chained =
            runtime.chained(&[json!({ "type": "portmap", "capabilities": { "portMappings": true } })]);
        assert_eq!(
            chained.network("VALIDATE").code().is_some(),
            version == "1.1.0",
            "Debian's speaks up to 1.0.0"
        );
    }
    let old = Runtime::new(cluster.lab()).version("0.2.0");
    let answer = old.call("ADD", &old.sandbox("old"));
    assert_eq!(answer.code(), Some(1), "{answer:?}");
}

#[test]
fn what_a_plugin_before_us_reported_stays_in_the_result_of_every_version() {
    let cluster = cluster();
    for (index, version) in ["0.3.1", "0.4.0", "1.0.0"].into_iter().enumerate() {
        let mut runtime = Runtime::new(cluster.lab()).version(version);
        runtime.list["plugins"].as_array_mut().unwrap().insert(0, json!({ "type": "loopback" }));
        let pod = runtime.sandbox(&format!("pod{index}"));
        let result = runtime.call("ADD", &pod).ok().unwrap();
        let names: Vec<&Value> =
            result["interfaces"].as_array().unwrap().iter().map(|interface| &interface["name"]).collect();
        assert_eq!((names.len(), names[0], names[2]), (3, &json!("lo"), &json!("eth0")), "{result}");
        let ours = result["ips"].as_array().unwrap().last().unwrap();
        assert_eq!(ours["interface"], 2, "{result}");
        if version != "0.3.1" {
            runtime.call("CHECK", &pod).ok().unwrap();
        }
        runtime.call("DEL", &pod).ok().unwrap();
    }
}
