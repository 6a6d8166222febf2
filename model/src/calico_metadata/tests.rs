use proptest::collection::btree_map;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// What Calico shows its users of an object: the rules of its `ConvertK8sResourceToCalicoResource` for labels and
/// annotations, as a release reads them that merges them (3.31 and later), or one before.
fn as_calico_reads(object: &Object, merges: bool) -> (Texts, Texts) {
    let Metadata { mut labels, mut annotations, .. } = object.metadata.clone();
    let Some(text) = annotations.remove(METADATA) else { return (labels, annotations) };
    if merges {
        let inner: Value = serde_json::from_str(&text).expect("what Calico wrote");
        let merge = |part: &str, own: &mut Texts| {
            let fields = inner.get(part).and_then(Value::as_object).into_iter().flatten();
            own.extend(fields.map(|(key, value)| (key.clone(), value.as_str().expect("text").to_owned())));
        };
        merge("labels", &mut labels);
        merge("annotations", &mut annotations);
    }
    (labels, annotations)
}

fn seen(object: &Object) -> (Texts, Texts) {
    (object.metadata.labels.clone(), object.metadata.annotations.clone())
}

/// Few keys, so that the object's own and those of the JSON meet often.
fn some_texts() -> impl Strategy<Value = Texts> {
    btree_map("[ab]|projectcalico.org/[ab]", "[xy\"]?", 0..4)
}

fn some_object() -> impl Strategy<Value = Object> {
    let inner = (option::of(some_texts()), option::of(some_texts()));
    (some_texts(), some_texts(), option::of(inner)).prop_map(|(labels, annotations, inner)| {
        let mut object = Object::new(Kind::IPPool, "p", &json!({"cidr": "10.0.0.0/16"}));
        object.metadata.labels = labels;
        object.metadata.annotations = annotations;
        if let Some((labels, annotations)) = inner {
            // As Go writes it: its own order, and null where there is no time.
            let part = |name: &str, texts: Option<Texts>| {
                texts.map_or(String::new(), |texts| format!(",\"{name}\":{}", json!(texts)))
            };
            let text = format!(
                "{{\"creationTimestamp\":null{}{},\"ownerReferences\":[{{\"uid\":\"1\"}}]}}",
                part("labels", labels),
                part("annotations", annotations)
            );
            object.metadata.annotations.insert(METADATA.into(), text);
        }
        object
    })
}

proptest! {
    #[test]
    fn an_object_is_shown_as_calico_shows_it(object in some_object()) {
        prop_assert_eq!(seen(&expand(object.clone())), as_calico_reads(&object, true));
    }

    #[test]
    fn what_nobody_changed_is_written_back_byte_for_byte(object in some_object()) {
        prop_assert_eq!(collapse(expand(object.clone())), object);
    }

    #[test]
    fn calico_reads_what_was_written_as_it_was_meant(
        object in some_object(),
        labels in some_texts(),
        annotations in some_texts(),
    ) {
        let mut meant = expand(object.clone());
        meant.metadata.labels = labels.clone();
        meant.metadata.annotations = annotations.clone();
        let written = collapse(meant);
        prop_assert_eq!(as_calico_reads(&written, true), (labels.clone(), annotations.clone()));
        prop_assert_eq!(seen(&expand(written.clone())), (labels.clone(), annotations.clone()));
        // An older release, which looks at the object's own alone, sees nothing that is neither meant nor was there, and all that is new.
        let (own_labels, own_annotations) = as_calico_reads(&written, false);
        let meant_or_there = |(key, value): (&String, &String)| {
            labels.get(key) == Some(value) || object.metadata.labels.get(key) == Some(value)
        };
        prop_assert!(own_labels.iter().all(meant_or_there));
        let inner = |object: &Object, part: &str| {
            let text = object.metadata.annotations.get(METADATA).map_or("{}", String::as_str);
            Inner::read(text).expect("JSON").texts(part)
        };
        let is_new = |key: &String| !inner(&object, "annotations").contains_key(key);
        prop_assert!(annotations.keys().all(|key| !is_new(key) || own_annotations.contains_key(key)));
        // The rest of the JSON is untouched.
        if let Some(text) = written.metadata.annotations.get(METADATA) {
            let inner: Value = serde_json::from_str(text).unwrap();
            prop_assert_eq!(&inner["ownerReferences"], &json!([{"uid": "1"}]));
            prop_assert_eq!(inner.get("creationTimestamp"), Some(&Value::Null));
        }
        prop_assert_eq!(&written.spec, &object.spec);
        prop_assert_eq!(&written.metadata.rest, &object.metadata.rest);
    }
}

#[test]
fn what_calico_has_not_written_stays_plain() {
    let mut plain = Object::new(Kind::IPPool, "p", &());
    plain.metadata.annotations.insert("note".into(), "x".into());
    assert_eq!(expand(plain.clone()), plain);
    assert_eq!(collapse(plain.clone()), plain);
    for damaged in ["", "no JSON", "[]", "7", r#"{"labels":["a"]}"#, r#"{"labels":{"a":1}}"#] {
        plain.metadata.annotations.insert(METADATA.into(), damaged.into());
        assert_eq!(expand(plain.clone()), plain, "{damaged}");
        assert_eq!(collapse(expand(plain.clone())), plain, "{damaged}");
    }
}

#[test]
fn only_kinds_whose_metadata_calico_keeps_so_are_expanded() {
    for kind in
        [Kind::IPAMBlock, Kind::BlockAffinity, Kind::IPAMHandle, Kind::IPAMConfig, Kind::Node, Kind::Pod]
    {
        let mut object = Object::new(kind, "x", &());
        object.metadata.annotations.insert(METADATA.into(), r#"{"labels":{"a":"b"}}"#.into());
        assert_eq!(expand(object.clone()), object);
    }
}

#[test]
fn labels_that_a_user_of_calico_has_set_are_the_objects_labels() {
    let mut object = Object::new(Kind::BGPPeer, "tor", &());
    let text = r#"{"creationTimestamp":"2026-01-02T03:04:05Z","labels":{"rack":"r1"}}"#;
    object.metadata.annotations.insert(METADATA.into(), text.into());
    let mut expanded = expand(object);
    assert_eq!(expanded.metadata.labels["rack"], "r1");
    assert!(expanded.metadata.annotations.is_empty());
    expanded.metadata.labels.insert("rack".into(), "r2".into());
    let written = collapse(expanded);
    assert!(written.metadata.labels.is_empty());
    let text = r#"{"creationTimestamp":"2026-01-02T03:04:05Z","labels":{"rack":"r2"}}"#;
    assert_eq!(written.metadata.annotations[METADATA], text);
}
