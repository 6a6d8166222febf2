use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::Kind;

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

#[test]
fn fields_that_do_not_go_together_are_refused_by_the_one_that_is_too_much() {
    let v4 = json!({"cidr": "10.0.0.0/16"});
    for (more, field, words) in [
        (json!({"vxlanMode": "vxlan"}), "vxlanMode", "none of Always"),
        (json!({"ipipMode": "Always", "vxlanMode": "CrossSubnet"}), "vxlanMode", "only one"),
        (json!({"nodeSelector": "zone ="}), "nodeSelector", "at character 6"),
        (json!({"nodeSelector": "global()"}), "nodeSelector", "global()"),
        (json!({"namespaceSelector": "!global()"}), "namespaceSelector", "global()"),
        (json!({"namespaceSelector": "has(a)", "allowedUses": ["Tunnel"]}), "namespaceSelector", "tunnel"),
        (json!({"allowedUses": ["Workloads"]}), "allowedUses", "none of Workload"),
        (json!({"allowedUses": "Workload"}), "allowedUses", "expected a sequence"),
        (json!({"allowedUses": ["LoadBalancer", "Workload"]}), "allowedUses", "no other use"),
        (json!({"allowedUses": ["LoadBalancer"], "nodeSelector": "has(a)"}), "nodeSelector", "all()"),
        (
            json!({"allowedUses": ["LoadBalancer"], "namespaceSelector": "has(a)"}),
            "namespaceSelector",
            "empty",
        ),
        (json!({"allowedUses": ["LoadBalancer"], "ipipMode": "Always"}), "ipipMode", "Never"),
        (json!({"allowedUses": ["LoadBalancer"], "vxlanMode": "Always"}), "vxlanMode", "Never"),
        (json!({"allowedUses": ["LoadBalancer"], "disableBGPExport": true}), "disableBGPExport", "false"),
        (json!({"assignmentMode": "manual"}), "assignmentMode", "Automatic, Manual"),
        (json!({"disabled": "yes"}), "disabled", "expected a boolean"),
    ] {
        let mut spec = v4.as_object().unwrap().clone();
        spec.extend(more.as_object().unwrap().clone());
        let error = read(Value::Object(spec)).unwrap_err();
        assert!(error.starts_with(&format!("IPPool p: spec.{field}: ")), "{more}: {error}");
        assert!(error.contains(words), "{more}: {error}");
    }
}

#[test]
fn a_pools_fields_are_read_as_calico_writes_them() {
    let pool = read(json!({
        "cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Never", "nodeSelector": "zone == 'a'",
        "namespaceSelector": "has(team)", "allowedUses": ["Workload"], "assignmentMode": "Manual",
        "disableBGPExport": true, "disabled": true,
    }))
    .unwrap();
    assert_eq!(pool.node_selector.to_string(), "zone == \"a\"");
    assert_eq!(pool.allowed_uses, [AllowedUse::Workload].into());
    assert_eq!((pool.assignment, pool.disable_bgp_export), (AssignmentMode::Manual, true));
}

#[test]
fn a_pool_is_for_workloads_and_tunnels_unless_it_says_otherwise_or_selects_by_namespace() {
    for (spec, tunnel) in [
        (json!({"cidr": "10.0.0.0/16"}), true),
        (json!({"cidr": "10.0.0.0/16", "allowedUses": []}), true),
        (json!({"cidr": "10.0.0.0/16", "namespaceSelector": ""}), true),
        (json!({"cidr": "10.0.0.0/16", "namespaceSelector": "has(team)"}), false),
    ] {
        let pool = read(spec.clone()).unwrap();
        assert_eq!(
            (pool.allows(AllowedUse::Workload), pool.allows(AllowedUse::Tunnel)),
            (true, tunnel),
            "{spec}"
        );
    }
}

#[test]
fn a_pool_selects_by_the_labels_of_the_node_and_of_the_namespace() {
    let labels = |key: &str| BTreeMap::from([(key.to_owned(), String::new())]);
    let pool = read(json!({"cidr": "10.0.0.0/16", "nodeSelector": "has(a)", "namespaceSelector": "has(b)"}))
        .unwrap();
    assert!(pool.selects(&labels("a"), Some(&labels("b"))));
    assert!(!pool.selects(&labels("b"), Some(&labels("b"))));
    assert!(!pool.selects(&labels("a"), Some(&labels("a"))));
    assert!(!pool.selects(&labels("a"), None));
}
