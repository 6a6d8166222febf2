//! [`Only`] in the words of the API server: selectors by label and by field.

use manx_datastore::Only;
use manx_model::{HOSTNAME_HASH, Kind, check_key, hostname_hash};

use crate::request::{Call, collection};

/// What to ask for, so that as little as possible travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    namespace: Option<String>,
    field: Option<String>,
    label: Option<String>,
}

impl Selection {
    /// What `only` asks for, or `None` where no object can be meant. For a node's BlockAffinities it is those with the
    /// label, see [`Self::unlabelled`].
    pub(crate) fn new(kind: Kind, only: &Only) -> Option<Self> {
        let mut selection = Self { namespace: None, field: None, label: None };
        match only {
            Only::All => {}
            Only::Key(key) => {
                check_key(kind, key).ok()?;
                let (namespace, name) = match key.split_once('/') {
                    Some((namespace, name)) => (Some(namespace.to_owned()), name),
                    None => (None, key.as_str()),
                };
                selection.namespace = namespace;
                selection.field = Some(format!("metadata.name={name}"));
            }
            Only::Node(node) => match kind {
                Kind::Node => selection.field = Some(format!("metadata.name={node}")),
                Kind::Pod => selection.field = Some(format!("spec.nodeName={node}")),
                Kind::BlockAffinity => {
                    selection.label = Some(format!("{HOSTNAME_HASH}={}", hostname_hash(node)));
                }
                _ => {}
            },
        }
        Some(selection)
    }

    /// Those without the label by which a node's BlockAffinities are found.
    pub(crate) fn unlabelled() -> Self {
        Self { namespace: None, field: None, label: Some(format!("!{HOSTNAME_HASH}")) }
    }

    /// The path to ask at.
    pub(crate) fn path(&self, kind: Kind) -> String {
        collection(kind, self.namespace.as_deref())
    }

    /// `call` for no more than these.
    pub(crate) fn narrow(&self, mut call: Call) -> Call {
        if let Some(field) = &self.field {
            call = call.with("fieldSelector", field);
        }
        if let Some(label) = &self.label {
            call = call.with("labelSelector", label);
        }
        call
    }
}

/// Whether the server sends more than `only` selects, so that the rest is dropped here.
pub(crate) fn is_coarse(kind: Kind, only: &Only) -> bool {
    // Of a label that does not tell the truth the spec is right. CalicoNodeStatuses cannot be selected by node: the
    // definitions that Calico installs declare no such field.
    matches!(only, Only::Node(_)) && matches!(kind, Kind::BlockAffinity | Kind::CalicoNodeStatus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(kind: Kind, only: Only) -> String {
        let selection = Selection::new(kind, &only).unwrap();
        selection.narrow(Call::list(selection.path(kind))).request().unwrap().uri().to_string()
    }

    #[test]
    fn a_node_asks_the_server_for_what_concerns_it() {
        let node = || Only::Node("n1".parse().unwrap());
        assert_eq!(uri(Kind::Node, node()), "/api/v1/nodes?fieldSelector=metadata.name%3Dn1");
        assert_eq!(uri(Kind::Pod, node()), "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1");
        let affinities = uri(Kind::BlockAffinity, node());
        assert!(affinities.contains("labelSelector=projectcalico.org%2Fhostname-hash%3D"), "{affinities}");
        assert_eq!(uri(Kind::IPPool, node()), "/apis/crd.projectcalico.org/v1/ippools");
    }

    #[test]
    fn one_object_is_asked_for_by_name_in_its_namespace() {
        let only = Only::Key("ns/token".into());
        assert_eq!(
            uri(Kind::Secret, only),
            "/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Dtoken"
        );
        assert_eq!(Selection::new(Kind::Secret, &Only::Key("token".into())), None);
        assert_eq!(Selection::new(Kind::Node, &Only::Key("a,b".into())), None);
    }
}
