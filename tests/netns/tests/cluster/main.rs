//! A real Kubernetes, with a real containerd and kubelet on each node, which gets its network by `helm install`: what
//! reaches what, what a restart of anything costs (no packet), and what is left when Manx goes.
//!
//! Each test raises a cluster of its own, one after the other, as two at once would be too much for a small machine.

mod disturbances;
mod install;
mod leftovers;
mod modes;
mod traffic;
mod uninstall;

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use manx_lab::{KubeCluster, Lab, Options, Topology, manx_image};

static TURN: Mutex<()> = Mutex::new(());

/// The right to have a cluster, until it is dropped.
fn turn() -> MutexGuard<'static, ()> {
    // A test that failed has taken its cluster with it.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty cluster: `nodes` of those of the lab, with no network.
fn empty(lab: &[&str], nodes: &[&str]) -> Result<KubeCluster> {
    let lab = Lab::up(Options::unique("k", Topology::founding().keeping(lab)))?;
    KubeCluster::start(lab, nodes, &[manx_image()?])
}

/// One with Manx in it.
fn installed(lab: &[&str], nodes: &[&str]) -> Result<KubeCluster> {
    let cluster = empty(lab, nodes)?;
    cluster.install()?;
    cluster.wait_ready()?;
    Ok(cluster)
}
