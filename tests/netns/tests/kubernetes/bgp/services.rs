//! Addresses of services, as the ToR hears of them.

use manx_lab::{Cluster, Lab};
use serde_json::{Value, json};

use super::tor::wait_heard;
use super::{apply, kubectl};
use crate::support::{founding, object};

const ALL: [&str; 4] = ["node1", "node2", "node3", "node4"];
const RANGES: &str = "
apiVersion: crd.projectcalico.org/v1
kind: BGPConfiguration
metadata: {name: default}
spec:
  serviceClusterIPs: [{cidr: 10.96.0.0/16}]
  serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}]
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: anywhere}
spec: {type: LoadBalancer, ports: [{port: 80}]}
";

/// Where the pods of a service are, and whether they are ready.
fn endpoints(cluster: &Cluster, service: &str, pods: &[(&str, bool)]) {
    let pods: Vec<Value> = pods
        .iter()
        .map(|(node, ready)| {
            json!({"nodeName": node, "addresses": ["192.168.1.1"], "conditions": {"ready": ready, "serving": ready}})
        })
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}}, "endpoints": pods,
    });
    apply(cluster, &slice.to_string());
}

/// Gives a service the address of a load balancer; its own address.
fn balance(cluster: &Cluster, service: &str, address: &str) -> String {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}).to_string();
    kubectl(cluster, &["patch", "service", service, "--subresource=status", "--type=merge", "-p", &status]);
    let service = object(cluster, &format!("/api/v1/namespaces/default/services/{service}")).unwrap();
    format!("{}/32", service["spec"]["clusterIP"].as_str().unwrap())
}

#[test]
fn ranges_of_services_are_told_by_all_nodes_and_single_addresses_by_those_with_a_ready_pod() {
    let cluster = founding("Never");
    let lab = Lab::open(cluster.lab().name()).unwrap();
    apply(&cluster, RANGES);
    let local = balance(&cluster, "local", "203.0.113.7");
    let anywhere = balance(&cluster, "anywhere", "203.0.113.8");
    endpoints(&cluster, "local", &[("node2", true), ("node3", false)]);
    endpoints(&cluster, "anywhere", &[("node2", true)]);
    for range in ["10.96.0.0/16", "203.0.113.0/24"] {
        wait_heard(&lab, range, &ALL);
    }
    for address in [&*local, "203.0.113.7/32"] {
        wait_heard(&lab, address, &["node2"]);
    }
    for address in [&*anywhere, "203.0.113.8/32"] {
        wait_heard(&lab, address, &[]);
    }
    // What others tell of services is for routers.
    for node in ALL {
        let routes = lab.routes(node).unwrap();
        assert!(
            !routes.iter().any(|route| route.contains("10.96.") || route.contains("203.0.113.")),
            "{routes:#?}"
        );
    }

    endpoints(&cluster, "local", &[("node2", true), ("node3", true)]);
    wait_heard(&lab, &local, &["node2", "node3"]);
    endpoints(&cluster, "local", &[("node2", false), ("node3", true)]);
    wait_heard(&lab, &local, &["node3"]);
    endpoints(&cluster, "local", &[]);
    wait_heard(&lab, &local, &[]);
    wait_heard(&lab, "203.0.113.7/32", &[]);

    endpoints(&cluster, "local", &[("node3", true), ("node4", true)]);
    wait_heard(&lab, &local, &["node3", "node4"]);
    let exclude = "node.kubernetes.io/exclude-from-external-load-balancers";
    kubectl(&cluster, &["label", "node", "node3", &format!("{exclude}=")]);
    wait_heard(&lab, &local, &["node4"]);
    wait_heard(&lab, "10.96.0.0/16", &["node1", "node2", "node4"]);
    kubectl(&cluster, &["label", "node", "node3", &format!("{exclude}-")]);
    wait_heard(&lab, &local, &["node3", "node4"]);

    kubectl(&cluster, &["delete", "service", "local"]);
    wait_heard(&lab, &local, &[]);
    kubectl(&cluster, &["delete", "bgpconfiguration", "default"]);
    wait_heard(&lab, "10.96.0.0/16", &[]);
}
