//! Raising a lab, finding it again, looking around in it, and taking it down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};

use crate::machine::cgroup;
use crate::node::Node;
use crate::state::{self, Owner};
use crate::topology::{Fabric, Topology};
use crate::{Capture, Ping, Process, Program, RouteMonitor, TcpReport, UdpPace, UdpProbe};
use crate::{bird, netns, ping, plan, tcp};

/// How a lab is to be raised.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name, the prefix of its namespaces: lower-case letters and digits.
    pub name: String,
    /// What it consists of.
    pub topology: Topology,
}

impl Default for Options {
    /// The founding topology under the name `manx`.
    fn default() -> Self {
        Options { name: "manx".to_owned(), topology: Topology::founding() }
    }
}

impl Options {
    /// A lab for a test: `word`, this process's id and a counter make a name that nobody else has.
    pub fn unique(word: &str, topology: Topology) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Options { name: format!("{word}{}x{count}", std::process::id()), topology }
    }
}

/// A small cluster in network namespaces. It goes away with the value, unless it was [opened](Lab::open) or is
/// [kept](Lab::keep). All methods may be called from many threads.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: PathBuf,
    topology: Topology,
    owned: bool,
    /// Only in the process that raised the lab.
    bird: Option<Process>,
}

/// What [`Lab::sweep`] did with one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swept {
    /// It is gone.
    Removed(String),
    /// It was left alone, since it was kept on purpose.
    Kept(String),
    /// It was left alone, since the process with this id uses it.
    InUse(String, u32),
}

impl Lab {
    /// Raises a lab. A dead lab of the same name is swept first; a living one is an error. When anything fails,
    /// everything made so far is removed.
    pub fn up(options: Options) -> Result<Lab> {
        let Options { name, topology } = options;
        check_name(&name)?;
        topology.check()?;
        ensure!(rustix::process::geteuid().is_root(), "a lab needs root, since it makes network namespaces");
        let dir = state::root().join(&name);
        state::check_length(&dir, &topology)?;
        if dir.exists() && state::owner(&dir) == Owner::Dead {
            remove(&name, &dir)?;
        }
        let strangers = netns::with_prefix(&format!("{name}-"));
        ensure!(
            dir.exists() || strangers.is_empty(),
            "namespaces {strangers:?} are there, but no lab {name} of this tree: \
             choose another name, or delete them with `ip netns del`"
        );
        state::create(&name, &dir, &topology)?;
        let mut lab = Lab { name, dir, topology, owned: true, bird: None };
        lab.build().with_context(|| format!("raising lab {}", lab.name))?;
        Ok(lab)
    }

    /// Finds a lab that is up, for instance in another process. Dropping the value leaves the lab up.
    pub fn open(name: &str) -> Result<Lab> {
        check_name(name)?;
        let dir = state::root().join(name);
        ensure!(
            dir.exists(),
            "no lab {name} is up; `lab up --lab {name}` raises it, `lab list` shows which are"
        );
        let topology = state::topology(&dir)?;
        Ok(Lab { name: name.to_owned(), dir, topology, owned: false, bird: None })
    }

    /// The names of the labs of this tree, each with the process that owns it, if one does and lives.
    pub fn list() -> Vec<(String, Option<u32>)> {
        let owner = |dir: PathBuf| match state::owner(&dir) {
            Owner::Alive(pid) => Some(pid),
            Owner::Dead | Owner::Nobody => None,
        };
        state::all().into_iter().map(|(name, dir)| (name, owner(dir))).collect()
    }

    /// Removes every lab whose owner is dead, as a crashed test leaves it, and with `kept` also those that were
    /// [kept](Lab::keep).
    pub fn sweep(kept: bool) -> Result<Vec<Swept>> {
        let mut swept = Vec::new();
        for (name, dir) in state::all() {
            match state::owner(&dir) {
                Owner::Alive(pid) => swept.push(Swept::InUse(name, pid)),
                Owner::Nobody if !kept => swept.push(Swept::Kept(name)),
                Owner::Nobody | Owner::Dead => {
                    remove(&name, &dir)?;
                    swept.push(Swept::Removed(name));
                }
            }
        }
        Ok(swept)
    }

    fn build(&mut self) -> Result<()> {
        let namespaces: Vec<String> =
            plan::namespaces(&self.topology).iter().map(|short| self.netns(short)).collect();
        netns::add(&namespaces)?;
        for step in plan::steps(&self.name, &self.topology)? {
            let namespace = self.netns(&step.namespace);
            netns::within(&namespace, || write_sysctls(&step.sysctls))??;
            netns::ip_lines(&namespace, &step.lines)?;
        }
        if self.topology.fabric == Fabric::Bird {
            self.bird = Some(bird::start(&self.topology, &self.netns("tor"), &self.dir)?);
        }
        Ok(())
    }

    /// Takes the lab down: processes, namespaces, directory.
    pub fn down(mut self) -> Result<()> {
        self.owned = false;
        remove(&self.name, &self.dir)
    }

    /// Leaves the lab up after this process has ended.
    pub fn keep(mut self) -> Result<()> {
        self.owned = false;
        if let Some(bird) = self.bird.take() {
            bird.leave();
        }
        state::disown(&self.dir)
    }

    /// Its name, which is the prefix of its namespaces.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory, where everything is that it writes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it consists of.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The full name of a namespace: that of `node1` in lab `manx` is `manx-node1`.
    pub fn netns(&self, short: &str) -> String {
        format!("{}-{short}", self.name)
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Result<Node<'_>> {
        let found = self.topology.nodes.iter().find(|node| node.name == name);
        let spec = found.with_context(|| format!("lab {} has no node {name}", self.name))?;
        Ok(Node { lab: self, spec })
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.topology.nodes.iter().map(|spec| Node { lab: self, spec })
    }

    /// Runs a program to its end in the namespace of a node, a pod, `tor` or `outside`, whatever its exit code.
    pub fn output(&self, namespace: &str, program: &Program) -> Result<Output> {
        let mut command = program.command();
        netns::within(&self.netns(namespace), || command.output())?
            .with_context(|| format!("cannot run {}", program.name()))
    }

    /// Runs a command in a namespace; its standard output. A nonzero exit code is an error with its words.
    pub fn exec(&self, namespace: &str, command: &[&str]) -> Result<String> {
        let (name, args) = command.split_first().context("an empty command")?;
        let output = self.output(namespace, &Program::new(name).args(args))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let words = if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() };
            bail!("{} in {}: {}: {words}", command.join(" "), self.netns(namespace), output.status);
        }
        Ok(stdout)
    }

    /// The main IPv4 routes of a namespace in the kernel's order, one blank between words.
    pub fn routes(&self, namespace: &str) -> Result<Vec<String>> {
        let text = self.exec(namespace, &["ip", "-4", "route", "show"])?;
        Ok(text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
    }

    /// Watches the changes of a namespace's routes; when this returns, the watch has begun.
    pub fn route_monitor(&self, namespace: &str) -> Result<RouteMonitor> {
        RouteMonitor::start(&self.netns(namespace), self.file("routes", namespace))
    }

    /// Captures the packets on a device of a namespace; when this returns, the capture has begun.
    pub fn capture(&self, namespace: &str, device: &str, filter: &str) -> Result<Capture> {
        Capture::start(&self.netns(namespace), device, filter, self.file("capture", namespace))
    }

    /// One ping; an error says that no answer came.
    pub fn ping_once(&self, namespace: &str, target: std::net::Ipv4Addr) -> Result<()> {
        ping::once(self, namespace, target)
    }

    /// A continuous ping with one packet per `interval`.
    pub fn ping(
        &self,
        namespace: &str,
        target: std::net::Ipv4Addr,
        interval: std::time::Duration,
    ) -> Result<Ping> {
        Ping::start(&self.netns(namespace), target, interval, self.file("ping", namespace))
    }

    /// Numbered datagrams from one namespace to an address in another, which sends them back.
    pub fn udp_probe(
        &self,
        from: &str,
        to: &str,
        address: std::net::Ipv4Addr,
        pace: UdpPace,
    ) -> Result<UdpProbe> {
        UdpProbe::start(&self.netns(from), &self.netns(to), address, pace)
    }

    /// Moves `bytes` bytes over one TCP connection and compares what arrives.
    pub fn tcp_transfer(
        &self,
        from: &str,
        to: &str,
        address: std::net::Ipv4Addr,
        bytes: usize,
    ) -> Result<TcpReport> {
        tcp::transfer(&self.netns(from), &self.netns(to), address, bytes)
    }

    /// Asks the ToR's BIRD, for instance `show route`; an error when BIRD does not understand.
    pub fn bird(&self, command: &str) -> Result<String> {
        bird::ask(&self.dir, command)
    }

    /// The state of the ToR's session with a node, for instance `Passive` or `Established`.
    pub fn bird_session(&self, node: &str) -> Result<String> {
        bird::session_state(&self.bird("show protocols")?, node)
    }

    /// The ToR's BIRD, to be stopped or killed and started again; only in the process that raised the lab.
    pub fn bird_process(&mut self) -> Result<&mut Process> {
        self.bird.as_mut().context("this process runs no BIRD")
    }

    /// A file name in the lab's directory that nothing else uses.
    fn file(&self, kind: &str, namespace: &str) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{kind}-{namespace}-{}-{count}.log", std::process::id()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = remove(&self.name, &self.dir)
        {
            eprintln!("lab {}: not everything could be removed: {error:#}", self.name);
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let plain = name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    ensure!(
        plain && (1..=32).contains(&name.len()),
        "lab {name:?}: a lab's name is 1 to 32 lower-case letters and digits"
    );
    Ok(())
}

fn remove(name: &str, dir: &Path) -> Result<()> {
    netns::remove(&netns::with_prefix(&format!("{name}-")))?;
    cgroup::remove_all(name)?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn write_sysctls(sysctls: &[(&str, &str)]) -> Result<()> {
    for (name, value) in sysctls {
        let file = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&file, value).with_context(|| format!("cannot write {value} to {file}"))?;
    }
    Ok(())
}
