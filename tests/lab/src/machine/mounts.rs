//! A node's view of the file system: the machine's, but for the folders that real nodes do not share.
//!
//! The mount namespace lives as long as a process in it does, and everything mounted in it goes with the last one: the
//! first is a `sleep` that does nothing else, so that the namespace outlives a killed containerd.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{Node, Process, Program, eventually};

const PATIENCE: Duration = Duration::from_secs(10);

/// What each node has for itself, as its pods' `hostPath` volumes, its kubelet and its containerd find it, and the folder
/// of the node that lies there. Where the machine has no such folder, an empty one is made to mount upon.
const OWN: [(&str, &str); 7] = [
    ("/etc/cni", "etc-cni"),
    ("/opt/cni", "opt-cni"),
    ("/var/lib/cni", "var-lib-cni"),
    (IMAGES, "var-lib-containerd"),
    ("/var/lib/kubelet", "var-lib-kubelet"),
    ("/var/lib/manx", "var-lib-manx"),
    ("/var/log", "var-log"),
];

/// Where containerd keeps images and the file systems of containers.
const IMAGES: &str = "/var/lib/containerd";

/// The mount namespace of a node.
#[derive(Debug)]
pub(crate) struct Mounts {
    holder: Process,
}

impl Mounts {
    /// Makes it, with the node's own folders in place.
    pub(crate) fn make(node: &Node<'_>) -> Result<Mounts> {
        let dir = node.dir();
        for (_, own) in OWN {
            let own = dir.join(own);
            fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        }
        let file = dir.join("fstab");
        fs::write(&file, fstab(&dir, is_overlay(&dir)?)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let sleep = ["--mount", "--propagation", "private", "sleep", "infinity"];
        let mounts = Mounts { holder: node.start("mounts", Program::new("unshare").args(sleep))? };
        eventually(PATIENCE, "a mount namespace", || mounts.is_another())?;
        // Shared from here on: pods see what is mounted later (HostToContainer).
        mounts.run("mount", &["--make-rshared", "/"])?;
        mounts.run("mount", &["--all", "--fstab", &file.display().to_string()])?;
        Ok(mounts)
    }

    /// The program, to be run inside, as the same process.
    pub(crate) fn inside(&self, program: &Path) -> Result<Program> {
        let pid = self.holder.pid().context("the mount namespace is gone")?;
        Ok(Program::new("nsenter").arg(format!("--mount=/proc/{pid}/ns/mnt")).arg("--").arg(program))
    }

    /// Runs a command inside to its end; its standard output.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.inside(Path::new(program))?.args(args).command().output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {}: {}", args.join(" "), output.status, words.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Leaves it when the value goes.
    pub(crate) fn leave(self) {
        self.holder.leave();
    }

    fn is_another(&self) -> Result<()> {
        let pid = self.holder.pid().context("`unshare` has ended")?;
        let namespace =
            |process: &str| fs::metadata(format!("/proc/{process}/ns/mnt")).map(|found| found.ino());
        let words = fs::read(format!("/proc/{pid}/cmdline"))?;
        ensure!(words.starts_with(b"sleep"), "it is not made yet: {}", self.holder.log().trim());
        ensure!(namespace(&pid.to_string())? != namespace("self")?, "it is the machine's own");
        Ok(())
    }
}

/// Where what a node has for itself lies in the machine's file system; nowhere, if it shares `path` with the machine.
pub(super) fn own(dir: &Path, path: &str) -> Option<PathBuf> {
    OWN.iter().find_map(|(place, own)| {
        let below = Path::new(path).strip_prefix(place).ok()?;
        Some(dir.join(own).join(below))
    })
}

/// Removes what the node had for itself, but for its logs.
pub(super) fn clean(dir: &Path) -> Result<()> {
    for (place, own) in OWN {
        let own = dir.join(own);
        if place != "/var/log" && own.exists() {
            fs::remove_dir_all(&own).with_context(|| format!("cannot remove {}", own.display()))?;
        }
    }
    Ok(())
}

/// Whether a folder lies on an overlay, as in a container or in the guest. The kernel refuses an overlay upon that, and
/// containerd's images are overlays.
fn is_overlay(dir: &Path) -> Result<bool> {
    /// statfs(2).
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    Ok(u64::try_from(rustix::fs::statfs(dir)?.f_type)? == OVERLAYFS_SUPER_MAGIC)
}

/// What mount(8) is told. A source that no other mount has: it would take it for mounted already.
fn fstab(dir: &Path, overlay: bool) -> Result<String> {
    let mut text = String::from("manx-lab /run tmpfs mode=755 0 0\n");
    for (place, own) in OWN {
        if overlay && place == IMAGES {
            writeln!(text, "manx-lab-images {place} tmpfs mode=711,X-mount.mkdir 0 0")?;
            continue;
        }
        let source = dir.join(own);
        let source = source.to_str().with_context(|| format!("{} is not UTF-8", source.display()))?;
        // fstab(5): blanks are written as octal numbers.
        let source = source.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
        writeln!(text, "{source} {place} none bind,X-mount.mkdir 0 0")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_in_the_path_of_the_tree_does_not_end_it() {
        let text = fstab(Path::new("/my tree/node1"), false).unwrap();
        assert!(
            text.contains("\n/my\\040tree/node1/etc-cni /etc/cni none bind,X-mount.mkdir 0 0\n"),
            "{text}"
        );
    }

    #[test]
    fn on_an_overlay_containers_live_in_memory() {
        let text = fstab(Path::new("/tree/node1"), true).unwrap();
        assert!(text.contains("\nmanx-lab-images /var/lib/containerd tmpfs "), "{text}");
        assert!(!text.contains("var-lib-containerd"), "{text}");
    }
}
