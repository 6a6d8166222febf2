//! The network configuration that the runtime writes to the plugin's stdin.
//!
//! Unknown keys are fine in CNI: runtimes and meta plugins add their own, and a Calico user's file keeps all of
//! Calico's. What we read is checked here, by the plugin and again by the agent; everything else passes untouched.
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `cniVersion` | version of the specification | 0.2.0 (which we refuse) |
//! | `name` | the network; part of each address's handle | required |
//! | `mtu` | MTU of the pod's veth, octets; 0: the agent decides | 0 |
//! | `ipam` | `type` `calico-ipam` or `manx-ipam`, `ipv4_pools`, `ipv6_pools`, `assign_ipv4`, `assign_ipv6` | any pool, IPv4 |
//! | `container_settings.allow_ip_forwarding` | leave `ip_forward` on in the pod | false |
//! | `socket` | the agent's socket | [`DEFAULT_SOCKET`] |
//! | `spool` | the directory for DELs that no agent took | [`DEFAULT_SPOOL`] |
//! | `timeout_seconds` | how long to wait for the agent, 1 to 600 | ADD 90, others 60 |

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::protocol::Attachment;
use crate::{CniError, CniVersion, Code};

/// Where the agent listens.
pub const DEFAULT_SOCKET: &str = "/run/manx/cni.sock";

/// Where a DEL waits for the agent.
pub const DEFAULT_SPOOL: &str = "/var/lib/manx/cni-spool";

/// The longest `name`: a handle is `<name>.<container id>`, and must fit a Kubernetes name of 253 octets.
pub const MAX_NAME: usize = 96;

/// What a path of a unix socket may be long: `sun_path` (unix(7)) less its closing zero.
const MAX_SOCKET: usize = 107;

/// What we read of a network configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Conf {
    /// `cniVersion`.
    pub version: CniVersion,
    /// `name`: letters, digits, `_`, `.`, `-`, beginning with a letter or digit; at most [`MAX_NAME`] long.
    pub name: String,
    /// `mtu` in octets, 68 to 65535. `None`: the agent decides.
    pub mtu: Option<u32>,
    /// `ipam`.
    pub ipam: Ipam,
    /// `container_settings.allow_ip_forwarding`.
    pub allow_ip_forwarding: bool,
    /// `prevResult`: what ADD reported; see [`crate::result::previous`].
    pub prev_result: Option<Value>,
    /// `socket`.
    pub socket: PathBuf,
    /// `spool`.
    pub spool: PathBuf,
    /// `timeout_seconds`.
    pub timeout: Option<Duration>,
}

/// The section `ipam`: Calico's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipam {
    /// Pools to choose from, as names or CIDRs; empty: any pool that selects the pod.
    pub ipv4_pools: Vec<String>,
    /// The same for IPv6.
    pub ipv6_pools: Vec<String>,
    /// Assign an IPv4 address (default true).
    pub assign_ipv4: bool,
    /// Assign an IPv6 address (default false).
    pub assign_ipv6: bool,
}

impl Conf {
    /// Reads the JSON of stdin. Errors: [`Code::DECODE`] for what is no JSON object.
    pub fn decode(stdin: &[u8]) -> Result<Value, CniError> {
        let undecodable = |details| {
            CniError::new(Code::DECODE, "the network configuration on stdin cannot be decoded", details)
        };
        if stdin.iter().all(u8::is_ascii_whitespace) {
            return Err(undecodable("stdin is empty; the runtime writes the configuration there".to_owned()));
        }
        match serde_json::from_slice(stdin) {
            Ok(Value::Object(conf)) => Ok(Value::Object(conf)),
            Ok(_) => Err(undecodable("it is JSON, but no object".to_owned())),
            Err(error) => Err(undecodable(format!("it is no JSON: {error}"))),
        }
    }

    /// The version of `conf`; 0.2.0 where there is none, as the specification says.
    /// Errors: [`Code::INCOMPATIBLE_VERSION`].
    pub fn version(conf: &Value) -> Result<CniVersion, CniError> {
        CniVersion::parse(Section::of(conf).text("cniVersion")?.unwrap_or("0.2.0"))
    }

    /// Checks a configuration. Errors: [`Code::INCOMPATIBLE_VERSION`], and [`Code::CONFIG`] which names the key.
    pub fn from_value(conf: &Value) -> Result<Self, CniError> {
        let section = Section::of(conf);
        Ok(Self {
            version: Self::version(conf)?,
            name: name(&section)?,
            mtu: mtu(&section)?,
            ipam: Ipam::from_section(&section.section("ipam")?)?,
            allow_ip_forwarding: section
                .section("container_settings")?
                .flag("allow_ip_forwarding")?
                .unwrap_or(false),
            prev_result: section.value("prevResult").cloned(),
            socket: socket(&section)?,
            spool: path(&section, "spool", DEFAULT_SPOOL)?,
            timeout: timeout(&section)?,
        })
    }
}

/// `cni.dev/valid-attachments` of a GC. `null` is the empty list of a runtime written in Go; a missing list is an error,
/// since reading it as empty would release the addresses of every pod. Errors: [`Code::CONFIG`].
pub fn valid_attachments(conf: &Value) -> Result<Vec<Attachment>, CniError> {
    const KEY: &str = "cni.dev/valid-attachments";
    match conf.get(KEY) {
        None => Err(invalid(format!(
            "{KEY} is missing: GC needs the list of the attachments that are still valid"
        ))),
        Some(Value::Null) => Ok(Vec::new()),
        Some(list) => Vec::deserialize(list).map_err(|error| {
            invalid(format!("{KEY}: {error}; it must be a list of {{\"containerID\": ..., \"ifname\": ...}}"))
        }),
    }
}

impl Ipam {
    fn from_section(ipam: &Section<'_>) -> Result<Self, CniError> {
        match ipam.text("type")? {
            None | Some("calico-ipam" | "manx-ipam") => {}
            Some(other) => {
                return Err(invalid(format!(
                    "ipam.type is {other:?}; Manx assigns addresses itself, from its own blocks: write \"manx-ipam\" or \
                     \"calico-ipam\""
                )));
            }
        }
        Ok(Self {
            ipv4_pools: ipam.texts("ipv4_pools")?,
            ipv6_pools: ipam.texts("ipv6_pools")?,
            assign_ipv4: ipam.flag("assign_ipv4")?.unwrap_or(true),
            assign_ipv6: ipam.flag("assign_ipv6")?.unwrap_or(false),
        })
    }
}

fn name(section: &Section<'_>) -> Result<String, CniError> {
    let name = section.text("name")?.unwrap_or("");
    if name.is_empty() {
        return Err(invalid("name is missing: every network needs one".to_owned()));
    }
    if name.len() > MAX_NAME || !is_identifier(name) {
        return Err(invalid(format!(
            "name is {name:?}; it must begin with a letter or digit, go on with letters, digits, '_', '.' or '-', and \
             have at most {MAX_NAME} of them"
        )));
    }
    Ok(name.to_owned())
}

/// The specification's rule for names of networks and ids of containers.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"_.-".contains(&octet))
}

fn mtu(section: &Section<'_>) -> Result<Option<u32>, CniError> {
    match section.number("mtu", 0..=65535)? {
        None | Some(0) => Ok(None),
        Some(mtu) if mtu < 68 => Err(invalid(format!(
            "mtu is {mtu}; IPv4 needs at least 68 (RFC 791), and 0 lets the agent decide"
        ))),
        Some(mtu) => Ok(Some(mtu)),
    }
}

fn timeout(section: &Section<'_>) -> Result<Option<Duration>, CniError> {
    let seconds = section.number("timeout_seconds", 1..=600)?;
    Ok(seconds.map(|seconds| Duration::from_secs(u64::from(seconds))))
}

fn socket(section: &Section<'_>) -> Result<PathBuf, CniError> {
    let socket = path(section, "socket", DEFAULT_SOCKET)?;
    if socket.as_os_str().len() > MAX_SOCKET {
        return Err(invalid(format!(
            "socket is {} octets long; the path of a unix socket has at most {MAX_SOCKET}",
            socket.as_os_str().len()
        )));
    }
    Ok(socket)
}

fn path(section: &Section<'_>, key: &str, default: &str) -> Result<PathBuf, CniError> {
    let text = section.text(key)?.unwrap_or(default);
    if !text.starts_with('/') || text.contains('\0') {
        return Err(invalid(format!("{key} is {text:?}; it must be an absolute path")));
    }
    Ok(PathBuf::from(text))
}

/// An error about the configuration's content.
pub(crate) fn invalid(details: String) -> CniError {
    CniError::new(Code::CONFIG, "invalid network configuration", details)
}

/// An object of the configuration and its place, for messages. An absent or `null` object is an empty one.
struct Section<'a> {
    prefix: String,
    value: Option<&'a Value>,
}

impl<'a> Section<'a> {
    fn of(conf: &'a Value) -> Self {
        Self { prefix: String::new(), value: Some(conf) }
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.value?.get(key).filter(|value| !value.is_null())
    }

    fn section(&self, key: &str) -> Result<Section<'a>, CniError> {
        let value = self.value(key);
        if value.is_some_and(|value| !value.is_object()) {
            return Err(self.unfit(key, "an object"));
        }
        Ok(Section { prefix: format!("{}{key}.", self.prefix), value })
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, CniError> {
        self.read(key, "a string", Value::as_str)
    }

    /// A boolean, or as Calico's `assign_ipv4` has it, `"true"` or `"false"`.
    fn flag(&self, key: &str) -> Result<Option<bool>, CniError> {
        self.read(key, "true or false", |value| value.as_bool().or_else(|| value.as_str()?.parse().ok()))
    }

    fn number(&self, key: &str, range: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, CniError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, &expected, |value| {
            value
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| range.contains(number))
        })
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, CniError> {
        let texts = |value: &Value| -> Option<Vec<String>> {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        };
        Ok(self.read(key, "a list of strings", texts)?.unwrap_or_default())
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CniError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.unfit(key, expected)),
        }
    }

    fn unfit(&self, key: &str, expected: &str) -> CniError {
        let value = self.value(key).map(Value::to_string).unwrap_or_default();
        let shown: String = value.chars().take(80).collect();
        invalid(format!("{}{key} is {shown}; it must be {expected}", self.prefix))
    }
}

#[cfg(test)]
mod tests;
