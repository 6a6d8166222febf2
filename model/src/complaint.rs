//! What is to be said to whoever wrote an object.

use std::fmt;

use crate::{Invalid, Kind, Object};

/// Something about an object that its author should know: it is wrong, or asks for what is not there yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Complaint {
    /// The kind of the object.
    pub kind: Kind,
    /// Its key: the name, or `namespace/name`.
    pub key: String,
    /// What is to be said, with the field in front.
    pub message: String,
}

impl Complaint {
    /// About the object of this kind and key.
    pub fn new(kind: Kind, key: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { kind, key: key.into(), message: message.to_string() }
    }

    /// About an object that asks for what is not there yet.
    pub fn not_supported(kind: Kind, key: impl Into<String>, field: impl fmt::Display) -> Self {
        Self::new(kind, key, format!("{field} is not supported yet and has no effect"))
    }

    /// Whether it is about this object.
    pub fn is_about(&self, object: &Object) -> bool {
        self.kind == object.kind && self.key == object.key()
    }
}

impl From<Invalid> for Complaint {
    fn from(Invalid { kind, name, field, reason }: Invalid) -> Self {
        Self::new(kind, name, format!("{field}: {reason}"))
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.key, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_complaint_says_which_object_it_is_about() {
        let pool = Object::new(Kind::IPPool, "p", &Value::Null);
        let complaint = Complaint::from(pool.invalid("spec.cidr", "is missing"));
        assert_eq!(complaint.to_string(), "IPPool p: spec.cidr: is missing");
        assert!(complaint.is_about(&pool));
        let other = Complaint::not_supported(Kind::IPPool, "q", "spec.vxlanMode");
        assert_eq!(other.to_string(), "IPPool q: spec.vxlanMode is not supported yet and has no effect");
        assert!(!other.is_about(&pool));
    }
}
