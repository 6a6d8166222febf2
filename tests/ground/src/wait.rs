//! Waiting for a condition: the one place of the tests that may sleep.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Times [`slowness`], as an attempt takes the time of what it waits for: a TLS handshake, that of the API server.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Tries `attempt` until it succeeds or `timeout` (times [`slowness`]) has passed; the error names `what` was
/// waited for and the last failure, in words.
pub fn eventually<T>(timeout: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let timeout = timeout * slowness();
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) if start.elapsed() >= timeout => {
                return Err(failure).with_context(|| format!("waited {timeout:?} in vain for {what}"));
            }
            Err(_) => {}
        }
        nap(pause);
        pause = (pause * 2).min(LONGEST_PAUSE * slowness());
    }
}

/// How many times slower than usual this machine is: the guest under emulation sets `LAB_SLOWNESS`, and every
/// time limit of the lab is multiplied by it. 1 when it is unset.
pub fn slowness() -> u32 {
    std::env::var("LAB_SLOWNESS").ok().and_then(|value| value.parse().ok()).unwrap_or(1).max(1)
}

#[allow(clippy::disallowed_methods, reason = "other processes and the kernel have no clock to advance")]
fn nap(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut left = 3;
        let value = eventually(Duration::from_secs(5), "the count", || {
            left -= 1;
            anyhow::ensure!(left == 0, "{left} left");
            Ok("done")
        });
        assert_eq!(value.unwrap(), "done");
    }

    #[test]
    fn a_wait_in_vain_names_what_was_waited_for_and_the_last_failure() {
        let error =
            eventually::<()>(Duration::ZERO, "the cat's tail", || anyhow::bail!("it is a Manx")).unwrap_err();
        let words = format!("{error:#}");
        assert!(words.contains("the cat's tail") && words.ends_with("it is a Manx"), "{words}");
    }
}
