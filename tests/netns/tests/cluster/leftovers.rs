//! What a cluster leaves behind whose owner was killed: nothing that cannot be swept.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use manx_lab::{Lab, Swept, eventually, lab_binary, netns};

use crate::turn;

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn after_kill_9_of_its_owner_nothing_of_a_cluster_survives_a_sweep() {
    let _turn = turn();
    let name = format!("swept{}", std::process::id());
    let mut owner = Command::new(lab_binary().unwrap())
        .args(["--lab", &name, "cluster", "demo"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pods = || control_groups(&name).iter().any(|group| group.contains("kubepods"));
    eventually(PATIENCE, "a pod of the cluster", || {
        ensure!(pods(), "there is none");
        Ok(())
    })
    .unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(!netns::pids(&format!("{name}-node1")).is_empty(), "it left nothing to sweep");

    let swept = Lab::sweep(false).unwrap();
    assert!(swept.contains(&Swept::Removed(name.clone())), "{swept:?}");
    assert_eq!(netns::with_prefix(&format!("{name}-")), [] as [&str; 0]);
    assert_eq!(control_groups(&name), [] as [&str; 0]);
    let folder = format!("/lab/{name}/");
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(&folder));
    assert_eq!(processes_of(&folder), [] as [&str; 0]);
}

/// The control groups of a lab's nodes, and those one and two levels below them.
fn control_groups(lab: &str) -> Vec<String> {
    let wanted = format!("/manx-lab-{lab}-");
    let below =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut level = vec![Path::new("/sys/fs/cgroup").to_owned()];
    let mut found = Vec::new();
    for _ in 0..4 {
        level = level.iter().flat_map(|folder| below(folder)).filter(|path| path.is_dir()).collect();
        found.extend(
            level.iter().map(|path| path.display().to_string()).filter(|path| path.contains(&wanted)),
        );
    }
    found
}

/// The command lines that name a folder.
fn processes_of(folder: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(folder))
        .collect()
}
