//! Manx in a cluster, installed as a user does it: with Helm, the chart of this tree, and the image that `make image` made.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{KubeCluster, POD_NET};
use crate::topology::{TOR_AS, gateway};

/// Where it is installed.
pub const NAMESPACE: &str = "kube-system";

impl KubeCluster {
    /// The chart of this tree.
    pub fn chart(&self) -> Result<PathBuf> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/manx");
        fs::canonicalize(&chart).with_context(|| format!("there is no chart in {}", chart.display()))
    }

    /// The values with which it is installed: a pool, and the ToR as a peer of every node. The pool's mode is the chart's own,
    /// where this kernel has ipip.
    pub fn values(&self) -> Result<String> {
        let mut text = format!("pool:\n  cidr: {POD_NET}\n");
        if !self.has_ipip() {
            text += "  ipipMode: Never\n";
        }
        text += "bgp:\n  peers:\n";
        for node in self.lab.nodes() {
            let router = gateway(&self.lab.topology().subnet_of(node.spec())?);
            let name = node.name();
            writeln!(text, "    - {{name: tor-{name}, node: {name}, peerIP: {router}, asNumber: {TOR_AS}}}")?;
        }
        Ok(text)
    }

    /// Runs helm in the namespace of the agents; its standard output.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        self.control_plane.helm(&[args, &["--namespace", NAMESPACE]].concat())
    }

    /// `helm install`, with [`Self::values`]; what it says to do next.
    pub fn install(&self) -> Result<String> {
        let (chart, file) = (self.chart()?, self.values_file()?);
        fs::write(&file, self.values()?)?;
        self.helm(&["install", "manx", &chart.display().to_string(), "--values", &file.display().to_string()])
    }

    /// `helm upgrade` to other values, the rest as they were.
    pub fn upgrade(&self, set: &str) -> Result<()> {
        let chart = self.chart()?.display().to_string();
        self.helm(&["upgrade", "manx", &chart, "--reuse-values", "--set", set])?;
        self.wait_rolled_out(NAMESPACE, "daemonset/manx")
    }

    /// `helm test`: what its pods have seen, and Helm's verdict. What is not reached is an error, with the same words.
    pub fn helm_test(&self) -> Result<String> {
        self.control_plane.helm_aloud(&["test", "manx", "--hide-notes", "--namespace", NAMESPACE])
    }

    /// What `manx` says on a node, run in the pod of the node's agent.
    pub fn manx(&self, node: &str, args: &[&str]) -> Result<String> {
        let agent = self.agent(node)?.name;
        self.kubectl(&[&["-n", NAMESPACE, "exec", &agent, "--", "/bin/manx"], args].concat())
    }

    /// The file of [`Self::values`].
    pub fn values_file(&self) -> Result<PathBuf> {
        Ok(self.lab.dir().join("values.yaml"))
    }

    /// Whether this kernel has IP-in-IP, if need be as a module, which is loaded then.
    pub fn has_ipip(&self) -> bool {
        let _ = Command::new("modprobe").args(["-q", "ipip"]).output();
        self.lab.exec("tor", &["ip", "link", "show", "tunl0"]).is_ok()
    }
}
