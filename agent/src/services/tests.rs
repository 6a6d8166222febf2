use manx_model::{Kind, Object};
use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct World {
    bgp: BgpConfigurationSpec,
    services: BTreeMap<String, Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    excluded: bool,
}

/// The ranges 10.96.0.0/12 and fd96::/108 of services, 192.0.2.0/24 outside, 203.0.113.0/24 and 2001:db8::/64 of load
/// balancers.
fn world() -> World {
    let mut world = World::default();
    world.configure(json!({}));
    world
}

impl World {
    fn configure(&mut self, more: Value) {
        let mut spec = json!({
            "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}, {"cidr": "fd96::/108"}],
            "serviceExternalIPs": [{"cidr": "192.0.2.0/24"}],
            "serviceLoadBalancerIPs": [{"cidr": "203.0.113.0/24"}, {"cidr": "2001:db8::/64"}],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object = Object::new(Kind::BGPConfiguration, "default", &spec);
        self.bgp = BgpConfigurationSpec::from_object(&object).0;
    }

    fn service(&mut self, name: &str, spec: Value, load_balancers: &[&str]) {
        let mut object = Object::new_in(Kind::Service, "ns", name, &spec);
        let ingress: Vec<Value> = load_balancers.iter().map(|ip| json!({"ip": ip})).collect();
        object.rest.insert("status".into(), json!({"loadBalancer": {"ingress": ingress}}));
        self.services.insert(object.key(), Arc::new(Service::from_object(&object).unwrap()));
    }

    /// A pod of the service, on a node.
    fn pod(&mut self, service: &str, family: &str, node: &str, conditions: Value) {
        let name = format!("{service}-{}", self.slices.len());
        let mut object = Object::new_in(Kind::EndpointSlice, "ns", &name, &Value::Null);
        object.metadata.labels.insert("kubernetes.io/service-name".into(), service.into());
        object.rest.insert("addressType".into(), family.into());
        object.rest.insert("endpoints".into(), json!([{"nodeName": node, "conditions": conditions}]));
        self.slices.insert(object.key(), Arc::new(EndpointSlice::from_object(&object).unwrap().unwrap()));
    }

    fn at(&self, node: &str) -> Announced {
        announced(&Facts {
            node: &node.parse().unwrap(),
            excluded: self.excluded,
            bgp: &self.bgp,
            services: &self.services,
            slices: &self.slices,
        })
    }

    /// The single addresses that a node announces.
    fn singles(&self, node: &str) -> Vec<String> {
        let single = |prefix: &&IpNet| prefix.prefix_len() == prefix.max_prefix_len();
        self.at(node).keys().filter(single).map(|prefix| prefix.addr().to_string()).collect()
    }
}

#[test]
fn every_node_announces_the_ranges_and_one_that_is_excluded_none() {
    let mut world = world();
    let prefixes: Vec<String> = world.at("a").keys().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.96.0.0/12", "192.0.2.0/24", "203.0.113.0/24", "2001:db8::/64", "fd96::/108"]);
    assert_eq!(ranges(&world.bgp).len(), 5);
    world.service("s", json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local"}), &[]);
    world.pod("s", "IPv4", "a", json!({}));
    world.excluded = true;
    assert_eq!(world.at("a"), Announced::new());
}

#[test]
fn without_ranges_nothing_is_announced() {
    let mut world = world();
    world.bgp = BgpConfigurationSpec::default();
    world.service("s", json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local"}), &["203.0.113.1"]);
    world.pod("s", "IPv4", "a", json!({}));
    assert_eq!(world.at("a"), Announced::new());
}

#[test]
fn a_service_that_wants_its_traffic_where_its_pods_are_is_announced_there_alone() {
    let mut world = world();
    let spec =
        json!({"clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"});
    world.service("s", spec, &["203.0.113.1"]);
    world.pod("s", "IPv4", "a", json!({"ready": true}));
    assert_eq!(world.singles("a"), ["10.96.0.1", "192.0.2.1", "203.0.113.1"]);
    assert_eq!(world.singles("b"), [""; 0]);
    let reasons = &world.at("a")[&"203.0.113.1/32".parse().unwrap()];
    assert_eq!(reasons.first().unwrap().to_string(), "a pod of Service ns/s is here");
}

#[test]
fn a_pod_counts_as_long_as_it_is_ready_or_nobody_says_that_it_is_not() {
    for (conditions, counts) in [
        (json!({}), true),
        (json!({"ready": null}), true),
        (json!({"ready": true}), true),
        (json!({"ready": false}), false),
        (json!({"ready": false, "serving": true, "terminating": true}), false),
        (json!({"ready": true, "serving": true, "terminating": true}), true),
        (json!({"ready": true, "serving": false, "terminating": true}), false),
    ] {
        let mut world = world();
        world.service("s", json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local"}), &[]);
        world.pod("s", "IPv4", "a", conditions.clone());
        assert_eq!(world.singles("a").len(), usize::from(counts), "{conditions}");
    }
}

#[test]
fn a_service_of_any_node_is_covered_by_the_ranges() {
    let mut world = world();
    let spec =
        json!({"clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Cluster"});
    world.service("s", spec, &["203.0.113.1"]);
    world.pod("s", "IPv4", "a", json!({}));
    assert_eq!(world.singles("a"), [""; 0]);
}

#[test]
fn an_address_outside_every_range_is_not_announced() {
    let mut world = world();
    let spec =
        json!({"clusterIP": "10.250.0.1", "externalIPs": ["8.8.8.8"], "externalTrafficPolicy": "Local"});
    world.service("s", spec, &["10.96.0.1", "192.0.2.1"]);
    world.pod("s", "IPv4", "a", json!({}));
    assert_eq!(world.singles("a"), [""; 0]);
}

#[test]
fn a_load_balancer_that_is_listed_alone_is_announced_while_a_service_has_it() {
    let mut world = world();
    world.configure(json!({"serviceLoadBalancerIPs": [{"cidr": "203.0.113.7/32"}]}));
    assert_eq!(world.singles("a"), [""; 0]);
    world.service("s", json!({"clusterIP": "10.96.0.1"}), &["203.0.113.7"]);
    assert_eq!(world.singles("a"), ["203.0.113.7"]);
    let spec = json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local"});
    world.service("s", spec, &["203.0.113.7"]);
    assert_eq!(world.singles("a"), [""; 0]);
    world.pod("s", "IPv4", "a", json!({}));
    assert_eq!(world.singles("a"), ["10.96.0.1", "203.0.113.7"]);
}

#[test]
fn load_balancers_that_are_not_aggregated_are_announced_one_by_one_while_they_have_pods() {
    let mut world = world();
    world.configure(json!({"serviceLoadBalancerAggregation": "Disabled"}));
    assert!(!world.at("a").contains_key(&"203.0.113.0/24".parse().unwrap()));
    world.service("s", json!({"clusterIP": "10.96.0.1"}), &["203.0.113.7"]);
    assert_eq!(world.singles("a"), [""; 0]);
    world.pod("s", "IPv4", "b", json!({}));
    assert_eq!(world.singles("a"), ["203.0.113.7"]);
    world.service("s", json!({"clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local"}), &["203.0.113.7"]);
    assert_eq!((world.singles("a").len(), world.singles("b").len()), (0, 2));
}

#[test]
fn of_two_families_each_is_announced_where_its_own_pods_are() {
    let mut world = world();
    let spec = json!({"clusterIPs": ["10.96.0.1", "fd96::1"], "externalTrafficPolicy": "Local"});
    world.service("s", spec, &["203.0.113.1", "2001:db8::1"]);
    world.pod("s", "IPv4", "a", json!({}));
    world.pod("s", "IPv6", "b", json!({}));
    assert_eq!(world.singles("a"), ["10.96.0.1", "203.0.113.1"]);
    assert_eq!(world.singles("b"), ["2001:db8::1", "fd96::1"]);
}

#[test]
fn what_two_services_share_is_announced_until_neither_has_it() {
    let mut world = world();
    for name in ["s", "t"] {
        let cluster_ip = if name == "s" { "10.96.0.1" } else { "10.96.0.2" };
        let spec =
            json!({"clusterIP": cluster_ip, "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"});
        world.service(name, spec, &[]);
        world.pod(name, "IPv4", "a", json!({}));
    }
    assert_eq!(world.at("a")[&"192.0.2.1/32".parse().unwrap()].len(), 2);
    world.services.remove("ns/s");
    assert_eq!(world.singles("a"), ["10.96.0.2", "192.0.2.1"]);
    world.services.remove("ns/t");
    assert_eq!(world.singles("a"), [""; 0]);
}

#[test]
fn a_headless_service_and_a_mere_name_are_not_announced() {
    for spec in [
        json!({"clusterIP": "None", "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"}),
        json!({"type": "ExternalName", "clusterIP": "10.96.0.1", "externalTrafficPolicy": "Local"}),
    ] {
        let mut world = world();
        world.service("s", spec.clone(), &[]);
        world.pod("s", "IPv4", "a", json!({}));
        assert_eq!(world.singles("a"), [""; 0], "{spec}");
    }
}

#[test]
fn a_range_of_all_addresses_allows_them_and_is_not_announced_itself() {
    let mut world = world();
    world.configure(json!({"serviceExternalIPs": [{"cidr": "0.0.0.0/0"}]}));
    assert!(!world.at("a").contains_key(&"0.0.0.0/0".parse().unwrap()));
    assert!(!ranges(&world.bgp).contains(&"0.0.0.0/0".parse().unwrap()));
    let spec =
        json!({"clusterIP": "10.96.0.1", "externalIPs": ["8.8.8.8"], "externalTrafficPolicy": "Local"});
    world.service("s", spec, &[]);
    world.pod("s", "IPv4", "a", json!({}));
    assert_eq!(world.singles("a"), ["8.8.8.8", "10.96.0.1"]);
    let complaints = complaints(&world.bgp);
    assert!(complaints[0].to_string().contains("spec.serviceExternalIPs: a range of all"), "{complaints:?}");
}
