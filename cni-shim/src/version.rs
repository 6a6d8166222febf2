//! The versions of the CNI specification that the plugin speaks.

use std::fmt;

use crate::{CniError, Code};

/// A version of the CNI specification. Later versions compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CniVersion {
    /// 0.3.1: results with interfaces; ADD, DEL, VERSION.
    V0_3_1,
    /// 0.4.0: adds CHECK, and `prevResult` on DEL.
    V0_4_0,
    /// 1.0.0: addresses no longer carry `version`.
    V1_0_0,
    /// 1.1.0: adds GC and STATUS, and the MTU of an interface.
    V1_1_0,
}

impl CniVersion {
    /// Every version that we speak, the oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// What errors are written in as long as the caller's version is not known.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version as the specification writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads a `cniVersion`. Errors: [`Code::INCOMPATIBLE_VERSION`], which lists the versions that we speak.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            CniError::new(
                Code::INCOMPATIBLE_VERSION,
                "incompatible CNI version",
                format!("cniVersion is {text:?}; manx-cni speaks {}", Self::list()),
            )
        })
    }

    /// All versions for a message: `0.3.1, 0.4.0, 1.0.0, 1.1.0`.
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
