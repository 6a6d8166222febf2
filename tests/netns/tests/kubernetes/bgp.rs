//! BGP as the objects ask for it, seen from outside: in the table and the sessions of the ToR's BIRD, and in the kernels of
//! the nodes.

mod nodes;
mod passwords;
mod policy;
mod reflectors;
mod services;
mod tor;

use anyhow::{Context as _, Result};
use manx_lab::Cluster;
use serde_json::Value;

use crate::support::object;

/// `kubectl apply`, which must be taken.
fn apply(cluster: &Cluster, manifests: &str) {
    cluster.control_plane().unwrap().apply(manifests).unwrap();
}

/// `kubectl` with these words.
fn kubectl(cluster: &Cluster, words: &[&str]) -> String {
    cluster.control_plane().unwrap().kubectl(words).unwrap()
}

/// A merge patch of one object's spec.
fn patch(cluster: &Cluster, kind: &str, name: &str, spec: &Value) {
    let patch = serde_json::json!({ "spec": spec }).to_string();
    kubectl(cluster, &["patch", kind, name, "--type=merge", "-p", &patch]);
}

/// What a node says of its session with an address.
fn session(cluster: &Cluster, node: &str, address: &str) -> Result<Value> {
    let status = cluster.status(node)?;
    let peers = status["bgp"]["peers"].as_array().cloned().unwrap_or_default();
    let found = peers.iter().find(|peer| peer["address"] == address).cloned();
    found.with_context(|| format!("{node} has no peer {address}: {peers:?}"))
}

/// A pod of a pool: its namespace, which has the pool's name, asks for it.
fn pod_of_pool(cluster: &Cluster, node: &str, pod: &str, pool: &str) -> manx_lab::Pod {
    if object(cluster, &format!("/api/v1/namespaces/{pool}")).is_err() {
        apply(
            cluster,
            &format!(
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {pool}\n  annotations:\n    \
                 cni.projectcalico.org/ipv4pools: '[\"{pool}\"]'\n"
            ),
        );
    }
    cluster.pod_add(node, pod, pool).unwrap()
}

/// The block of a pool (the beginning of its addresses) that a node has.
fn block(cluster: &Cluster, node: &str, begins: &str) -> String {
    let blocks = cluster.blocks().unwrap();
    let mut found = blocks.iter().filter(|(block, owner)| *owner == node && block.starts_with(begins));
    found.next().unwrap_or_else(|| panic!("{node} has no block of {begins}: {blocks:?}")).0.clone()
}
