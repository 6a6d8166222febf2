//! Names and fields that nobody looks at: most often they are misspelt.

use std::collections::BTreeMap;
use std::sync::Arc;

use manx_model::{Invalid, Kind, Node, Object};
use serde_json::{Map, Value};

const NAME: &str = "metadata.name";

/// Of a kind that has an object for the cluster, and one for each node.
pub(super) fn of_nodes(kind: Kind, names: Vec<String>, nodes: &BTreeMap<String, Arc<Node>>) -> Vec<Invalid> {
    let reason = |name: &str| match name.strip_prefix("node.") {
        None if name == "default" => None,
        None => Some("has no effect: only those named default and node.NAME have".to_owned()),
        Some(node) if nodes.contains_key(node) => None,
        Some(node) => Some(format!("has no effect: there is no Node {node}")),
    };
    let named = names.into_iter().filter_map(|name| reason(&name).map(|reason| (name, reason)));
    named.map(|(name, reason)| Invalid { kind, name, field: NAME.to_owned(), reason }).collect()
}

/// Of a kind that has one object for the cluster.
pub(super) fn of_cluster(kind: Kind, names: Vec<String>) -> Vec<Invalid> {
    let reason = || "has no effect: only the one named default has".to_owned();
    let others = names.into_iter().filter(|name| name != "default");
    others.map(|name| Invalid { kind, name, field: NAME.to_owned(), reason: reason() }).collect()
}

/// The fields of a spec beside those that are known.
pub(super) fn fields(object: &Object, known: &[&str]) -> Vec<Invalid> {
    let fields = object.spec.as_object().into_iter().flatten();
    let others = fields.filter(|(field, value)| !known.contains(&field.as_str()) && !value.is_null());
    others.map(|(field, _)| no_effect(object, field)).collect()
}

/// What a spec has left over.
pub(super) fn unknown(object: &Object, rest: &Map<String, Value>) -> Vec<Invalid> {
    rest.iter().filter(|(_, value)| !value.is_null()).map(|(field, _)| no_effect(object, field)).collect()
}

fn no_effect(object: &Object, field: &str) -> Invalid {
    object.invalid(format!("spec.{field}"), "is not known here and has no effect")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_that_nobody_looks_at_is_said_to_have_no_effect() {
        let nodes = BTreeMap::from([("n1".to_owned(), Arc::new(Node::new("n1".parse().unwrap())))]);
        let names = ["default", "node.n1", "node.n2", "defualt"].map(String::from).to_vec();
        let said = of_nodes(Kind::BGPConfiguration, names.clone(), &nodes);
        let said: Vec<&str> = said.iter().map(|said| said.name.as_str()).collect();
        assert_eq!(said, ["node.n2", "defualt"]);
        assert_eq!(of_cluster(Kind::IPAMConfig, names).len(), 3);
    }

    #[test]
    fn a_field_that_nobody_looks_at_is_said_to_have_no_effect() {
        let object = Object::new(
            Kind::IPReservation,
            "r",
            &json!({"reservedCIDRs": [], "reservedCIDRS": [], "x": null}),
        );
        let said = fields(&object, &["reservedCIDRs"]);
        assert_eq!(said.iter().map(|said| said.field.as_str()).collect::<Vec<_>>(), ["spec.reservedCIDRS"]);
    }
}
