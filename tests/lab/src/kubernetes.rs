//! A control plane for a lab: kube-apiserver and etcd on the host `outside`, where every node reaches them by its default
//! route, with our kinds installed, the agents' rights bound, and every node registered as its kubelet would do it.
//!
//! The agents are users of the group `manx`, one per node, so that the audit log tells them apart; what they may do is
//! the chart's `files/rights.yaml`.

pub mod pods;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use manx_kubernetes::{Client, ControlPlane, Options};
use serde_json::{Value, json};

use crate::topology::OUTSIDE_HOST;
use crate::{Lab, Program, eventually, manx_binary};

/// What the agents may do, as members of the group [`GROUP`].
pub const RIGHTS: &str = include_str!("../../../charts/manx/files/rights.yaml");
/// For what the API server does within a second, on a machine that builds at the same time.
const SOON: Duration = Duration::from_secs(20);
/// Whom it is given to.
pub const GROUP: &str = "manx";

/// Starts one. It lives as long as its value, or until the lab goes.
pub(crate) fn start(lab: &Lab, options: Options) -> Result<ControlPlane> {
    ensure!(lab.topology().outside, "Kubernetes needs the host outside, on which it runs");
    let options =
        options.namespace(&lab.netns("outside"), OUTSIDE_HOST.into()).outliving(lab.dir().join("kubernetes"));
    let options = lab.nodes().fold(options, |options, node| options.user(&user(node.name()), &[GROUP]));
    let control_plane = ControlPlane::start(options)?;
    install_kinds(&control_plane)?;
    control_plane.apply(RIGHTS)?;
    let client = control_plane.client();
    lab.nodes().try_for_each(|node| register(&client, node.name(), node.address()))?;
    Ok(control_plane)
}

/// The user as whom a node's agent asks.
pub fn user(node: &str) -> String {
    format!("manx-{node}")
}

/// Where one of Calico's objects is, or all of a kind, where `name` is empty.
pub(crate) fn path(kind: &str, name: &str) -> String {
    format!("/apis/crd.projectcalico.org/v1/{kind}/{name}").trim_end_matches('/').to_owned()
}

/// Our kinds, as `manx crds` prints them, served when this returns.
fn install_kinds(control_plane: &ControlPlane) -> Result<()> {
    let output = Program::new(manx_binary()?).arg("crds").command().output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "manx crds: {}: {}", output.status, words.trim());
    control_plane.apply(&String::from_utf8(output.stdout)?)?;
    control_plane.kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
    // The API server serves a new kind a moment after it has said so.
    eventually(SOON, "the kinds to be served", || {
        let group: Value = serde_json::from_str(&control_plane.get("/apis/crd.projectcalico.org/v1")?)?;
        let kinds = group["resources"].as_array().into_iter().flatten();
        let mut plurals = kinds.filter_map(|kind| kind["name"].as_str()).filter(|name| !name.contains('/'));
        plurals.try_for_each(|plural| control_plane.get(&path(plural, "")).map(drop))
    })
}

/// Makes the Node object as a kubelet does, ready and with its address.
pub fn register(client: &Client, name: &str, address: Ipv4Addr) -> Result<()> {
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "capacity": {"pods": "1000"},
            "allocatable": {"pods": "1000"},
        },
    });
    let answer = client.ask("POST", "/api/v1/nodes", &node.to_string())?;
    ensure!(answer.status == 201, "registering {name}: {}: {}", answer.status, answer.body);
    Ok(())
}
