//! How addresses are given out in the whole cluster.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::read::lenient;
use crate::{Invalid, Object};

/// For how long a released address can be kept back at most, in seconds.
const MAX_COOLDOWN: u32 = 1200;

/// `spec` of the IPAMConfig `default`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamConfigSpec {
    /// Never borrow from a block of another node.
    #[serde(default)]
    pub strict_affinity: bool,
    /// Claim blocks as they are needed.
    #[serde(default = "yes")]
    pub auto_allocate_blocks: bool,
    /// Blocks that one node may own; 0 means 20.
    #[serde(default)]
    pub max_blocks_per_host: u32,
    /// For how many seconds a released address is not given out again: 0 to 1200.
    #[serde(default, deserialize_with = "cooldown", skip_serializing_if = "is_zero")]
    pub ip_cooldown_seconds: u32,
    /// Whether a virtual machine of KubeVirt keeps its address when it moves: `Enabled` or `Disabled`.
    #[serde(
        rename = "kubeVirtVMAddressPersistence",
        default,
        deserialize_with = "persistence",
        skip_serializing_if = "Option::is_none"
    )]
    pub kubevirt_vm_address_persistence: Option<String>,
    /// What we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl IpamConfigSpec {
    /// Reads the IPAMConfig `default`, without the fields that cannot be read: a mistake in one must not switch the
    /// others to what somebody has forbidden. Two fields that do not go together are reported and do what they say.
    pub fn from_object(object: &Object) -> (Self, Vec<Invalid>) {
        let (spec, mut refused) = lenient::<Self>(object);
        if !spec.strict_affinity && !spec.auto_allocate_blocks {
            refused.push(object.invalid(
                "spec.autoAllocateBlocks",
                "false needs strictAffinity to be true: a node that may claim no block would live on borrowed addresses",
            ));
        }
        (spec, refused)
    }
}

impl Default for IpamConfigSpec {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: 0,
            ip_cooldown_seconds: 0,
            kubevirt_vm_address_persistence: None,
            rest: Map::new(),
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn yes() -> bool {
    true
}

fn cooldown<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        seconds @ 0..=MAX_COOLDOWN => Ok(seconds),
        seconds => Err(serde::de::Error::custom(format!("{seconds} is not within 0 to {MAX_COOLDOWN}"))),
    }
}

fn persistence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !matches!(text.as_str(), "Enabled" | "Disabled") => {
            Err(serde::de::Error::custom(format!("{text:?} is none of Enabled, Disabled")))
        }
        known => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use serde_json::json;

    fn read(spec: &Value) -> (IpamConfigSpec, Vec<String>) {
        let (config, refused) = IpamConfigSpec::from_object(&Object::new(Kind::IPAMConfig, "default", spec));
        (config, refused.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_said_is_calicos_default() {
        assert_eq!(read(&Value::Null), (IpamConfigSpec::default(), vec![]));
        assert_eq!(read(&json!({})), (IpamConfigSpec::default(), vec![]));
    }

    #[test]
    fn a_mistake_in_one_field_leaves_the_others_in_force() {
        for (field, wrong) in [
            ("ipCooldownSeconds", json!(1201)),
            ("maxBlocksPerHost", json!(-1)),
            ("autoAllocateBlocks", json!("no")),
            ("kubeVirtVMAddressPersistence", json!("enabled")),
        ] {
            let (config, refused) = read(&json!({"strictAffinity": true, field: wrong}));
            assert_eq!(config, IpamConfigSpec { strict_affinity: true, ..IpamConfigSpec::default() });
            assert!(refused[0].starts_with(&format!("IPAMConfig default: spec.{field}: ")), "{refused:?}");
        }
    }

    #[test]
    fn a_node_that_may_neither_claim_nor_keep_to_its_own_is_reported() {
        let refused = read(&json!({"autoAllocateBlocks": false})).1;
        assert!(refused[0].contains("spec.autoAllocateBlocks: false needs strictAffinity"), "{refused:?}");
        assert_eq!(read(&json!({"autoAllocateBlocks": false, "strictAffinity": true})).1, [""; 0]);
    }
}
