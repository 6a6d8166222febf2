//! What travels between plugin and agent: one request, one reply, each a frame.
//!
//! A frame is a length (four octets, most significant first) and that many octets of JSON, at most [`MAX_FRAME`]:
//! `{"protocol": 2, "body": ...}`. `protocol` is read before the body, so that a plugin and an agent of different
//! releases tell each other so instead of complaining about a field. The pod's network namespace is not in the frame: it
//! travels beside it as an open descriptor (see [`crate::wire`]), so that the agent needs no view of the host's files.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::previous::Previous;
use crate::settings::{Settings, Wishes, is_default};
use crate::{CniError, Code};

/// The version of this protocol. It changes when an old reader could misunderstand a new writer: not for a field that may
/// be missing or be skipped. Version 1 carried the whole network configuration.
pub const PROTOCOL: u32 = 2;

/// The longest JSON text of a frame, in octets.
pub const MAX_FRAME: usize = 1 << 20;

/// One call of the plugin, checked, as the agent receives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The `name` of the network configuration.
    pub network: String,
    /// What is asked for.
    pub command: Command,
    /// What the network configuration asks for; the defaults for DEL and GC, which need none of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: Settings,
}

/// A verb, with what exists only for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Command {
    /// Connect a container. The descriptor of its namespace comes with the request. Answer: [`Reply::Attached`].
    Add(Container),
    /// Compare a container with what ADD made. The descriptor comes with the request. Answer: [`Reply::Done`].
    Check {
        /// The container.
        container: Container,
        /// What ADD reported, and later plugins added.
        previous: Previous,
    },
    /// Disconnect a container. Without a descriptor its namespace is already gone. Answer: [`Reply::Done`], also when
    /// there is nothing to do.
    Del(Container),
    /// Release everything in the network that belongs to none of these. Answer: [`Reply::Done`].
    Gc {
        /// The attachments that are still valid.
        valid: Vec<Attachment>,
    },
    /// Can an ADD be served? Answer: [`Reply::Done`], or an error 50 or 51.
    Status,
}

impl Command {
    /// The container, for the verbs that are about one.
    pub fn container(&self) -> Option<&Container> {
        match self {
            Self::Add(container) | Self::Check { container, .. } | Self::Del(container) => Some(container),
            Self::Gc { .. } | Self::Status => None,
        }
    }
}

/// The container that ADD, CHECK or DEL is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`: the name of the device inside the pod.
    pub pod_device: String,
    /// `CNI_NETNS`, for logs. Whoever needs the namespace uses the descriptor.
    pub netns: Option<String>,
    /// The pod, when Kubernetes is the caller.
    pub pod: Option<Pod>,
    /// What the runtime asks for this container; ADD only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub wishes: Wishes,
    /// The pairs of `CNI_ARGS` that have no meaning here.
    #[serde(default, skip_serializing_if = "is_default")]
    pub args: BTreeMap<String, String>,
}

/// A Kubernetes pod as `CNI_ARGS` names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_INFRA_CONTAINER_ID`.
    pub infra_container_id: Option<String>,
    /// `K8S_POD_UID`.
    pub uid: Option<String>,
}

/// A valid attachment of GC (CNI 1.1.0, `cni.dev/valid-attachments`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// The container's id.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The name of the device inside the pod.
    #[serde(rename = "ifname")]
    pub pod_device: String,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// ADD: the pod is connected, its route and its policy are in the kernel.
    Attached(Attached),
    /// Any other verb: done.
    Done,
    /// It could not be done.
    Error(CniError),
}

/// The result of ADD, before it is written for a version of the specification (see [`crate::result`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The host's end of the veth: `cali...`.
    pub host_device: String,
    /// The MAC of the host's end.
    pub host_mac: Mac,
    /// The pod's end: `CNI_IFNAME`.
    pub pod_device: String,
    /// The MAC of the pod's end.
    pub pod_mac: Mac,
    /// The MTU of both ends, in octets.
    pub mtu: u32,
    /// The pod's addresses; each is reported as /32 or /128.
    pub addresses: Vec<IpAddr>,
}

/// An Ethernet address; as text `ee:ee:ee:ee:ee:ee`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        octets.and_then(|octets| octets.try_into().ok()).map(Self).ok_or_else(|| {
            format!("{text:?} is no MAC address: six pairs of hex digits joined by ':' are one")
        })
    }
}

fn octet(pair: &str) -> Option<u8> {
    let hex = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
}

/// Why a frame could not be sent, read or understood.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The other side closed before it sent anything.
    #[error("the connection was closed before anything was said")]
    Closed,
    /// The other side closed inside a frame.
    #[error("the connection was closed in the middle of a frame")]
    CutShort,
    /// The deadline passed.
    #[error("no complete frame arrived in time")]
    TimedOut,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[source] std::io::Error),
    /// A frame longer than [`MAX_FRAME`].
    #[error("a frame of {0} octets is longer than the {MAX_FRAME} that are allowed")]
    TooLong(usize),
    /// The other side speaks another version of this protocol.
    #[error(
        "the other side speaks protocol version {0}, this side version {PROTOCOL}: install the plugin and the agent \
         of the same release"
    )]
    Version(u64),
    /// No JSON, or not the JSON of this protocol.
    #[error("the frame cannot be understood: {0}")]
    Malformed(String),
}

impl From<&ProtocolError> for CniError {
    fn from(error: &ProtocolError) -> Self {
        Self::new(
            Code::PROTOCOL,
            "the CNI plugin and the agent do not understand each other",
            error.to_string(),
        )
    }
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    protocol: u32,
    body: &'a T,
}

/// `body` as the JSON text of a frame, without its length.
pub fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, ProtocolError> {
    let text = serde_json::to_vec(&Outgoing { protocol: PROTOCOL, body })
        .map_err(|error| ProtocolError::Malformed(error.to_string()))?;
    if text.len() > MAX_FRAME {
        return Err(ProtocolError::TooLong(text.len()));
    }
    Ok(text)
}

/// The reverse of [`encode`]: looks at `protocol` first, then at the body.
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, ProtocolError> {
    let malformed = |error: serde_json::Error| ProtocolError::Malformed(error.to_string());
    let mut frame: Value = serde_json::from_slice(text).map_err(malformed)?;
    match frame.get("protocol").and_then(Value::as_u64) {
        Some(version) if version == u64::from(PROTOCOL) => {}
        Some(version) => return Err(ProtocolError::Version(version)),
        None => return Err(ProtocolError::Malformed("it has no number \"protocol\"".to_owned())),
    }
    serde_json::from_value(frame["body"].take()).map_err(malformed)
}

#[cfg(test)]
mod tests;
