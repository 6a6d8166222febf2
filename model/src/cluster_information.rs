//! What a cluster says about itself.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::read::lenient;
use crate::{Invalid, Object};

/// `spec` of the ClusterInformation `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInformationSpec {
    /// Which cluster it is.
    #[serde(rename = "clusterGUID", skip_serializing_if = "Option::is_none")]
    pub cluster_guid: Option<String>,
    /// Words with commas between them: `k8s,bgp,kubeadm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_type: Option<String>,
    /// The version of whoever wrote it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calico_version: Option<String>,
    /// False while somebody moves the datastore: no pod is to be attached or detached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore_ready: Option<bool>,
    /// `Calico`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl ClusterInformationSpec {
    /// Reads the ClusterInformation, without the fields that cannot be read.
    pub fn from_object(object: &Object) -> (Self, Vec<Invalid>) {
        lenient(object)
    }

    /// Whether somebody has said that the datastore is not to be written. As in Calico an absent field says so.
    pub fn is_locked(&self) -> bool {
        self.datastore_ready != Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use serde_json::json;

    #[test]
    fn a_datastore_is_locked_unless_it_is_said_to_be_ready() {
        for (spec, locked) in [
            (json!({"datastoreReady": true, "clusterGUID": "x", "fromTheFuture": 1}), false),
            (json!({"datastoreReady": false}), true),
            (json!({"calicoVersion": "v3.30.0"}), true),
            (json!({"datastoreReady": "yes"}), true),
        ] {
            let object = Object::new(Kind::ClusterInformation, "default", &spec);
            assert_eq!(ClusterInformationSpec::from_object(&object).0.is_locked(), locked, "{spec}");
        }
    }
}
