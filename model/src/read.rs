//! Reading a spec so that an error names the very field.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use crate::{Invalid, NodeName, Object};

/// So many wrong entries and a list is none.
const MAX_WRONG_ENTRIES: usize = 20;

type Error = serde_path_to_error::Error<serde_json::Error>;

/// The spec as the type `S`, all of it or nothing: for objects where half of what was asked for would be something else.
pub(crate) fn strict<S: DeserializeOwned>(object: &Object) -> Result<S, Invalid> {
    serde_path_to_error::deserialize(&object.spec)
        .map_err(|error: Error| object.invalid(field(error.path(), 0), error.inner()))
}

/// The spec as the type `S`, without the top-level fields, or the entries of lists, that cannot be read: for settings
/// which stand each for itself, where the default of all would be worse than the default of one. An absent spec is an
/// empty one. Of a list with too many wrong entries nothing is taken: it is read again for each.
pub(crate) fn lenient<S: DeserializeOwned + Default>(object: &Object) -> (S, Vec<Invalid>) {
    let mut whole = match &object.spec {
        Value::Null => Value::Object(Map::new()),
        Value::Object(_) => object.spec.clone(),
        other => return (S::default(), vec![object.invalid("spec", format!("{other} is no mapping"))]),
    };
    let mut refused = Vec::new();
    // Entries taken out of each list so far: by so much the later ones have moved up.
    let mut moved: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        let error: Error = match serde_path_to_error::deserialize(&whole) {
            Ok(spec) => return (spec, refused),
            Err(error) => error,
        };
        let Some(Segment::Map { key }) = error.path().iter().next() else {
            refused.push(object.invalid("spec", error.inner()));
            return (S::default(), refused);
        };
        let moved = moved.entry(key.clone()).or_default();
        refused.push(object.invalid(field(error.path(), *moved), error.inner()));
        *moved += 1;
        if !leave_out(&mut whole, error.path(), *moved < MAX_WRONG_ENTRIES) {
            return (S::default(), refused);
        }
    }
}

/// Takes out what a path leads to: an entry of a list if that may be, else the whole field. False if it is not there.
fn leave_out(whole: &mut Value, path: &Path, entry: bool) -> bool {
    let mut path = path.iter();
    let (Some(fields), Some(Segment::Map { key })) = (whole.as_object_mut(), path.next()) else {
        return false;
    };
    match (fields.get_mut(key), path.next()) {
        (Some(Value::Array(list)), Some(Segment::Seq { index })) if entry && *index < list.len() => {
            list.remove(*index);
            true
        }
        _ => fields.remove(key).is_some(),
    }
}

/// What is wrong with the name of an object that is for the whole cluster or for one node.
pub(crate) fn misnamed(object: &Object) -> Option<Invalid> {
    let of_node =
        |name: &str| name.strip_prefix("node.").is_some_and(|node| node.parse::<NodeName>().is_ok());
    let reason = "is neither \"default\" nor \"node.\" and the name of a node: the object has no effect";
    let known = object.name() == "default" || of_node(object.name());
    (!known).then(|| object.invalid("metadata.name", reason))
}

/// A path as `spec.list[3].field`, where the first list has lost `moved` entries before this one.
fn field(path: &Path, moved: usize) -> String {
    let mut text = "spec".to_owned();
    for (depth, segment) in path.iter().enumerate() {
        match segment {
            Segment::Seq { index } if depth == 1 => text += &format!("[{}]", index + moved),
            Segment::Seq { index } => text += &format!("[{index}]"),
            Segment::Map { key } => text += &format!(".{key}"),
            Segment::Enum { variant } => text += &format!(".{variant}"),
            Segment::Unknown => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use serde_json::{Map, Value, json};

    use crate::{
        BgpConfigurationSpec, BgpFilter, BgpPeer, ClusterInformationSpec, EndpointSlice,
        FelixConfigurationSpec, IpPool, IpReservation, IpamConfigSpec, Kind, Node, NodeStatusSpec, Object,
        Pod, Service,
    };

    /// Names of fields, so that random values get where somebody looks at them.
    const FIELDS: [&str; 44] = [
        "cidr",
        "blockSize",
        "ipipMode",
        "vxlanMode",
        "nodeSelector",
        "namespaceSelector",
        "allowedUses",
        "assignmentMode",
        "reservedCIDRs",
        "strictAffinity",
        "autoAllocateBlocks",
        "ipCooldownSeconds",
        "asNumber",
        "listenPort",
        "communities",
        "prefixAdvertisements",
        "serviceClusterIPs",
        "nodeMeshPassword",
        "bindMode",
        "node",
        "peerIP",
        "peerSelector",
        "password",
        "maxRestartTime",
        "ttlSecurity",
        "reachableBy",
        "filters",
        "exportV4",
        "importV4",
        "matchOperator",
        "prefixLength",
        "action",
        "operations",
        "asPathPrefix",
        "name",
        "value",
        "secretKeyRef",
        "classes",
        "updatePeriodSeconds",
        "podCIDRs",
        "clusterIPs",
        "externalIPs",
        "endpoints",
        "interfacePrefix",
    ];

    fn value() -> impl Strategy<Value = Value> {
        let words = proptest::sample::select(vec![
            "",
            "10.0.0.0/16",
            "10.0.0.1",
            "fd00::/64",
            "Always",
            "Accept",
            "In",
            "all()",
            "has(a",
            "65000:1",
            "30s",
            "x",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (0u32..200).prop_map(Value::from),
            words.prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let field = proptest::sample::select(FIELDS.to_vec()).prop_map(String::from);
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(field, inner, 0..6)
                    .prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    fn spec() -> impl Strategy<Value = Value> {
        let field = proptest::sample::select(FIELDS.to_vec()).prop_map(String::from);
        let fields = proptest::collection::btree_map(field, value(), 0..8);
        prop_oneof![fields.prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())), value()]
    }

    proptest! {
        #[test]
        fn whatever_somebody_writes_is_read_or_refused_by_field(spec in spec()) {
            let object = |kind| Object::new(kind, "default", &spec);
            let refusals = [
                IpPool::from_object(&object(Kind::IPPool)).err().into_iter().collect(),
                IpReservation::from_object(&object(Kind::IPReservation)).1,
                IpamConfigSpec::from_object(&object(Kind::IPAMConfig)).1,
                BgpConfigurationSpec::from_object(&object(Kind::BGPConfiguration)).1,
                BgpPeer::from_object(&object(Kind::BGPPeer)).err().into_iter().collect(),
                BgpFilter::from_object(&object(Kind::BGPFilter)).err().into_iter().collect(),
                FelixConfigurationSpec::from_object(&object(Kind::FelixConfiguration)).1,
                ClusterInformationSpec::from_object(&object(Kind::ClusterInformation)).1,
                NodeStatusSpec::from_object(&object(Kind::CalicoNodeStatus)).err().into_iter().collect(),
                Node::from_object(&object(Kind::Node)).unwrap().1,
                Service::from_object(&object(Kind::Service)).err().into_iter().collect::<Vec<_>>(),
            ];
            for invalid in refusals.iter().flatten() {
                assert!(invalid.field.starts_with("spec") && !invalid.reason.is_empty(), "{invalid}");
            }
            let mut whole = object(Kind::EndpointSlice);
            for field in ["endpoints", "status", "addressType"] {
                whole.rest.insert(field.into(), spec.clone());
            }
            let _ = (EndpointSlice::from_object(&whole), Pod::from_object(&whole));
        }
    }

    #[test]
    fn of_a_list_only_the_wrong_entries_are_left_out_and_each_is_named_by_its_place() {
        let list = json!([{"cidr": "x"}, {"cidr": "10.0.0.0/8"}, {"cidr": 5}, {"cidr": "11.0.0.0/8"}, {}]);
        let object = Object::new(Kind::BGPConfiguration, "default", &json!({"serviceClusterIPs": list}));
        let (spec, refused) = BgpConfigurationSpec::from_object(&object);
        assert_eq!(spec.service_cluster_ips.len(), 2);
        let fields: Vec<&str> = refused.iter().map(|invalid| invalid.field.as_str()).collect();
        assert_eq!(
            fields,
            ["spec.serviceClusterIPs[0].cidr", "spec.serviceClusterIPs[2].cidr", "spec.serviceClusterIPs[4]"]
        );
    }

    #[test]
    fn a_list_of_nothing_but_nonsense_is_given_up_and_not_read_for_ever() {
        let object = Object::new(
            Kind::BGPConfiguration,
            "default",
            &json!({"asNumber": 1, "communities": vec![0; 50_000]}),
        );
        let (spec, refused) = BgpConfigurationSpec::from_object(&object);
        assert_eq!((spec.communities.len(), refused.len(), spec.as_number.unwrap().get()), (0, 20, 1));
    }
}
