//! Processor time of this process's threads by their name.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The processor time that all living threads of this name have taken, to the nanosecond.
///
/// # Errors
/// This Linux does not say (`CONFIG_SCHED_INFO`).
pub fn of_threads(name: &str) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // A thread may end while it is looked at.
        let Ok(comm) = fs::read_to_string(task.join("comm")) else { continue };
        if comm.trim_end() != name {
            continue;
        }
        let text = fs::read_to_string(task.join("schedstat"))?;
        let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
        sum += Duration::from_nanos(nanoseconds.with_context(|| format!("schedstat says {text:?}"))?);
    }
    Ok(sum)
}
