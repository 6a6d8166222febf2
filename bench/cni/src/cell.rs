//! Measuring: one verb of one plugin for the pods of a turn, some at once; the turns of a cell are put together.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use manx_lab::netns;

use crate::cpu::{Usage, Watched};
use crate::pods::{Pod, Pods};

/// What one verb of one plugin took, over all turns.
#[derive(Default)]
pub(crate) struct Cell {
    latencies: Vec<Duration>,
    wall: Duration,
    own: Duration,
    children: Duration,
    watched: BTreeMap<&'static str, Duration>,
}

/// The cells, by plugin and verb.
#[derive(Default)]
pub(crate) struct Cells(BTreeMap<(&'static str, &'static str), Cell>);

impl Cells {
    /// Calls for every pod from `at_once` threads in the node's namespace; the first error ends the run. What the watched
    /// processes do of it when the last call has been answered is counted, too.
    pub(crate) fn measure(
        &mut self,
        plugin: &'static str,
        verb: &'static str,
        at_once: usize,
        watched: Watched<'_>,
        pods: &Pods<'_>,
        call: impl Fn(&Pod) -> Result<()> + Sync,
    ) -> Result<()> {
        let before = Usage::now(watched)?;
        let start = Instant::now();
        let latencies = latencies(at_once, pods, call)?;
        let wall = start.elapsed();
        let used = Usage::at_rest(watched)?.since(&before);
        let cell = self.0.entry((plugin, verb)).or_default();
        cell.latencies.extend(latencies);
        cell.latencies.sort_unstable();
        cell.wall += wall;
        cell.own += used.own;
        cell.children += used.children;
        for (name, time) in used.watched {
            *cell.watched.entry(name).or_default() += time;
        }
        Ok(())
    }

    pub(crate) fn get(&self, plugin: &str, verb: &str) -> Option<&Cell> {
        self.0.iter().find_map(|(key, cell)| (*key == (plugin, verb)).then_some(cell))
    }
}

/// How long each call took. The threads enter the node's namespace before the first call; what they execute is in it.
fn latencies(
    at_once: usize,
    pods: &Pods<'_>,
    call: impl Fn(&Pod) -> Result<()> + Sync,
) -> Result<Vec<Duration>> {
    let next = AtomicUsize::new(0);
    let taken = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        netns::enter(&pods.node)?;
        while let Some(pod) = pods.all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let start = Instant::now();
            call(pod)?;
            let latency = start.elapsed();
            taken.lock().map_err(|_| anyhow::anyhow!("another call has failed"))?.push(latency);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(taken.into_inner().unwrap_or_default())
}

impl Cell {
    /// The latency that `share` of the calls did not exceed; 0.5 is the median.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = (share * last as f64).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }

    /// Calls per second.
    pub(crate) fn rate(&self) -> f64 {
        self.count() / self.wall.as_secs_f64()
    }

    /// Processor time of the plugin's processes, per call, milliseconds.
    pub(crate) fn plugin(&self) -> f64 {
        self.per_call(self.children)
    }

    /// Processor time of this process, per call, milliseconds: of the bare calls that is the kernel's.
    pub(crate) fn own(&self) -> f64 {
        self.per_call(self.own)
    }

    /// Processor time of a watched process, per call, milliseconds.
    pub(crate) fn watched(&self, name: &str) -> f64 {
        self.per_call(self.watched.get(name).copied().unwrap_or_default())
    }

    /// The names of the watched processes.
    pub(crate) fn watched_names(&self) -> impl Iterator<Item = &str> {
        self.watched.keys().copied()
    }

    fn per_call(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1000.0 / self.count()
    }

    #[allow(clippy::cast_precision_loss)]
    fn count(&self) -> f64 {
        self.latencies.len() as f64
    }
}
