//! Results of earlier plugins, of every version, and some that are none.

use super::*;
use crate::result::render;
use crate::{Attached, Mac};

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

fn rendered(version: CniVersion) -> Value {
    render(version, &attached(), "/run/netns/pod", None)
}

#[test]
fn a_result_of_any_version_is_read_back_as_the_previous_one() {
    for version in CniVersion::ALL {
        let expected =
            Previous { host_devices: vec![attached().host_device], addresses: attached().addresses };
        assert_eq!(Previous::read(&rendered(version), "eth0"), Ok(expected));
    }
}

#[test]
fn what_later_plugins_added_to_a_result_is_not_taken_for_the_pods() {
    let mut result = rendered(CniVersion::LATEST);
    result["ips"][0]["interface"] = json!(0);
    assert_eq!(Previous::read(&result, "eth0").unwrap().addresses, [attached().addresses[1]]);
}

#[test]
fn a_previous_result_that_cannot_be_used_is_named() {
    for (result, complaint) in [
        (json!({}), "interfaces"),
        (json!([]), "interfaces"),
        (json!({ "interfaces": [] }), "\"eth0\""),
        (json!({ "interfaces": [{ "name": "eth0", "sandbox": "/n" }] }), "ips"),
        (
            json!({ "interfaces": [{ "name": "eth0", "sandbox": "/n" }], "ips": [{ "interface": 0 }] }),
            "address",
        ),
    ] {
        let error = Previous::read(&result, "eth0").unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn a_result_is_the_same_whether_it_was_written_in_a_version_or_converted_to_it() {
    for from in CniVersion::ALL {
        for to in CniVersion::ALL {
            let mut expected = rendered(to);
            if from < CniVersion::V1_0_0 {
                expected["dns"] = json!({});
            }
            let mut converted = convert(&rendered(from), to, "net1").unwrap();
            // An older result does not tell the MTU.
            for interface in 0..2 {
                for result in [&mut converted, &mut expected] {
                    result["interfaces"][interface].as_object_mut().unwrap().remove("mtu");
                }
            }
            assert_eq!(converted, expected, "{from} to {to}");
        }
    }
}

#[test]
fn what_an_older_version_has_no_words_for_is_left_out() {
    let result = json!({
        "cniVersion": "1.1.0", "interfaces": [{ "name": "vhost", "mtu": 9000, "socketPath": "/s", "pciID": "0000:00" }],
        "routes": [{ "dst": "10.0.0.0/8", "gw": "10.1.0.1", "mtu": 1, "advmss": 2, "priority": 3, "table": 4, "scope": 0 }],
        "ips": null,
    });
    let older = convert(&result, CniVersion::V1_0_0, "eth0").unwrap();
    assert_eq!(older["interfaces"], json!([{ "name": "vhost" }]));
    assert_eq!(older["routes"], json!([{ "dst": "10.0.0.0/8", "gw": "10.1.0.1" }]));
    assert_eq!(older["ips"], json!([]));
    let same = convert(&result, CniVersion::V1_1_0, "eth0").unwrap();
    assert_eq!((&same["interfaces"], &same["routes"]), (&result["interfaces"], &result["routes"]));
}

#[test]
fn a_result_to_which_nothing_can_be_added_is_refused() {
    for (result, complaint) in [
        (json!("text"), "no object"),
        (json!({ "ips": {} }), "prevResult.ips is no list"),
        (json!({ "interfaces": ["eth0"] }), "prevResult.interfaces is no list of objects"),
        (json!({ "ips": [{ "address": "10.0.0.1" }] }), "\"10.0.0.1\" is no CIDR"),
        (rendered(CniVersion::LATEST), "\"eth0\" in the pod already"),
    ] {
        let error = convert(&result, CniVersion::LATEST, "eth0").unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
}
