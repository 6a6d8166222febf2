//! The network configuration that the runtime writes to the plugin's stdin.
//!
//! Unknown keys are fine in CNI: runtimes and meta plugins add their own. Calico's keys are all known, and each is acted
//! on, refused, or listed as being without effect by `manx status`. Nothing of the text itself reaches the agent: it gets
//! what was read here, as [`Settings`](crate::Settings).
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `cniVersion` | version of the specification | 0.2.0 (which we refuse) |
//! | `name` | the network; part of each address's handle | required |
//! | `mtu` | MTU of the pod's veth, octets; 0: the agent decides | 0 |
//! | `num_queues` | queues of the veth | 1 |
//! | `ipam.type` | `calico-ipam`, `manx-ipam`; `host-local` with `subnet` or `ranges` of `usePodCidr` | `calico-ipam` |
//! | `ipam` | `ipv4_pools`, `ipv6_pools`, `assign_ipv4`, `assign_ipv6` | any pool, IPv4 |
//! | `ipam.routes`, `include_default_routes` | routes in the pod, and the default routes beside them | default routes |
//! | `container_settings.allow_ip_forwarding` | leave `ip_forward` on in the pod | false |
//! | `feature_control` | `ip_addrs_no_ipam`, `floating_ips`: annotations that are honoured | false |
//! | `readiness_gates` | URLs that must answer before a pod is attached | none |
//! | `policy_setup_timeout_seconds` | the longest wait for the pod's policy | no limit |
//! | `nodename`, `hostname` | the node that the file was written for; another one is reported | |
//! | `datastore_type`, `policy.type`, `dataplane_options.type`, `device_type` | `kubernetes`, `k8s`, `linux`, `veth`; another is refused | |
//! | `runtimeConfig`, `args.cni` | `ips`, `mac`, `bandwidth` for one container | |
//! | `socket` | the agent's socket | [`DEFAULT_SOCKET`] |
//! | `spool` | the directory for DELs that no agent took | [`DEFAULT_SPOOL`] |
//! | `timeout_seconds` | how long to wait for the agent, 1 to 600 | ADD 90, others 60 |
//!
//! What only concerns Calico's own plugin passes without a word, since nothing is missing without it: `log_level`,
//! `log_file_*` (errors are in the answer, the rest in the agent's log), `kubernetes`, `policy.k8s_*`, `calico_api_group`,
//! `qps`, `burst` (the plugin has no client), `nodename_file`, `nodename_file_optional`, `require_mtu_file`,
//! `endpoint_status_dir`, `ipam_lock_file` (the agent knows all this), and what is for Windows.

mod runtime;
mod section;
mod settings;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::protocol::Attachment;
use crate::{CniError, CniVersion, Code};

pub(crate) use runtime::address;
pub use runtime::wishes;
use section::Section;
pub use section::invalid;
pub use settings::settings;

/// Where the agent listens.
pub const DEFAULT_SOCKET: &str = "/run/manx/cni.sock";

/// Where a DEL waits for the agent.
pub const DEFAULT_SPOOL: &str = "/var/lib/manx/cni-spool";

/// The longest `name`: a handle is `<name>.<container id>`, and must fit a Kubernetes name of 253 octets.
pub const MAX_NAME: usize = 96;

/// What a path of a unix socket may be long: `sun_path` (unix(7)) less its closing zero.
const MAX_SOCKET: usize = 107;

/// What every verb needs of a network configuration; [`settings()`] and [`wishes()`] read the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conf {
    /// `cniVersion`.
    pub version: CniVersion,
    /// `name`: letters, digits, `_`, `.`, `-`, beginning with a letter or digit; at most [`MAX_NAME`] long.
    pub name: String,
    /// `socket`.
    pub socket: PathBuf,
    /// `spool`.
    pub spool: PathBuf,
    /// `timeout_seconds`.
    pub timeout: Option<Duration>,
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

#[cfg(test)]
mod tests;
