//! Configurations as operators write them, good and bad.

use serde_json::json;

use super::*;

fn conf(key: &str, value: Value) -> Value {
    let mut conf = json!({ "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "manx-cni" });
    conf[key] = value;
    conf
}

#[test]
fn a_small_configuration_gets_the_defaults() {
    let conf = Conf::from_value(&conf("mtu", json!(0))).unwrap();
    assert_eq!(conf.mtu, None);
    assert_eq!(conf.socket, PathBuf::from(DEFAULT_SOCKET));
    assert_eq!(conf.spool, PathBuf::from(DEFAULT_SPOOL));
    assert!(conf.ipam.assign_ipv4 && !conf.ipam.assign_ipv6);
}

#[test]
fn the_configuration_of_a_calico_cluster_is_read_as_it_is() {
    let conf = Conf::from_value(&json!({
        "cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "calico", "log_level": "info",
        "log_file_path": "/var/log/calico/cni/cni.log", "datastore_type": "kubernetes", "nodename": "node1",
        "mtu": 1440, "policy": { "type": "k8s" }, "kubernetes": { "kubeconfig": "/etc/cni/net.d/calico-kubeconfig" },
        "ipam": { "type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "false",
                  "ipv4_pools": ["10.0.0.0/24", "default-ipv4-ippool"] },
        "container_settings": { "allow_ip_forwarding": true },
        "feature_control": { "ip_addrs_no_ipam": true }, "readiness_gates": [], "policy_setup_timeout_seconds": 5
    }))
    .unwrap();
    assert_eq!(conf.version, CniVersion::V0_3_1);
    assert_eq!(conf.mtu, Some(1440));
    assert_eq!(conf.ipam.ipv4_pools, ["10.0.0.0/24", "default-ipv4-ippool"]);
    assert!(conf.allow_ip_forwarding);
}

#[test]
fn a_value_that_cannot_be_used_is_named_with_its_key() {
    for (key, value, complaint) in [
        ("name", json!(""), "name is missing"),
        ("name", json!(7), "name is 7; it must be a string"),
        ("name", json!("-x"), "\"-x\""),
        ("name", json!("a@b"), "\"a@b\""),
        ("name", json!("n".repeat(97)), "at most 96"),
        ("mtu", json!("1500"), "mtu is \"1500\"; it must be a whole number"),
        ("mtu", json!(67), "at least 68"),
        ("mtu", json!(65536), "65535"),
        ("mtu", json!(-1), "mtu is -1"),
        ("ipam", json!("host-local"), "ipam is \"host-local\"; it must be an object"),
        ("ipam", json!({ "type": "host-local" }), "ipam.type is \"host-local\""),
        ("ipam", json!({ "ipv4_pools": [1] }), "ipam.ipv4_pools is [1]; it must be a list of strings"),
        ("ipam", json!({ "assign_ipv4": "yes" }), "ipam.assign_ipv4 is \"yes\"; it must be true or false"),
        ("container_settings", json!({ "allow_ip_forwarding": 1 }), "container_settings.allow_ip_forwarding"),
        ("socket", json!("cni.sock"), "socket is \"cni.sock\"; it must be an absolute path"),
        ("socket", json!(format!("/{}", "s".repeat(107))), "108 octets"),
        ("spool", json!("/a\0b"), "spool"),
        ("timeout_seconds", json!(0), "timeout_seconds is 0"),
    ] {
        let error = Conf::from_value(&conf(key, value)).unwrap_err();
        assert_eq!(error.code, Code::CONFIG, "{key}");
        assert!(error.details.contains(complaint), "{key}: {}", error.details);
    }
}

#[test]
fn a_version_that_is_missing_or_not_ours_is_refused_with_the_list_of_ours() {
    for version in [json!(null), json!("0.2.0"), json!("0.3.0"), json!("2.0.0"), json!("")] {
        let error = Conf::version(&conf("cniVersion", version)).unwrap_err();
        assert_eq!(error.code, Code::INCOMPATIBLE_VERSION);
        assert!(error.details.contains("0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{}", error.details);
    }
}

#[test]
fn a_missing_list_of_valid_attachments_is_not_an_empty_one() {
    const KEY: &str = "cni.dev/valid-attachments";
    assert_eq!(valid_attachments(&conf(KEY, json!(null))), Ok(Vec::new()));
    assert_eq!(valid_attachments(&conf("mtu", json!(1))).unwrap_err().code, Code::CONFIG);
    assert_eq!(valid_attachments(&conf(KEY, json!([{ "ifname": "eth0" }]))).unwrap_err().code, Code::CONFIG);
    let listed = valid_attachments(&conf(KEY, json!([{ "containerID": "c", "ifname": "eth0" }]))).unwrap();
    assert_eq!(listed, [Attachment { container_id: "c".to_owned(), pod_device: "eth0".to_owned() }]);
}
