//! A program that runs beside the test and ends with it, even when the test is killed.
//!
//! The kernel is asked to send SIGKILL when the parent ends (`PR_SET_PDEATHSIG`, prctl(2)). `setpriv` does the asking,
//! as no thread of ours may run between fork and exec without `unsafe`; and as the kernel means the parent's *thread*,
//! all daemons are started by one thread that ends only with the process.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal};

/// A command line with the place where it runs, and its process while there is one.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    command: Vec<OsString>,
    dir: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// What is to run under the name `name`: its output goes to `dir/name.log`. Starts nothing.
    pub(crate) fn new(name: &str, command: Vec<OsString>, dir: &Path) -> Self {
        Daemon { name: name.to_owned(), command, dir: dir.to_owned(), child: None }
    }

    /// Starts it, or starts it again.
    pub(crate) fn start(&mut self) -> Result<()> {
        ensure!(!self.is_running(), "{} is running already", self.name);
        let path = self.log_file();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(&self.dir).env_clear();
        command.env("HOME", &self.dir).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(manx_ground::go_environment());
        // A group of its own: Ctrl-C at the terminal reaches the test, and the test's end ends the daemon.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        self.child = Some(spawn(command).with_context(|| format!("cannot run {}", self.name))?);
        Ok(())
    }

    /// Sends SIGKILL and waits until it is gone; what is gone already is no error.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process(Pid::from_child(self.running()?), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Whether all of its threads have stopped: a signal takes a moment.
    pub(crate) fn has_stopped(&self) -> Result<bool> {
        let pid = self.running()?.id();
        let mut stopped = true;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread that has ended meanwhile does nothing any more.
            let stat = fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
            stopped &= stat.is_empty() || state(&stat) == Some("T");
        }
        Ok(stopped)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Fails with the last lines of its log when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n  ");
        anyhow::bail!("{} has ended; the end of {}:\n  {last}", self.name, self.log_file().display())
    }

    /// The processor time that its current process has taken, of all threads, to a hundredth of a second.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let pid = self.running()?.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let ticks =
            ticks(&stat).with_context(|| format!("/proc/{pid}/stat of {} is odd: {stat}", self.name))?;
        Ok(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?)
    }

    /// Leaves it running when the value goes.
    pub(crate) fn leave(&mut self) {
        self.child = None;
    }

    fn running(&self) -> Result<&Child> {
        self.child.as_ref().with_context(|| format!("{} does not run", self.name))
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nothing is left to be told when even SIGKILL fails.
        let _ = self.kill();
    }
}

/// Starts a process by the thread that lives as long as this process.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static STARTER: LazyLock<Sender<Order>> = LazyLock::new(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Who ordered it waits for it.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, started) = channel();
    let gone = |_| io::Error::other("the thread that starts daemons is gone");
    STARTER.send((command, reply)).map_err(|_| io::Error::other("the thread that starts daemons is gone"))?;
    started.recv().map_err(gone)?
}

/// Fields 14 and 15 of proc_pid_stat(5): clock ticks in user and in kernel mode.
fn ticks(stat: &str) -> Option<u64> {
    // The second field is the name in parentheses, and may itself contain blanks and parentheses.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Field 3 of proc_pid_stat(5).
fn state(stat: &str) -> Option<&str> {
    stat.rsplit(')').next()?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_does_not_shift_the_fields_of_its_times() {
        let stat = "7 (odd ) name) S 1 7 7 0 -1 4194560 100 200 3 4 250 50 9 9 20 0 8 0 1000";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (short) S 1"), None);
        assert_eq!(state(stat), Some("S"));
    }
}
