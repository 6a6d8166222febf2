//! Configurations as operators write them, good and bad.

use serde_json::json;

use super::*;
use crate::Mac;
use crate::settings::{Bandwidth, Features, Ipam, PodRoutes, Settings, Source, Wishes};

fn conf(key: &str, value: Value) -> Value {
    let mut conf = json!({ "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "manx-cni" });
    conf[key] = value;
    conf
}

#[test]
fn a_small_configuration_gets_the_defaults() {
    let conf = conf("mtu", json!(0));
    let read = Conf::from_value(&conf).unwrap();
    assert_eq!((read.socket, read.spool), (DEFAULT_SOCKET.into(), DEFAULT_SPOOL.into()));
    assert_eq!(settings(&conf), Ok(Settings::default()));
    assert_eq!(wishes(&conf), Ok(Wishes::default()));
}

/// What the installer of a Calico cluster writes, and every key that a user may have added.
fn calico() -> Value {
    json!({
        "cniVersion": "0.3.1", "name": "k8s-pod-network", "type": "calico", "log_level": "info",
        "log_file_path": "/var/log/calico/cni/cni.log", "log_file_max_size": 100, "log_file_max_age": 30,
        "log_file_max_count": 10, "datastore_type": "kubernetes", "nodename": "node1", "nodename_file": "/n",
        "nodename_file_optional": true, "mtu": 1440, "num_queues": 2, "ipam_lock_file": "/l",
        "policy": { "type": "k8s", "k8s_api_root": "" }, "calico_api_group": "crd.projectcalico.org/v1", "qps": 5,
        "burst": 10, "require_mtu_file": false, "endpoint_status_dir": "/e", "device_type": "veth",
        "dataplane_options": { "type": "" }, "include_default_routes": true, "etcd_endpoints": "",
        "kubernetes": { "kubeconfig": "/etc/cni/net.d/calico-kubeconfig", "node_name": "node1", "k8s_api_root": "" },
        "ipam": { "type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true",
                  "ipv4_pools": ["10.0.0.0/24", "default-ipv4-ippool"], "ipv6_pools": ["fd00::/64"],
                  "routes": [{ "dst": "10.0.0.0/8" }, {}] },
        "container_settings": { "allow_ip_forwarding": true },
        "feature_control": { "ip_addrs_no_ipam": true, "floating_ips": true },
        "readiness_gates": ["http://localhost:9099/readiness"], "policy_setup_timeout_seconds": 5
    })
}

#[test]
fn the_configuration_of_a_calico_cluster_is_read_as_it_is() {
    assert_eq!(Conf::from_value(&calico()).unwrap().version, CniVersion::V0_3_1);
    let expected = Settings {
        mtu: Some(1440),
        queues: Some(2),
        ipam: Ipam {
            source: Source::Blocks,
            ipv4_pools: vec!["10.0.0.0/24".to_owned(), "default-ipv4-ippool".to_owned()],
            ipv6_pools: vec!["fd00::/64".to_owned()],
            assign_ipv4: true,
            assign_ipv6: true,
        },
        routes: PodRoutes { destinations: vec!["10.0.0.0/8".parse().unwrap()], defaults_too: true },
        allow_ip_forwarding: true,
        features: Features { ip_addrs_no_ipam: true, floating_ips: true },
        readiness_gates: vec!["http://localhost:9099/readiness".to_owned()],
        policy_timeout_seconds: Some(5),
        node: Some("node1".to_owned()),
        without_effect: Vec::new(),
    };
    assert_eq!(settings(&calico()), Ok(expected));
}

#[test]
fn the_nodes_own_subnet_is_told_by_its_name_in_either_way_of_host_local() {
    let both = json!([[{ "subnet": "usePodCidr" }], [{ "subnet": "usePodCidrIPv6" }]]);
    for (ipam, assign_ipv4, assign_ipv6) in [
        (json!({ "type": "host-local", "subnet": "usePodCidr" }), true, false),
        (json!({ "type": "host-local", "subnet": "usePodCidrIPv6" }), false, true),
        (json!({ "type": "host-local", "ranges": both }), true, true),
    ] {
        let expected = Ipam { source: Source::PodCidr, assign_ipv4, assign_ipv6, ..Ipam::default() };
        assert_eq!(settings(&conf("ipam", ipam.clone())).unwrap().ipam, expected, "{ipam}");
    }
}

#[test]
fn what_the_runtime_asks_for_one_container_is_read_from_capabilities_and_arguments() {
    let mut conf = conf("args", json!({ "cni": { "ips": ["10.0.0.8"] } }));
    let address = |text: &str| vec![text.parse::<std::net::IpAddr>().unwrap()];
    assert_eq!(wishes(&conf).unwrap().addresses, address("10.0.0.8"));
    conf["runtimeConfig"] = json!({
        "ips": ["10.0.0.9/24"], "mac": "02:00:00:00:00:01", "dns": { "servers": [] },
        "bandwidth": { "ingressRate": 1000, "ingressBurst": 0, "egressRate": 2000, "egressBurst": 300 },
        "portMappings": [{ "hostPort": 80, "containerPort": 80, "protocol": "tcp" }],
    });
    let bandwidth = Bandwidth {
        ingress_rate: Some(1000),
        ingress_burst: None,
        egress_rate: Some(2000),
        egress_burst: Some(300),
    };
    let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    let expected = Wishes { addresses: address("10.0.0.9"), mac, bandwidth: Some(bandwidth) };
    assert_eq!(wishes(&conf), Ok(expected.clone()));
    assert_eq!(
        wishes(&conf).unwrap().or(Wishes { addresses: address("10.0.0.1"), ..Wishes::default() }),
        expected
    );
    assert_eq!(Wishes::default().or(expected.clone()), expected);
}

/// Whatever reads a configuration for an ADD.
fn read(conf: &Value) -> Result<(), CniError> {
    Conf::from_value(conf)?;
    settings(conf)?;
    wishes(conf).map(drop)
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
        ("num_queues", json!(1.5), "num_queues is 1.5"),
        ("ipam", json!("host-local"), "ipam is \"host-local\"; it must be an object"),
        ("ipam", json!({ "ipv4_pools": [1] }), "ipam.ipv4_pools is [1]; it must be a list of strings"),
        ("ipam", json!({ "assign_ipv4": "yes" }), "ipam.assign_ipv4 is \"yes\"; it must be true or false"),
        ("ipam", json!({ "assign_ipv4": "false" }), "both false"),
        ("ipam", json!({ "routes": [{ "dst": "10.0.0.0" }] }), "ipam.routes[0].dst is \"10.0.0.0\""),
        ("ipam", json!({ "type": "host-local", "ranges": [{}] }), "ipam.ranges is [{}]"),
        ("container_settings", json!({ "allow_ip_forwarding": 1 }), "container_settings.allow_ip_forwarding"),
        ("readiness_gates", json!("http://x"), "readiness_gates is \"http://x\"; it must be a list"),
        ("policy_setup_timeout_seconds", json!(-5), "policy_setup_timeout_seconds is -5"),
        ("runtimeConfig", json!({ "ips": ["10.0.0"] }), "runtimeConfig.ips is [\"10.0.0\"]"),
        ("runtimeConfig", json!({ "mac": "02" }), "runtimeConfig.mac is \"02\""),
        (
            "runtimeConfig",
            json!({ "bandwidth": { "egressRate": "1M" } }),
            "runtimeConfig.bandwidth.egressRate",
        ),
        ("socket", json!("cni.sock"), "socket is \"cni.sock\"; it must be an absolute path"),
        ("socket", json!(format!("/{}", "s".repeat(107))), "108 octets"),
        ("spool", json!("/a\0b"), "spool"),
        ("timeout_seconds", json!(0), "timeout_seconds is 0"),
    ] {
        let error = read(&conf(key, value)).unwrap_err();
        assert_eq!(error.code, Code::CONFIG, "{key}");
        assert!(error.details.contains(complaint), "{key}: {}", error.details);
    }
}

#[test]
fn what_manx_never_does_is_refused_by_key_and_value() {
    for (key, value, field) in [
        ("datastore_type", json!("etcdv3"), "datastore_type is \"etcdv3\""),
        ("device_type", json!("netkit"), "device_type is \"netkit\""),
        ("dataplane_options", json!({ "type": "grpc" }), "dataplane_options.type is \"grpc\""),
        ("policy", json!({ "type": "mesos" }), "policy.type is \"mesos\""),
        ("ipam", json!({ "type": "dhcp" }), "ipam.type is \"dhcp\""),
        ("ipam", json!({ "type": "host-local" }), "ipam.type is \"host-local\""),
        ("ipam", json!({ "type": "host-local", "subnet": "10.0.0.0/8" }), "ipam.subnet is \"10.0.0.0/8\""),
        (
            "ipam",
            json!({ "type": "host-local", "ranges": [[{ "subnet": "10.0.0.0/8" }]] }),
            "ipam.ranges is [[{\"subnet\":\"10.0.0.0/8\"}]]",
        ),
    ] {
        let error = read(&conf(key, value)).unwrap_err();
        assert_eq!(error.code, Code::UNSUPPORTED_FIELD, "{key}");
        assert!(error.msg.contains(field), "{key}: {}", error.msg);
    }
}

#[test]
fn what_does_no_harm_and_nothing_else_is_listed() {
    for (key, value, field) in [
        ("etcd_endpoints", json!("http://e:2379"), "etcd_endpoints"),
        ("etcd_authority", json!("e:2379"), "etcd_authority"),
        ("ipam", json!({ "ip_pools_label_selector_keys": ["zone"] }), "ipam.ip_pools_label_selector_keys"),
        ("runtimeConfig", json!({ "portMappings": [] }), "runtimeConfig.portMappings"),
    ] {
        let said = settings(&conf(key, value)).unwrap().without_effect;
        assert!(said.len() == 1 && said[0].starts_with(field), "{said:?}");
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
