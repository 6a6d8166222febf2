//! Network namespaces by name, as `ip netns` keeps them: enter one, list the processes in one, make and delete.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use rustix::thread::LinkNameSpaceType;

const DIR: &str = "/run/netns";

/// Where the namespace `name` is mounted, also what a container runtime passes as `CNI_NETNS`.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// Whether a namespace of that name is there.
pub fn exists(name: &str) -> bool {
    path(name).exists()
}

/// The names of all namespaces that begin with `prefix`, sorted.
pub fn with_prefix(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(DIR).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

/// Runs `work` in the namespace `name`, on a thread of its own: a thread that has entered a namespace is never
/// given back to anybody. Sockets and processes made by `work` stay in the namespace and may be used anywhere.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            enter(name)?;
            Ok(work())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread into the namespace, for good.
pub fn enter(name: &str) -> Result<()> {
    let path = path(name);
    let file =
        fs::File::open(&path).with_context(|| format!("namespace {name}: cannot open {}", path.display()))?;
    rustix::thread::move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(LinkNameSpaceType::Network),
    )
    .with_context(|| format!("namespace {name}: cannot enter it (root is needed)"))
}

/// Makes the namespaces, in one process.
pub fn add<S: AsRef<str>>(names: &[S]) -> Result<()> {
    let lines: Vec<String> = names.iter().map(|name| format!("netns add {}", name.as_ref())).collect();
    ip_batch(&["-batch", "-"], &lines)
}

/// Gives the namespace of a process a name as well, which keeps it for as long as the name is there.
pub fn attach(name: &str, pid: u32) -> Result<()> {
    ip_batch(&["-batch", "-"], &[format!("netns attach {name} {pid}")])
}

/// Takes the name of a namespace away, which ends with its last process then.
pub fn detach(name: &str) -> Result<()> {
    ip_batch(&["-batch", "-"], &[format!("netns del {name}")])
}

/// Ends every process in the namespaces and deletes these; names that are gone already are no error.
pub fn remove<S: AsRef<str>>(names: &[S]) -> Result<()> {
    let there: Vec<&str> = names.iter().map(AsRef::as_ref).filter(|name| exists(name)).collect();
    if there.is_empty() {
        return Ok(());
    }
    kill_all(&there)?;
    let lines: Vec<String> = there.iter().map(|name| format!("netns del {name}")).collect();
    let failure = ip_batch(&["-force", "-batch", "-"], &lines).err();
    let left: Vec<&&str> = there.iter().filter(|name| exists(name)).collect();
    match failure {
        Some(error) if !left.is_empty() => Err(error.context(format!("namespaces {left:?} are still there"))),
        _ => Ok(()),
    }
}

/// Runs lines of `ip -batch` in the namespace `name`.
pub fn ip_lines(name: &str, lines: &[String]) -> Result<()> {
    ip_batch(&["-n", name, "-batch", "-"], lines).with_context(|| format!("in namespace {name}"))
}

fn ip_batch(args: &[&str], lines: &[String]) -> Result<()> {
    use std::io::Write as _;
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip (Debian package iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        // An `ip` that ends at a bad line closes the pipe; its own words say more than EPIPE does.
        let _ = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    bail!("ip {}: {}\n  {}", args.join(" "), words.trim(), lines.join("\n  "));
}

/// The processes whose main thread is in the namespace, as `ip netns pids` lists them.
pub fn pids(name: &str) -> Vec<u32> {
    let Some(wanted) = identity(&path(name)) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| identity(Path::new(&format!("/proc/{pid}/ns/net"))) == Some(wanted))
        .collect()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Ends every process in the namespaces.
pub fn kill_all(names: &[&str]) -> Result<()> {
    crate::eventually(std::time::Duration::from_secs(10), "the processes in the namespaces to end", || {
        let pids: Vec<u32> = names.iter().flat_map(|name| pids(name)).collect();
        for pid in &pids {
            if *pid != std::process::id() {
                send(*pid, Signal::KILL);
            }
        }
        ensure!(pids.is_empty(), "processes {pids:?} are still in {names:?}");
        Ok(())
    })
}

/// Sends `signal` to `pid`; a process that is gone has nothing to be told.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
