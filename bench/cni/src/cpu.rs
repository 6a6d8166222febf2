//! Processor time: of this process, of the children that it has waited for, and of others by their id.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use manx_kubernetes::ControlPlane;
use manx_lab::eventually;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::store::SOON;

/// `USER_HZ`, the unit of /proc/PID/stat: 100 per second on every architecture that we build for.
const TICK: Duration = Duration::from_millis(10);

/// A process rests that uses no more than a tick in this time.
const LOOK: Duration = Duration::from_millis(200);

/// Our agent.
pub(crate) const AGENT: &str = "agent";
/// kube-apiserver, without an audit log.
pub(crate) const API_SERVER: &str = "API server";
/// Its etcd, which waits for no disk.
pub(crate) const ETCD: &str = "etcd";

/// The processes beside the plugin's whose time is counted.
#[derive(Clone, Copy)]
pub(crate) struct Watched<'a> {
    /// The process id of the agent.
    pub(crate) agent: u32,
    /// What the agent asks, where that is Kubernetes.
    pub(crate) control_plane: Option<&'a ControlPlane>,
}

impl Watched<'_> {
    /// The time that each has taken since it was started.
    fn now(self) -> Result<BTreeMap<&'static str, Duration>> {
        let mut times = BTreeMap::from([(AGENT, of(self.agent)?)]);
        if let Some(control_plane) = self.control_plane {
            let cpu = control_plane.cpu()?;
            times.extend([(API_SERVER, cpu.api_server), (ETCD, cpu.etcd)]);
        }
        Ok(times)
    }
}

/// All of them at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    /// This process: the driver, and the bare calls.
    pub(crate) own: Duration,
    /// The plugins, with all their children.
    pub(crate) children: Duration,
    /// The watched ones, by name.
    pub(crate) watched: BTreeMap<&'static str, Duration>,
}

impl Usage {
    pub(crate) fn now(watched: Watched<'_>) -> Result<Self> {
        Ok(Self {
            own: rusage(UsageWho::RUSAGE_SELF)?,
            children: rusage(UsageWho::RUSAGE_CHILDREN)?,
            watched: watched.now()?,
        })
    }

    /// As soon as the watched processes have come to rest.
    pub(crate) fn at_rest(watched: Watched<'_>) -> Result<Self> {
        let (mut then, mut last) = (Instant::now(), Self::now(watched)?);
        eventually(SOON, "the agent and the control plane to rest", || {
            ensure!(then.elapsed() >= LOOK, "it is too early to say");
            let now = Self::now(watched)?;
            let used = now.since(&last).watched;
            (then, last) = (Instant::now(), now.clone());
            ensure!(used.values().all(|used| *used <= TICK), "they have just used {used:?}");
            Ok(now)
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        let started = |name| before.watched.get(name).copied().unwrap_or_default();
        Self {
            own: self.own - before.own,
            children: self.children - before.children,
            watched: self.watched.iter().map(|(name, time)| (*name, *time - started(name))).collect(),
        }
    }
}

fn rusage(who: UsageWho) -> Result<Duration> {
    let usage = getrusage(who)?;
    let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    Ok(Duration::from_micros(u64::try_from(micros(usage.user_time()) + micros(usage.system_time()))?))
}

/// `utime` and `stime`, fields 14 and 15 of proc_pid_stat(5); the name in field 2 may contain blanks.
fn of(pid: u32) -> Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&file).with_context(|| format!("process {pid} has ended"))?;
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u32>().ok());
    let ticks = ticks(11).zip(ticks(12)).with_context(|| format!("{file} says {text:?}"))?;
    Ok(TICK * (ticks.0 + ticks.1))
}
