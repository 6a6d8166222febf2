//! Processor time: of this process, of the children that it has waited for, and of others by their id.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// `USER_HZ`, the unit of /proc/PID/stat: 100 per second on every architecture that we build for.
const TICK: Duration = Duration::from_millis(10);

/// Another process.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("write NAME=PID")?;
        let pid = pid.parse().map_err(|_| format!("{pid:?} is no process id"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// All of them at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    /// This process: the driver, and the bare calls.
    pub(crate) own: Duration,
    /// The plugins, with all their children.
    pub(crate) children: Duration,
    /// The watched ones, in order.
    pub(crate) watched: Vec<Duration>,
}

impl Usage {
    pub(crate) fn now(watched: &[Watched]) -> Result<Self> {
        Ok(Self {
            own: rusage(UsageWho::RUSAGE_SELF)?,
            children: rusage(UsageWho::RUSAGE_CHILDREN)?,
            watched: watched.iter().map(|process| of(process.pid)).collect::<Result<_>>()?,
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        let pairs = self.watched.iter().zip(&before.watched);
        Self {
            own: self.own - before.own,
            children: self.children - before.children,
            watched: pairs.map(|(now, before)| *now - *before).collect(),
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
