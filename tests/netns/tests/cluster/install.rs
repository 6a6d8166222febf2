//! From an empty cluster to a working one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{AGENTS, KubeCluster, eventually};
use serde_json::Value;

use crate::{empty, installed, turn};

const NODES: [&str; 2] = ["node1", "node3"];
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn one_helm_install_makes_an_empty_cluster_a_working_one() {
    let _turn = turn();
    let cluster = empty(&NODES, &NODES).unwrap();
    for node in NODES {
        let ready = condition(&cluster, node, "Ready").unwrap();
        assert_eq!(ready["status"], "False", "{ready}");
        assert!(ready["message"].as_str().unwrap().contains("cni"), "{ready}");
    }

    let notes = cluster.install().unwrap();
    assert!(notes.contains("rollout status daemonset/manx"), "{notes}");
    cluster.wait_ready().unwrap();

    let pods = cluster.web().unwrap();
    assert_eq!(pods.iter().map(|pod| pod.node.as_str()).collect::<Vec<_>>(), NODES);
    cluster.reach_everything(&pods).unwrap();
    the_router_has_learned_every_block(&cluster).unwrap();

    let seen = cluster.helm_test().unwrap();
    every_way_was_tried(&seen).unwrap();
    nothing_of_the_test_is_left(&cluster, "pods,services,deployments,jobs").unwrap();
    no_container_was_started_again(&cluster).unwrap();
    cluster.manx("node1", &["ipam", "check"]).unwrap();
}

#[test]
fn helm_test_names_a_dns_that_is_down_and_a_way_between_nodes_that_is_cut() {
    let _turn = turn();
    let cluster = installed(&NODES, &NODES).unwrap();
    let scale = |replicas: &str| {
        cluster.kubectl(&["-n", AGENTS, "scale", "deployment/coredns", &format!("--replicas={replicas}")])
    };
    // It waits for the names of its pods, which nobody will tell it.
    cluster.upgrade("test.waitSeconds=20").unwrap();
    scale("0").unwrap();
    let said = cluster.helm_test().unwrap_err().to_string();
    for name in ["manx-test-pods.kube-system.svc", "manx-test.kube-system.svc", "kubernetes.default.svc"] {
        assert!(
            failed(&said, &format!("DNS {name}: nameserver 10.96.0.10 gave no answer")),
            "{name}: {said}"
        );
    }
    assert!(
        passed(&said, "service manx-test.") && passed(&said, "API server 10.96.0.1:443: it is"),
        "{said}"
    );
    nothing_of_the_test_is_left(&cluster, "services,deployments").unwrap();

    scale("1").unwrap();
    cluster.wait_rolled_out(AGENTS, "deployment/coredns").unwrap();
    // What comes from the other node for a test pod, and nothing else.
    let rules = "table inet cut { chain forward { type filter hook forward priority 0; iifname eth0 tcp dport 8080 drop; }; }";
    cluster.lab().exec("node3", &["nft", rules]).unwrap();
    let said = cluster.helm_test().unwrap_err().to_string();
    assert!(failed(&said, "node1 -> pod ") && said.contains("no connection to port 8080"), "{said}");
    assert!(!failed(&said, "DNS") && !failed(&said, "node3 -> ") && passed(&said, "API server"), "{said}");

    cluster.lab().exec("node3", &["nft", "delete table inet cut"]).unwrap();
    cluster.helm_test().unwrap();
    nothing_of_the_test_is_left(&cluster, "pods,services,deployments,jobs").unwrap();
}

/// Whether a line of the test says that this went wrong.
fn failed(said: &str, what: &str) -> bool {
    // Helm's own words may stand before the first.
    said.lines().any(|line| line.contains("FAIL  node") && line.contains(what))
}

/// Whether a line says that it went well.
fn passed(said: &str, what: &str) -> bool {
    said.lines().any(|line| line.contains("ok    node") && line.contains(what))
}

/// Both nodes' pods, and the one that checks, wherever it is.
fn every_way_was_tried(said: &str) -> Result<()> {
    ensure!(said.contains("with pods on node1, node3"), "{said}");
    for [from, to] in [["node1", "node3"], ["node3", "node1"]] {
        for what in
            ["DNS kubernetes.default.svc: 10.96.0.1", "service manx-test.", "API server 10.96.0.1:443: it is"]
        {
            ensure!(passed(said, &format!("{from} -> {what}")), "{from} -> {what}: {said}");
        }
        let lines = said.lines().filter(|line| line.contains(&format!("ok    {from} -> pod ")));
        let there = lines.filter(|line| line.contains(&format!("on {to} sends back 64 KiB"))).count();
        ensure!(there > 0, "{from} -> pod on {to}: {said}");
    }
    ensure!(said.contains("Phase:          Succeeded"), "{said}");
    Ok(())
}

fn nothing_of_the_test_is_left(cluster: &KubeCluster, kinds: &str) -> Result<()> {
    eventually(PATIENCE, "the test's objects to go", || {
        let selector = "app.kubernetes.io/name=manx-test";
        let left = cluster.kubectl(&["-n", AGENTS, "get", kinds, "-l", selector, "-o", "name"])?;
        ensure!(left.is_empty(), "there are {left}");
        Ok(())
    })
}

fn condition(cluster: &KubeCluster, node: &str, kind: &str) -> Result<Value> {
    let node = cluster.object(&format!("/api/v1/nodes/{node}"))?;
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == kind)
        .cloned()
        .with_context(|| format!("no condition {kind}"))
}

fn the_router_has_learned_every_block(cluster: &KubeCluster) -> Result<()> {
    let affinities = cluster.object("/apis/crd.projectcalico.org/v1/blockaffinities")?;
    let affinities = affinities["items"].as_array().context("no list of affinities")?;
    ensure!(affinities.len() >= NODES.len(), "{affinities:?}");
    eventually(PATIENCE, "the router to know every block", || {
        let known = cluster.lab().bird("show route")?;
        for affinity in affinities {
            let block = affinity["spec"]["cidr"].as_str().context("an affinity without a block")?;
            ensure!(known.contains(block), "{block} is not among {known}");
        }
        Ok(())
    })
}

/// Whose liveness probe, from its node, fails three times is killed.
fn no_container_was_started_again(cluster: &KubeCluster) -> Result<()> {
    for namespace in ["default", AGENTS] {
        let pods = cluster.object(&format!("/api/v1/namespaces/{namespace}/pods"))?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
            let starts: u64 = statuses.filter_map(|status| status["restartCount"].as_u64()).sum();
            ensure!(starts == 0, "{} was started again: {}", pod["metadata"]["name"], pod["status"]);
        }
    }
    Ok(())
}
