//! Where the password of a BGP session is.

use serde::Deserialize;

/// The password of a BGP session, which is kept in a Secret in the namespace of the agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Password {
    /// Where it is. Calico takes an absent reference for no password; we take it for a mistake.
    pub secret_key_ref: SecretKeyRef,
}

/// One entry of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct SecretKeyRef {
    /// The Secret's name.
    pub name: String,
    /// The entry.
    pub key: String,
}
