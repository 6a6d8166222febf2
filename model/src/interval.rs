//! Spans of time as Kubernetes' objects write them.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A span of time in Go's grammar: `90s`, `1h30m`, `1.5s`, `0`; never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Interval(pub Duration);

const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("\u{b5}s", 1e-6),
    ("\u{3bc}s", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no span of time, as 90s, 1h30m or 1.5s");
        if text == "0" {
            return Ok(Self::default());
        }
        let mut rest = text;
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let in_number = |c: char| c.is_ascii_digit() || c == '.';
            let (number, unit) = rest.split_at(rest.find(|c| !in_number(c)).ok_or_else(wrong)?);
            let (unit, after) = unit.split_at(unit.find(in_number).unwrap_or(unit.len()));
            let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            seconds += number.parse::<f64>().map_err(|_| wrong())? * scale;
            rest = after;
        }
        match text.is_empty() {
            true => Err(wrong()),
            false => Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| wrong()),
        }
    }
}

impl TryFrom<String> for Interval {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_time_is_read_as_go_writes_it() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("2m0s", 120_000),
            ("300ms", 300),
        ] {
            assert_eq!(text.parse(), Ok(Interval(Duration::from_millis(milliseconds))), "{text}");
        }
        for wrong in ["", "5", "s", "-1s", "1d", "1..5s", "1s2", "9999999999999999999999h", "\u{e9}"] {
            assert!(wrong.parse::<Interval>().unwrap_err().contains("as 90s"), "{wrong}");
        }
    }
}
