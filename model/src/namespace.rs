//! Namespaces: what their labels and annotations say about the addresses of their pods.

use std::collections::BTreeMap;

use crate::Object;

/// A namespace, as far as it matters to addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels, by which pools select it.
    pub labels: BTreeMap<String, String>,
    /// Its annotations about addresses: those with `projectcalico.org/` in their name.
    pub annotations: BTreeMap<String, String>,
}

impl Namespace {
    /// Reads a Namespace; other annotations than Calico's are not kept.
    pub fn from_object(object: &Object) -> Self {
        let calicos = |(key, _): &(&String, &String)| key.contains("projectcalico.org/");
        let annotations = object.metadata.annotations.iter().filter(calicos);
        Self {
            labels: object.metadata.labels.clone(),
            annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }
}
