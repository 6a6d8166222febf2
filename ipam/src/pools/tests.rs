use manx_model::{Kind, Object};
use serde_json::{Value, json};

use super::*;

fn pool(name: &str, mut spec: Value, cidr: &str) -> IpPool {
    spec["cidr"] = cidr.into();
    IpPool::from_object(&Object::new(Kind::IPPool, name, &spec)).unwrap()
}

fn pools() -> Vec<IpPool> {
    vec![
        pool("any", json!({}), "10.0.0.0/16"),
        pool("off", json!({"disabled": true}), "10.1.0.0/16"),
        pool("manual", json!({"assignmentMode": "Manual"}), "10.2.0.0/16"),
        pool("rack-1", json!({"nodeSelector": "rack == '1'"}), "10.3.0.0/16"),
        pool("blue", json!({"namespaceSelector": "team == 'blue'"}), "10.4.0.0/16"),
        pool("tunnel", json!({"allowedUses": ["Tunnel"]}), "10.5.0.0/16"),
        pool("six", json!({}), "fd00::/64"),
    ]
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn names(node: &[(&str, &str)], family: Family, request: &AssignRequest) -> Result<Vec<String>, String> {
    let (pools, config, node) = (pools(), Default::default(), labels(node));
    let rules = Rules { pools: &pools, reserved: &[], config: &config, node_labels: &node };
    choose(rules, &"n1".parse().unwrap(), request, family)
        .map(|chosen| chosen.into_iter().map(|index| pools[index].name.clone()).collect())
        .map_err(|error| error.to_string())
}

fn from(named: &[&str]) -> AssignRequest {
    let mut request = AssignRequest::ipv4("h", BTreeMap::new());
    request.ipv4.pools = named.iter().map(|&name| name.to_owned()).collect();
    request
}

#[test]
fn a_pod_takes_its_address_from_the_pools_that_select_its_node_and_namespace() {
    let mut request = from(&[]);
    assert_eq!(names(&[], Family::V4, &request).unwrap(), ["any"]);
    assert_eq!(names(&[("rack", "1")], Family::V4, &request).unwrap(), ["any", "rack-1"]);
    request.namespace_labels = Some(labels(&[("team", "blue")]));
    assert_eq!(names(&[], Family::V4, &request).unwrap(), ["any", "blue"]);
    assert_eq!(names(&[], Family::V6, &request).unwrap(), ["six"]);
    request.usage = AllowedUse::Tunnel;
    request.namespace_labels = None;
    assert_eq!(names(&[], Family::V4, &request).unwrap(), ["any", "tunnel"]);
}

#[test]
fn named_pools_are_used_whatever_they_select_in_the_order_in_which_they_are_named() {
    let request = from(&["10.4.0.0/16", "rack-1", "manual"]);
    assert_eq!(names(&[], Family::V4, &request).unwrap(), ["blue", "rack-1", "manual"]);
}

#[test]
fn a_named_pool_that_cannot_be_used_is_an_error_and_not_another_pool() {
    for (name, reason) in [
        ("off", "the request names IPPool \"off\", which is disabled"),
        ("six", "fd00::/64, for an IPv4 address"),
        ("missing", "there is no such IPPool"),
        ("10.9.0.0/16", "there is no such IPPool"),
        ("tunnel", "allowedUses do not contain Workload"),
    ] {
        let error = names(&[], Family::V4, &from(&["any", name])).unwrap_err();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn where_no_pool_is_left_each_one_is_named_with_its_reason() {
    let mut request = from(&[]);
    request.usage = AllowedUse::LoadBalancer;
    let error = names(&[], Family::V4, &request).unwrap_err();
    for reason in [
        "no IPPool gives IPv4 addresses to this request on node n1",
        "any: its allowedUses do not contain LoadBalancer",
        "off: is disabled",
        "manual: has assignmentMode Manual",
        "rack-1: its nodeSelector does not select the node",
        "blue: its namespaceSelector does not select the namespace",
        "six: is not IPv4",
    ] {
        assert!(error.contains(reason), "{reason}: {error}");
    }
}
