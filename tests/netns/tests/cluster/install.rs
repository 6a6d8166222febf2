//! From an empty cluster to a working one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{AGENTS, KubeCluster, eventually};
use serde_json::Value;

use crate::{empty, turn};

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

    let verdict = cluster.helm(&["test", "manx"]).unwrap();
    assert!(verdict.contains("Phase:          Succeeded"), "{verdict}");
    no_container_was_started_again(&cluster).unwrap();
    cluster.manx("node1", &["ipam", "check"]).unwrap();
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
