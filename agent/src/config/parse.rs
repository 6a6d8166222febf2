//! Reading one variable at a time, remembering what was wrong; and the grammars of their values.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use manx_model::{InterfaceAddress, Interval, Network};

use super::{AddressSource, ConfigError, DatastoreChoice, Notice, Settings, known};

/// Reads settings, and remembers every problem for one message at the end.
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    problems: Vec<String>,
    notices: Vec<Notice>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        let mut reader = Self { settings, problems: Vec::new(), notices: Vec::new() };
        for variable in settings.names() {
            match known::classify(variable) {
                known::Class::ActedOn | known::Class::NotOurs => {}
                known::Class::NotSupportedYet if settings.get(variable) == Some("") => {}
                known::Class::NotSupportedYet => {
                    reader.notices.push(Notice::NotSupportedYet { variable: variable.to_owned() });
                }
                known::Class::UnknownFelix => {
                    reader.notices.push(Notice::UnknownFelix { variable: variable.to_owned() });
                }
                known::Class::UnknownManx => reader.problems.push(format!(
                    "{variable}: Manx has no such variable; it has {}",
                    known::MANX.join(", ")
                )),
            }
        }
        reader
    }

    /// The text of `variable`; unset and empty are the same, as they are to Calico.
    pub(super) fn text(&self, variable: &str) -> Option<&'a str> {
        self.settings.get(variable).filter(|text| !text.is_empty())
    }

    /// The value of `variable`, or `None` where it is unset or wrong (which is remembered).
    pub(super) fn parse<T, E: Display>(
        &mut self,
        variable: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(variable, text, error);
                None
            }
        }
    }

    pub(super) fn wrong(&mut self, variable: &str, value: &str, reason: impl Display) {
        self.problems.push(format!("{}={value}: {reason}", self.settings.spelling(variable)));
    }

    pub(super) fn missing(&mut self, variable: &str, what: &str) {
        if !self.problems.iter().any(|problem| problem.starts_with(variable)) {
            self.problems.push(format!("{variable} is not set: {what}"));
        }
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        self.notices.sort();
        std::mem::take(&mut self.notices)
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        match self.problems.is_empty() {
            true => Ok(value),
            false => Err(ConfigError(self.problems)),
        }
    }
}

/// A time as Go writes one, as `60s`; longer than nothing.
pub(super) fn interval(text: &str) -> Result<Duration, &'static str> {
    let interval =
        text.parse().ok().map(|Interval(interval)| interval).filter(|interval| !interval.is_zero());
    interval.ok_or("it is no time, as 60s or 5m")
}

/// `IP`: nothing for `autodetect`, an address, or an address with its subnet's length.
pub(super) fn address(text: &str) -> Result<Option<AddressSource>, String> {
    const ALLOWED: &str = "it is neither autodetect nor an IPv4 address, as 10.0.0.5 or 10.0.0.5/24";
    if text == "autodetect" {
        return Ok(None);
    }
    let usable = |address: Ipv4Addr| {
        !(address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.is_broadcast())
    };
    let (source, address) = match text.parse::<Ipv4Addr>() {
        Ok(address) => (AddressSource::Address(address), address),
        Err(_) => {
            let interface: InterfaceAddress = text.parse().map_err(|_| ALLOWED.to_owned())?;
            (AddressSource::Interface(interface), interface.address())
        }
    };
    match usable(address) {
        true => Ok(Some(source)),
        false => {
            Err("a node needs an address of its own, not a loopback, multicast or unspecified one".into())
        }
    }
}

/// `MANX_DATASTORE`: `kubernetes`, `memory` or `file:DIR`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn datastore(text: &str) -> Result<DatastoreChoice, String> {
    match (text, text.strip_prefix("file:")) {
        (_, Some(directory)) => self::directory(directory).map(DatastoreChoice::File),
        ("memory", _) => Ok(DatastoreChoice::Memory),
        ("kubernetes", _) => Ok(DatastoreChoice::Kubernetes { kubeconfig: None }),
        _ => Err("it is none of kubernetes, memory, and file:DIR with an absolute directory".into()),
    }
}

/// `DATASTORE_TYPE`: Calico's word for it.
pub(super) fn datastore_type(text: &str) -> Result<DatastoreChoice, String> {
    match text {
        "kubernetes" => Ok(DatastoreChoice::Kubernetes { kubeconfig: None }),
        "etcdv3" => {
            Err("Manx keeps its objects in Kubernetes and speaks to no etcd; kubernetes is allowed".into())
        }
        _ => Err("kubernetes is allowed".into()),
    }
}

/// A namespace of Kubernetes.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    manx_model::check_key(manx_model::Kind::Secret, &format!("{text}/name")).map_err(|(_, reason)| reason)?;
    Ok(text.to_owned())
}

/// An absolute path of a file.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    directory(text).map_err(|_| "it is no absolute path of a file".into())
}

/// An absolute path.
pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() {
        true => Ok(path),
        false => Err("it is no absolute directory".into()),
    }
}

/// How many addresses of a block are held back at most.
pub(super) fn reserve(text: &str) -> Result<usize, &'static str> {
    const MOST: usize = 1024;
    text.parse().ok().filter(|count| *count <= MOST).ok_or("it is no number from 0 (none) to 1024")
}

/// A boolean as Felix reads one.
pub(super) fn felix_bool(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "t" => Ok(true),
        "false" | "0" | "no" | "n" | "f" => Ok(false),
        _ => Err("it is neither true nor false"),
    }
}

/// A boolean as Calico's start-up reads one: only these words are false.
pub(super) fn startup_bool(text: &str) -> bool {
    !matches!(text.to_ascii_lowercase().as_str(), "false" | "0" | "no" | "n" | "f")
}

/// A TCP port.
pub(super) fn port(text: &str) -> Result<u16, &'static str> {
    text.parse().ok().filter(|port| *port != 0).ok_or("it is no TCP port: 1 to 65535")
}

/// `Enabled` or `Disabled`.
pub(super) fn enabled(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "enabled" => Ok(true),
        "disabled" => Ok(false),
        _ => Err("it is neither Enabled nor Disabled"),
    }
}

/// An IPv4 address, or `none`.
pub(super) fn nat_address(text: &str) -> Result<Option<Ipv4Addr>, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "none" => Ok(None),
        text => text.parse().map(Some).map_err(|_| "it is neither none nor an IPv4 address"),
    }
}

/// Networks and addresses, with commas between them.
pub(super) fn networks(text: &str) -> Result<Vec<Network>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
}

/// An MTU in bytes; 0 means automatic.
///
/// # Errors
/// What is allowed.
pub fn mtu(text: &str) -> Result<Option<u32>, &'static str> {
    match text.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(mtu @ 576..=65535) => Ok(Some(mtu)),
        _ => Err("it is no MTU: 576 to 65535 bytes, or 0 for automatic"),
    }
}

/// The prefix of pods' host ends.
///
/// # Errors
/// What is allowed.
pub fn prefix(text: &str) -> Result<String, &'static str> {
    let good = (1..=4).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match good {
        true => Ok(text.to_owned()),
        false => Err(
            "it is no prefix of 1 to 4 letters, digits, '-' or '_' (11 digits follow, and a name has 15 bytes)",
        ),
    }
}
