//! Times as they are stored: RFC 3339, whole seconds, UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// `now` as Kubernetes writes it, as in `2026-11-24T00:00:00Z`: for the attribute `timestamp` of an allocation, too.
/// A clock beyond the year 9999 counts as its start.
pub fn rfc3339(now: SystemTime) -> String {
    Timestamp::from_second(seconds(now)).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Seconds from `then` to `now`, negative when `then` is yet to come; `None` when `then` is no time.
pub(crate) fn seconds_since(then: &str, now: SystemTime) -> Option<i64> {
    let then: Timestamp = then.parse().ok()?;
    Some(seconds(now) - then.as_second())
}

/// Nanoseconds since 1970, where a new block's sequence number begins.
pub(crate) fn nanoseconds(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 1)
}

fn seconds(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_and_read_in_whole_seconds() {
        let now = UNIX_EPOCH + Duration::from_millis(1_793_487_600_999);
        assert_eq!(rfc3339(now), "2026-10-31T23:00:00Z");
        assert_eq!(seconds_since("2026-10-31T22:59:00Z", now), Some(60));
        assert_eq!(seconds_since("2026-11-01T00:00:01+01:00", now), Some(-1));
        assert_eq!(seconds_since("yesterday", now), None);
    }
}
