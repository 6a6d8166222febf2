//! The changes of a namespace's IPv4 routes, by `ip monitor route`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{Process, Program, eventually};

const PATIENCE: Duration = Duration::from_secs(10);

/// A running watch over the IPv4 routes of a namespace.
#[derive(Debug)]
pub struct RouteMonitor {
    process: Process,
}

/// One change of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEvent {
    /// When `ip` read it, since midnight UTC of the day: the difference of two is the time between them.
    pub at: Duration,
    /// Whether the route went away; otherwise it was added or replaced.
    pub deleted: bool,
    /// The route as `ip route` prints it, one blank between words.
    pub route: String,
}

impl RouteEvent {
    /// Reads a line of `ip -ts monitor route`; others are `None`.
    pub fn parse(line: &str) -> Option<RouteEvent> {
        let (stamp, rest) = line.strip_prefix('[')?.split_once(']')?;
        let (_, time) = stamp.split_once('T')?;
        let mut parts = time.split([':', '.']).map(str::parse::<u64>);
        let mut part = || parts.next()?.ok();
        let (hours, minutes, seconds, micros) = (part()?, part()?, part()?, part()?);
        let at = Duration::from_secs(hours * 3600 + minutes * 60 + seconds) + Duration::from_micros(micros);
        let words: Vec<&str> = rest.split_whitespace().collect();
        let deleted = words.first() == Some(&"Deleted");
        Some(RouteEvent { at, deleted, route: words[usize::from(deleted)..].join(" ") })
    }
}

impl RouteMonitor {
    pub(crate) fn start(namespace: &str, log: PathBuf) -> Result<RouteMonitor> {
        let program = Program::new("ip").args(["-4", "-ts", "monitor", "route"]);
        let process = Process::start(namespace, program, log)?;
        let pid = process.pid().context("ip monitor has no process id")?;
        // `ip monitor` says nothing when it is ready; its socket's groups do (/proc/PID/net/netlink).
        eventually(PATIENCE, "ip monitor to listen", || {
            let sockets = fs::read_to_string(format!("/proc/{pid}/net/netlink"))?;
            let listens = |line: &str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.get(2) == Some(&pid.to_string().as_str())
                    && words.get(3).is_some_and(|g| *g != "00000000")
            };
            sockets.lines().any(listens).then_some(()).context("it has no netlink socket with a group yet")
        })?;
        Ok(RouteMonitor { process })
    }

    /// The changes so far, those of the kernel's own tables of local addresses included.
    pub fn events(&self) -> Vec<RouteEvent> {
        self.process.log().lines().filter_map(RouteEvent::parse).collect()
    }

    /// Waits for a change for which `wanted` holds.
    pub fn wait_for(
        &self,
        timeout: Duration,
        what: &str,
        wanted: impl Fn(&RouteEvent) -> bool,
    ) -> Result<RouteEvent> {
        eventually(timeout, what, || {
            let events = self.events();
            let seen = format!("it has seen {events:?}");
            events.into_iter().find(&wanted).context(seen)
        })
    }

    /// Ends the watch; the changes that were seen.
    pub fn stop(mut self) -> Result<Vec<RouteEvent>> {
        self.process.kill()?;
        Ok(self.events())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ip_monitor_is_a_time_a_verb_and_a_route() {
        let line = "[2026-11-24T00:59:10.000250] Deleted 192.168.1.0/26 via 172.171.5.96  dev eth0 proto 77 ";
        let event = RouteEvent::parse(line).unwrap();
        assert_eq!(event.at, Duration::from_micros((59 * 60 + 10) * 1_000_000 + 250));
        assert!(event.deleted);
        assert_eq!(event.route, "192.168.1.0/26 via 172.171.5.96 dev eth0 proto 77");
        assert_eq!(RouteEvent::parse("rubbish"), None);
    }
}
