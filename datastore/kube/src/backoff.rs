//! How long to wait before the next try: longer each time, and spread, so that a thousand agents do not come at once.

use std::time::Duration;

/// Waits that double from [`Backoff::shortest`] to the longest, each spread over its upper half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits between `shortest` and `longest`.
    pub(crate) fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest * 2 }
    }

    /// The next wait: at least as long as the server asks, and never longer than the longest.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let wait = self.next.min(self.longest);
        self.next = wait * 2;
        let wait = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
        asked.map_or(wait, |asked| spread(asked).max(wait)).clamp(self.shortest, self.longest)
    }

    /// What comes next is a first wait again.
    pub(crate) fn reset(&mut self) {
        self.next = self.shortest * 2;
    }
}

/// A wait that was asked of many, up to a quarter longer.
pub(crate) fn spread(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + fastrand::f64() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_grow_within_their_bounds_and_are_spread() {
        let mut backoff = Backoff::new(SECOND / 2, 30 * SECOND);
        let waits: Vec<_> = (0..50).map(|_| backoff.next(None)).collect();
        assert!(waits.iter().all(|wait| (SECOND / 2..=30 * SECOND).contains(wait)), "{waits:?}");
        assert!(waits[0] <= SECOND && waits[5] >= 15 * SECOND, "{waits:?}");
        assert!(waits[6..].windows(2).any(|pair| pair[0] != pair[1]), "{waits:?}");
        backoff.reset();
        assert!(backoff.next(None) <= SECOND);
    }

    #[test]
    fn what_the_server_asks_for_is_granted_up_to_the_longest_wait() {
        let mut backoff = Backoff::new(SECOND / 2, 30 * SECOND);
        let wait = backoff.next(Some(7 * SECOND));
        assert!((7 * SECOND..9 * SECOND).contains(&wait), "{wait:?}");
        assert_eq!(backoff.next(Some(3600 * SECOND)), 30 * SECOND);
    }
}
