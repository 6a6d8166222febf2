//! Errors as CNI writes them, and the one table of their codes.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::CniVersion;

/// The code of a CNI error: 0-99 belong to the specification (section 5, "Error"), 100 and above to us.
///
/// A number and not an enum, so that a plugin prints the code of a newer agent as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

impl Code {
    /// The configuration's `cniVersion` is not one of ours, or has no such verb.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// The configuration asks for something that Manx does not do; the message names key and value.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// No such container; the runtime needs no cleanup for it.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// A variable of the environment is missing or wrong; the message names it.
    pub const ENVIRONMENT: Self = Self(4);
    /// Reading stdin or a file failed.
    pub const IO: Self = Self(5);
    /// Stdin is no JSON.
    pub const DECODE: Self = Self(6);
    /// The network configuration has a value that cannot be used.
    pub const CONFIG: Self = Self(7);
    /// A passing condition; the runtime should repeat the call.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// STATUS: no ADD can be served.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// STATUS: no ADD can be served, and the pods that exist may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: Self = Self(51);
    /// Plugin and agent do not understand each other: different versions, or something else owns the socket.
    pub const PROTOCOL: Self = Self(100);
    /// No address could be assigned: pools full, disabled, or none selects this pod.
    pub const NO_ADDRESS: Self = Self(101);
    /// The kernel refused a link, an address or a route.
    pub const DATAPLANE: Self = Self(102);
    /// CHECK: the pod's network is not what ADD made it.
    pub const CHECK_FAILED: Self = Self(103);
}

/// A CNI error: what the plugin prints on stdout when it ends with exit code 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniError {
    /// What kind of error.
    pub code: Code,
    /// A few words.
    pub msg: String,
    /// What was wrong, where, and what to do about it.
    pub details: String,
}

impl CniError {
    /// An error of three parts.
    pub fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }

    /// The error as the specification wants it on stdout.
    pub fn render(&self, version: CniVersion) -> Value {
        json!({ "cniVersion": version.as_str(), "code": self.code.0, "msg": self.msg, "details": self.details })
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} (CNI error {})", self.msg, self.details, self.code.0)
    }
}

impl std::error::Error for CniError {}
