//! What agents tell a real API server beside their work: of policies that nobody enforces, and of their nodes.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::{Context as _, Result, ensure};
use manx_bench_api::{Bgp, Fleet, Place, SOON};
use manx_ground::eventually;
use serde_json::{Value, json};

/// Policies of all three kinds, of which a cluster without Calico has no definitions.
const DEFINITIONS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: networkpolicies.crd.projectcalico.org}
spec:
  group: crd.projectcalico.org
  names: {kind: NetworkPolicy, listKind: NetworkPolicyList, plural: networkpolicies, singular: networkpolicy}
  scope: Namespaced
  preserveUnknownFields: false
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {
    spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: globalnetworkpolicies.crd.projectcalico.org}
spec:
  group: crd.projectcalico.org
  names: {kind: GlobalNetworkPolicy, listKind: GlobalNetworkPolicyList, plural: globalnetworkpolicies,
    singular: globalnetworkpolicy}
  scope: Cluster
  preserveUnknownFields: false
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {
    spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}}]
";
const OF_KUBERNETES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress]}
";
const OF_CALICO: &str = "
apiVersion: crd.projectcalico.org/v1
kind: NetworkPolicy
metadata: {name: default.deny, namespace: default}
spec: {selector: all(), types: [Ingress]}
---
apiVersion: crd.projectcalico.org/v1
kind: GlobalNetworkPolicy
metadata: {name: default.deny}
spec: {selector: all(), types: [Ingress]}
";

/// What Events with this reason say, and of what.
fn events(fleet: &Fleet, reason: &str) -> Result<Vec<(String, String)>> {
    let field = format!("--field-selector=reason={reason}");
    let answer = fleet.control_plane().kubectl(&["get", "events", "-A", &field, "-o", "json"])?;
    let events: Value = serde_json::from_str(&answer)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |event: &Value| {
        let about = &event["involvedObject"];
        (format!("{} {}", text(&about["apiVersion"]), text(&about["kind"])), text(&event["message"]))
    };
    let mut said: Vec<_> = events["items"].as_array().context("no list")?.iter().map(of).collect();
    said.sort();
    Ok(said)
}

#[test]
fn policies_that_nobody_enforces_are_told_by_one_node_and_no_other_asks_for_them() {
    let mut fleet = Fleet::start(3, Bgp::None).unwrap();
    let begin = fleet.control_plane().audit().mark().unwrap();
    fleet.run([1], Place::Near).unwrap();
    fleet.run(2..=3, Place::Far).unwrap();
    assert_eq!(fleet.node(1).unwrap().policies_not_enforced(), Some(0));

    fleet.control_plane().apply(OF_KUBERNETES).unwrap();
    let told = |count: usize| {
        eventually(SOON, "an Event about each policy", || {
            let said = events(&fleet, "NotEnforced")?;
            ensure!(said.len() == count, "{said:?}");
            let counted = fleet.node(1)?.policies_not_enforced();
            ensure!(counted.is_some_and(|counted| counted > 0), "{counted:?}");
            Ok(said)
        })
        .unwrap()
    };
    let [(about, message)] = &told(1)[..] else { unreachable!("one was asked for") };
    assert_eq!(about, "networking.k8s.io/v1 NetworkPolicy");
    assert!(message.contains("not enforce") && message.ends_with("(generation 1)"), "{message}");

    // What it forbids is changed: that is news. A label is not.
    let change = r#"{"spec": {"policyTypes": ["Ingress", "Egress"]}}"#;
    let patch = |patch: &str| {
        let control_plane = fleet.control_plane();
        control_plane.kubectl(&[
            "patch",
            "networkpolicy.networking.k8s.io",
            "deny",
            "--type=merge",
            "-p",
            patch,
        ])
    };
    patch(r#"{"metadata": {"labels": {"a": "b"}}}"#).unwrap();
    patch(change).unwrap();
    assert!(told(2)[1].1.ends_with("(generation 2)"));
    let asked = |number: usize| fleet.asked(number, begin).unwrap();
    assert_eq!(asked(1).count_of("create", "events"), 2, "{}", asked(1));
    for number in 2..=3 {
        let asked = asked(number);
        assert_eq!(
            asked.count_of("create", "events") + asked.count_of("watch", "networkpolicies"),
            0,
            "{asked}"
        );
    }
    let refused =
        fleet.control_plane().audit().since(begin).unwrap().filter(|request| request.code == Some(403));
    assert_eq!(refused.count(), 0, "{refused:#?}");
}

#[test]
fn where_somebody_has_defined_calicos_policies_they_are_told_of_too() {
    let mut fleet = Fleet::start(1, Bgp::None).unwrap();
    for objects in [DEFINITIONS, OF_KUBERNETES] {
        fleet.control_plane().apply(objects).unwrap();
    }
    eventually(SOON, "Calico's policies to be served", || fleet.control_plane().apply(OF_CALICO)).unwrap();
    fleet.run([1], Place::Near).unwrap();
    let said = eventually(SOON, "an Event about each policy", || {
        let said = events(&fleet, "NotEnforced")?;
        ensure!(said.len() == 3, "{said:?}");
        Ok(said)
    })
    .unwrap();
    let about: Vec<&str> = said.iter().map(|(about, _)| about.as_str()).collect();
    let calico = ["crd.projectcalico.org/v1 GlobalNetworkPolicy", "crd.projectcalico.org/v1 NetworkPolicy"];
    assert_eq!(about, [&calico[..], &["networking.k8s.io/v1 NetworkPolicy"]].concat());
    assert_eq!(fleet.node(1).unwrap().policies_not_enforced(), Some(3));
}

#[test]
fn a_node_whose_network_somebody_called_unavailable_is_taken_back_once_its_pods_are_served() {
    let mut fleet = Fleet::start(1, Bgp::None).unwrap();
    let condition = |kind: &str, reason: &str| json!({"type": kind, "status": "True", "reason": reason});
    let before = [condition("Ready", "KubeletReady"), condition("NetworkUnavailable", "CalicoIsDown")];
    let patch = json!({"status": {"conditions": before}}).to_string();
    let path = "/api/v1/nodes/n1/status";
    let answer = fleet.control_plane().client().ask("PATCH", path, &patch).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);

    fleet.run([1], Place::Near).unwrap();
    let node = fleet.control_plane().kubectl(&["get", "node", "n1", "-o", "json"]).unwrap();
    let node: Value = serde_json::from_str(&node).unwrap();
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let said = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    assert_eq!(said("Ready")["status"], "True", "it is kubelet's");
    let ours = said("NetworkUnavailable");
    assert_eq!((&ours["status"], &ours["reason"]), (&"False".into(), &"ManxIsUp".into()), "{ours}");
    assert!(ours["lastTransitionTime"].is_string(), "{ours}");
}
