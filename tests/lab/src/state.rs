//! A lab's directory: who owns it, what it consists of, and the files of its nodes.
//!
//! ```text
//! target/lab/NAME/owner           process id and start time of the owner; absent when the lab is kept
//! target/lab/NAME/topology.json
//! target/lab/NAME/bird.{conf,ctl,log}
//! target/lab/NAME/NODE/           cni.sock, spool/, logs of the node's processes
//!                                 etc-cni/ … var-log/ of a real node: what it does not share with this machine
//! target/lab/NAME/pods/POD.{json,uid}
//! target/lab/NAME/datastore/     of a cluster over a directory
//! target/lab/NAME/kubernetes/    of a cluster on Kubernetes: its kubectl, kubeconfigs and logs
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::target_dir;
use crate::topology::Topology;

/// `sun_path` holds 108 bytes, the last of them zero (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

/// Who raised a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The process is alive.
    Alive(u32),
    /// The process is gone: the lab is a leftover.
    Dead,
    /// Nobody: it was left up on purpose.
    Nobody,
}

/// The folder of all labs of this tree: `target/lab`.
pub(crate) fn root() -> PathBuf {
    target_dir().join("lab")
}

/// Makes the directory of a new lab, complete or not at all: that it gets its name here and now is the lock on it.
pub(crate) fn create(name: &str, dir: &Path, topology: &Topology) -> Result<()> {
    let me = std::process::id();
    let unfinished = dir.with_file_name(format!(".{name}.{me}"));
    fs::create_dir_all(unfinished.join("pods"))
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    fs::write(unfinished.join("owner"), format!("{me} {}", start_time(me)?))?;
    fs::write(unfinished.join("topology.json"), serde_json::to_string_pretty(topology)?)?;
    for node in &topology.nodes {
        fs::create_dir_all(unfinished.join(&node.name).join("spool"))?;
    }
    let Err(error) = fs::rename(&unfinished, dir) else { return Ok(()) };
    fs::remove_dir_all(&unfinished)?;
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => {
            bail!("lab {name} is up already ({}); `lab down --lab {name}` takes it down", dir.display())
        }
        _ => Err(error).with_context(|| format!("cannot make {}", dir.display())),
    }
}

/// Refuses a directory in which a unix socket would have too long a path.
pub(crate) fn check_length(dir: &Path, topology: &Topology) -> Result<()> {
    for node in &topology.nodes {
        let socket = dir.join(&node.name).join("cni.sock");
        ensure!(
            socket.as_os_str().len() <= LONGEST_SOCKET_PATH,
            "{} is longer than the {LONGEST_SOCKET_PATH} bytes that Linux allows for a socket's path; \
             use a shorter lab name or set CARGO_TARGET_DIR to a shorter folder",
            socket.display()
        );
    }
    Ok(())
}

/// What the lab in `dir` consists of.
pub(crate) fn topology(dir: &Path) -> Result<Topology> {
    let file = dir.join("topology.json");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))
}

/// Whose lab is in `dir`.
pub(crate) fn owner(dir: &Path) -> Owner {
    let Ok(text) = fs::read_to_string(dir.join("owner")) else { return Owner::Nobody };
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started))) = (words.next(), words.next()) else { return Owner::Dead };
    match u32::try_from(pid).map(|pid| (pid, start_time(pid))) {
        // A process id is used again; together with the start time it is not.
        Ok((pid, Ok(found))) if found == started => Owner::Alive(pid),
        _ => Owner::Dead,
    }
}

/// Makes the lab one that outlives its owner.
pub(crate) fn disown(dir: &Path) -> Result<()> {
    match fs::remove_file(dir.join("owner")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The directories of all labs, by name.
pub(crate) fn all() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(root()).into_iter().flatten().flatten();
    let mut labs: Vec<_> =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect();
    // A name with a dot is a directory that is still being made.
    labs.retain(|(name, _)| !name.starts_with('.'));
    labs.sort();
    labs
}

/// Field 22 of proc_pid_stat(5): when the process started, in clock ticks since boot. A zombie counts as gone.
fn start_time(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, and may itself contain blanks and parentheses.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    ensure!(fields.first() != Some(&"Z"), "process {pid} is a zombie");
    fields.get(19).context("short /proc/PID/stat")?.parse().context("bad start time in /proc/PID/stat")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_that_is_used_again_is_not_the_owner() {
        let dir = target_dir().join("lab-state-test").join(std::process::id().to_string());
        fs::create_dir_all(&dir).unwrap();
        let me = std::process::id();
        let started = start_time(me).unwrap();
        let cases = [
            (Some(format!("{me} {started}")), Owner::Alive(me)),
            (Some(format!("{me} {}", started + 1)), Owner::Dead),
            (Some("rubbish".to_owned()), Owner::Dead),
            (None, Owner::Nobody),
        ];
        for (text, expected) in cases {
            match &text {
                Some(text) => fs::write(dir.join("owner"), text).unwrap(),
                None => disown(&dir).unwrap(),
            }
            assert_eq!(owner(&dir), expected, "{text:?}");
        }
        fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_socket_path_that_linux_would_refuse_is_named() {
        let long = PathBuf::from("/tmp").join("x".repeat(100));
        let error = check_length(&long, &Topology::founding()).unwrap_err().to_string();
        assert!(error.contains("CARGO_TARGET_DIR"), "{error}");
    }
}
