//! A node's kube-proxy: services, beside the network that they are reached over.

use std::fs;

use anyhow::{Context as _, Result};
use manx_kubernetes::ControlPlane;
use serde_json::json;

use super::mounts::Mounts;
use crate::{Node, Process, kubernetes_program};

/// As whom it asks the API server; Kubernetes itself binds its role.
pub(super) const USER: &str = "system:kube-proxy";

/// Starts it, with nftables. As kubeadm does it, it is told which addresses pods have.
pub(super) fn start(node: &Node<'_>, mounts: &Mounts, control_plane: &ControlPlane) -> Result<Process> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": crate::POD_NET,
        "clientConnection": {"kubeconfig": control_plane.kubeconfig(USER)?},
        "hostnameOverride": node.name(),
        // The table of connections is the machine's.
        "conntrack": {"maxPerCore": 0},
    });
    let file = node.dir().join("kube-proxy.json");
    fs::write(&file, serde_json::to_string_pretty(&config)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let program =
        mounts.inside(&kubernetes_program("kube-proxy")?)?.arg(format!("--config={}", file.display()));
    node.start("kube-proxy", program)
}
