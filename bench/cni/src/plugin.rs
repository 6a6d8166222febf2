//! A CNI plugin, executed as a runtime does it: environment, configuration on stdin, answer on stdout.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use manx_lab::{Lab, cni_binary};
use serde_json::json;

use crate::pods::Pod;

/// Where Debian's containernetworking-plugins are.
const DEBIAN: &str = "/usr/lib/cni";

/// The name of the rows of our plugin.
pub(crate) const MANX: &str = "manx";
/// Of ours with two addresses.
pub(crate) const DUAL_STACK: &str = "manx, dual stack";
/// Of the reference.
pub(crate) const PTP: &str = "ptp + host-local";

/// A plugin with its network.
pub(crate) struct Plugin<'a> {
    lab: &'a Lab,
    name: &'static str,
    binary: PathBuf,
    config: String,
}

impl<'a> Plugin<'a> {
    /// Ours; a pod gets an IPv4 address.
    pub(crate) fn manx(lab: &'a Lab) -> Result<Self> {
        let config = lab.cni_config("node1")?.to_string();
        Ok(Self { lab, name: MANX, binary: cni_binary()?, config })
    }

    /// Ours; a pod gets an address of each family.
    pub(crate) fn dual_stack(lab: &'a Lab) -> Result<Self> {
        let mut config = lab.cni_config("node1")?;
        config["ipam"] = json!({ "type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true" });
        Ok(Self { lab, name: DUAL_STACK, binary: cni_binary()?, config: config.to_string() })
    }

    /// The reference of the same shape: a veth for each pod, routed. Without masquerading, which we do not do either.
    pub(crate) fn ptp(lab: &'a Lab) -> Result<Self> {
        let binary = PathBuf::from(DEBIAN).join("ptp");
        ensure!(binary.is_file(), "{} is missing: install containernetworking-plugins", binary.display());
        let ipam = json!({ "type": "host-local", "subnet": "10.200.0.0/16", "dataDir": lab.dir().join("host-local") });
        let config =
            json!({ "cniVersion": "1.0.0", "name": "bench", "type": "ptp", "mtu": 1480, "ipam": ipam });
        Ok(Self { lab, name: PTP, binary, config: config.to_string() })
    }

    pub(crate) fn lab(&self) -> &'a Lab {
        self.lab
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// One call, in the calling thread's network namespace. Errors: the plugin's.
    pub(crate) fn call(&self, verb: &str, pod: &Pod) -> Result<()> {
        let mut child = Command::new(&self.binary)
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &pod.container_id)
            .env("CNI_NETNS", &pod.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", &pod.args)
            .env("CNI_PATH", DEBIAN)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.config.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{} {verb} of {}: {said}", self.name, pod.name);
        Ok(())
    }
}
