//! A node's container runtime: Debian's containerd and runc, in its usual places of the node's own file system.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::mounts::Mounts;
use crate::{Node, Process, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
/// The kubelet's side of containerd.
const NAMESPACE: [&str; 2] = ["--namespace", "k8s.io"];

/// No capability CAP_SYS_RESOURCE, as in many containers: runc may not lower the score by which the kernel kills. The
/// containers' own profile for AppArmor cannot be loaded there, either.
const CONFIG: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"#;

/// Starts it, and waits until it answers.
pub(super) fn start(node: &Node<'_>, mounts: &Mounts) -> Result<Process> {
    let file = node.dir().join("containerd.toml");
    fs::write(&file, CONFIG).with_context(|| format!("cannot write {}", file.display()))?;
    let program = mounts.inside(Path::new("containerd"))?.arg("--config").arg(&file);
    let containerd =
        node.start("containerd", program).context("needs the Debian packages containerd and runc")?;
    wait(node.name(), mounts)?;
    Ok(containerd)
}

/// Waits until it answers.
pub(super) fn wait(node: &str, mounts: &Mounts) -> Result<()> {
    eventually(PATIENCE, &format!("containerd of {node}"), || mounts.run("ctr", &["version"]).map(drop))
}

/// Gives it an image of an OCI archive, under the names that are in it. It is unpacked when its first container is made, as not
/// every node has one of every image.
pub(super) fn import(mounts: &Mounts, archive: &Path) -> Result<()> {
    let archive = archive.display().to_string();
    let args = [&NAMESPACE[..], &["images", "import", "--no-unpack", &archive]].concat();
    mounts.run("ctr", &args).map(drop)
}
