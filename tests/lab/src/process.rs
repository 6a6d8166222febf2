//! A program in a namespace: start, stop, kill -9, start again; its output in a file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::{eventually, netns};

/// What of the caller's environment a program sees. The rest is kept from it: a `CALICO_…` that happens to be set on
/// a developer's machine must not change a test.
const INHERITED: [&str; 7] =
    ["PATH", "HOME", "TERM", "RUST_LOG", "RUST_BACKTRACE", "LAB_SLOWNESS", "LLVM_PROFILE_FILE"];

/// A command line and its environment, which can be started more than once.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    dir: Option<PathBuf>,
}

impl Program {
    /// The program at `path`, or found by that name in `PATH`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Program { path: path.into(), args: Vec::new(), env: BTreeMap::new(), dir: None }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment, which otherwise has only `PATH`, `HOME`, `TERM` and `RUST_…`.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets the directory in which it runs.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// As the standard library knows it, to be run in the caller's own namespace.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(manx_ground::go_environment());
        command.envs(&self.env);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// A running program. It is killed when the value is dropped, unless it is [left](Process::leave) running.
#[derive(Debug)]
pub struct Process {
    namespace: String,
    program: Program,
    log: PathBuf,
    /// Where in the log the output of the current run begins.
    begin: u64,
    child: Option<Child>,
}

impl Process {
    /// Starts `program` in the namespace (full name); output and errors are appended to the file `log`.
    pub(crate) fn start(namespace: &str, program: Program, log: PathBuf) -> Result<Process> {
        let mut process = Process { namespace: namespace.to_owned(), program, log, begin: 0, child: None };
        process.start_again()?;
        Ok(process)
    }

    /// Starts the same command line again, after [`Process::kill`] or [`Process::stop`].
    pub fn start_again(&mut self) -> Result<()> {
        use std::os::unix::process::CommandExt as _;
        ensure!(!self.is_running(), "{} is running already", self.program.name());
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        self.begin = log.metadata()?.len();
        let mut command = self.program.command();
        // A group of its own: Ctrl-C at the terminal reaches the lab, which then decides.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = netns::within(&self.namespace, || command.spawn())?;
        self.child = Some(child.with_context(|| format!("cannot run {}", self.program.name()))?);
        Ok(())
    }

    /// Replaces the program (other arguments, another environment) for the next [`Process::start_again`].
    pub fn set_program(&mut self, program: Program) {
        self.program = program;
    }

    /// What is run.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Sends SIGKILL and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    /// Sends SIGTERM and waits for its end, at most `timeout`; a program that does not obey is killed, and that is
    /// an error.
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.finish(Signal::TERM, timeout)
    }

    /// Sends any signal, for instance SIGHUP or SIGSTOP.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.program.name()))?;
        netns::send(pid, signal);
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let Some(child) = self.child.as_mut() else { bail!("{} does not run", self.program.name()) };
        let what = format!("{} to end", self.program.name());
        let status = eventually(timeout, &what, || child.try_wait()?.context("it still runs"))?;
        self.child = None;
        Ok(status)
    }

    pub(crate) fn finish(&mut self, signal: Signal, timeout: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(timeout).map_err(|error| match self.kill() {
            Ok(()) => error.context("it was killed"),
            Err(kill) => kill,
        })
    }

    /// Leaves it running when the value goes; `lab down` finds it by its namespace.
    pub fn leave(mut self) {
        self.child = None;
    }

    /// What the current (or last) run has written so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let begin = usize::try_from(self.begin).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[begin..]).into_owned()
    }

    /// Waits until the current run has written a line that contains `text`; a program that ends first is an error
    /// that shows its last lines.
    pub fn wait_for_log(&mut self, timeout: Duration, text: &str) -> Result<String> {
        let what = format!("{text:?} in {}", self.log.display());
        let mut ended = false;
        eventually(timeout, &what, || {
            let last_look = ended;
            ended = !self.is_running();
            let log = self.log();
            match log.lines().find(|line| line.contains(text)) {
                Some(line) => Ok(Ok(line.to_owned())),
                // It has ended before the log was read: there is nothing to wait for.
                None if last_look => Ok(Err(tail(&log))),
                None => bail!("it has written: {}", tail(&log)),
            }
        })?
        .map_err(|log| anyhow::anyhow!("{} ended without {text:?}: {log}", self.program.name()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to be told when even SIGKILL fails.
        let _ = self.kill();
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
