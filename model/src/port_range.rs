//! Ranges of ports, as Calico writes them.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Ports, both ends included; the first is not above the last. As text `32768:65535`, or `5000` for one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// A range as objects write it: one port may be a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Port(u16),
    Text(String),
}

impl PortRange {
    /// The ports from `first` to `last`; `None` where there are none.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        let range = first.parse().ok().zip(last.parse().ok());
        range
            .and_then(|(first, last)| Self::new(first, last))
            .ok_or_else(|| format!("{text:?} is no range of ports, as 32768:65535"))
    }
}

impl TryFrom<Written> for PortRange {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Port(port) => Ok(Self { first: port, last: port }),
            Written::Text(text) => text.parse(),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_range_of_ports_is_read_as_calico_writes_it() {
        for (written, read) in [
            (json!("32768:65535"), Some("32768:65535")),
            (json!("5000"), Some("5000:5000")),
            (json!(5000), Some("5000:5000")),
            (json!("2:1"), None),
            (json!("1:2:3"), None),
            (json!("1:65536"), None),
            (json!(""), None),
        ] {
            let range = serde_json::from_value::<PortRange>(written.clone()).ok();
            assert_eq!(range.map(|range| range.to_string()).as_deref(), read, "{written}");
        }
    }
}
