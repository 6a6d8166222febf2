//! A node's kubelet.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use manx_kubernetes::ControlPlane;
use serde_json::json;

use super::mounts::Mounts;
use crate::{Node, Process, kubernetes_program};

/// As whom it asks the API server; the authorizer of nodes lets it see its own pods.
pub(super) fn user(node: &str) -> String {
    format!("system:node:{node}")
}

/// Starts it. It registers its node.
pub(super) fn start(
    node: &Node<'_>,
    mounts: &Mounts,
    control_plane: &ControlPlane,
    cgroup: &str,
) -> Result<Process> {
    let (certificate, key) = control_plane.kubelet_identity();
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": control_plane.authority()},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "clusterDNS": [crate::DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "enforceNodeAllocatable": [],
        // The machine's disk is nobody's business here.
        "evictionHard": {},
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "resolvConf": "/dev/null",
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
    });
    let file: PathBuf = node.dir().join("kubelet.json");
    fs::write(&file, serde_json::to_string_pretty(&config)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let program = mounts
        .inside(&kubernetes_program("kubelet")?)?
        .arg(format!("--config={}", file.display()))
        .arg(format!("--kubeconfig={}", control_plane.kubeconfig(&user(node.name()))?.display()))
        .arg(format!("--hostname-override={}", node.name()))
        .arg(format!("--node-ip={}", node.address()));
    node.start("kubelet", program)
}
