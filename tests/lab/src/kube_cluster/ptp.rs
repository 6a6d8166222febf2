//! Another network: Debian's ptp plugin with static routes, to see what a cluster is worth without Manx, or after it.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{KubeCluster, POD_NET};
use crate::Machine;

const FILE: &str = "/etc/cni/net.d/20-ptp.conflist";

impl KubeCluster {
    /// Installs it on every node, with its plugins in place already.
    pub fn install_ptp(&self) -> Result<()> {
        for (index, machine) in self.machines().enumerate() {
            // Up to 256 nodes, each with a /24 of the pool's range.
            let pods = POD_NET.replace(".0.0/16", &format!(".{index}.0/24"));
            let node = self.lab().node(machine.name())?.address().to_string();
            self.lab().exec("tor", &["ip", "route", "replace", &pods, "via", &node])?;
            let network = json!({
                "cniVersion": "0.4.0",
                "name": "ptp",
                "plugins": [
                    {"type": "ptp", "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": pods}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    }},
                    {"type": "portmap", "capabilities": {"portMappings": true}},
                ],
            });
            let file = own(machine)?;
            fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
            fs::write(&file, network.to_string())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

fn own(machine: &Machine) -> Result<std::path::PathBuf> {
    machine.own(FILE).with_context(|| format!("{FILE} is not the node's own"))
}
