//! A node's own control group, in every hierarchy of version 1 or in the one of version 2: two kubelets that share a root
//! remove each other's pods. It is also how every process of the node's pods is found again, whatever namespaces it is in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::{eventually, netns};

const ROOT: &str = "/sys/fs/cgroup";
const PATIENCE: Duration = Duration::from_secs(20);
/// What kubelet wants, in version 2, where a group has only what its parent hands down.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// The group of a node of a lab, as kubelet's `cgroupRoot` without the slash.
pub(crate) fn name(lab: &str, node: &str) -> String {
    format!("{}{node}", prefix(lab))
}

/// How the names of all groups of a lab begin.
fn prefix(lab: &str) -> String {
    format!("manx-lab-{lab}-")
}

/// Makes the group.
pub(crate) fn make(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group)?;
        hand_down(&hierarchy);
        hand_down(&group);
        // In version 1 a new group has no processor and no memory node, and nothing can run in it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(hierarchy.join(file)) {
                fs::write(group.join(file), value)?;
            }
        }
    }
    Ok(())
}

/// Version 2: what a group has goes to its children, one by one, since one controller that is missing would refuse all.
fn hand_down(group: &Path) {
    let known = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in CONTROLLERS.iter().filter(|name| known.split_whitespace().any(|word| word == **name)) {
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// The processes of a pod of the group.
pub(crate) fn pod(name: &str, uid: &str) -> Vec<u32> {
    let wanted = format!("pod{uid}");
    let folders = hierarchies().into_iter().flat_map(|hierarchy| folders(&hierarchy.join(name)));
    let of_pod = folders.filter(|folder| folder.components().any(|part| part.as_os_str() == wanted.as_str()));
    unique(of_pod.flat_map(|folder| pids(&folder)).collect())
}

/// Kills every process of the group, and removes it.
pub(crate) fn remove(name: &str) -> Result<()> {
    remove_where(|found| found == name)
}

/// The same for all groups of a lab.
pub(crate) fn remove_all(lab: &str) -> Result<()> {
    remove_where(|found| found.starts_with(&prefix(lab)))
}

fn remove_where(wanted: impl Fn(&str) -> bool) -> Result<()> {
    let roots = || -> Vec<PathBuf> {
        let entries = hierarchies().into_iter().flat_map(fs::read_dir).flatten().flatten();
        entries
            .filter(|entry| wanted(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect()
    };
    if roots().is_empty() {
        return Ok(());
    }
    eventually(PATIENCE, "the processes of the nodes' pods to end", || {
        let found: Vec<PathBuf> = roots().iter().flat_map(|root| folders(root)).collect();
        for pid in unique(found.iter().flat_map(|folder| pids(folder)).collect()) {
            netns::send(pid, Signal::KILL);
        }
        // Children come after their parents.
        found.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
        let left = roots();
        ensure!(left.is_empty(), "{left:?} are still there");
        Ok(())
    })
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    // `cpu` may be a link to `cpu,cpuacct`.
    let own = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let found = entries.filter(own).map(|entry| entry.path());
    found.filter(|folder| folder.join("cgroup.procs").exists()).collect()
}

/// A folder and all below it, parents first.
fn folders(root: &Path) -> Vec<PathBuf> {
    let mut found = if root.is_dir() { vec![root.to_owned()] } else { Vec::new() };
    let mut next = 0;
    while let Some(folder) = found.get(next) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
        found.extend(below);
        next += 1;
    }
    found
}

fn pids(folder: &Path) -> Vec<u32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()
}

fn unique(mut pids: Vec<u32>) -> Vec<u32> {
    pids.sort_unstable();
    pids.dedup();
    pids
}
