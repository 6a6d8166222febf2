use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn round_trip(object: &Object) -> Result<Object, Invalid> {
    let text = render(object).unwrap();
    parse(object.kind, object.name(), Path::new("p.yaml"), text.as_bytes())
        .inspect_err(|error| eprintln!("{error}\n{text}"))
}

/// Text that YAML has opinions about.
fn tricky() -> impl Strategy<Value = String> {
    prop_oneof![
        ".*",
        "[ \\t\\n\\r:#\\-\"'|>&*!%@`{}\\[\\],?~=<.0-9a-z\\\\]{0,40}",
        "([a-z ]{0,10}\n){0,5}[ ]{0,3}",
        "[0-9xobeE+._:\\-]{1,12}",
        prop::sample::select(vec![
            "no",
            "Yes",
            "on",
            "OFF",
            "y",
            "n",
            "~",
            "null",
            "Null",
            "true",
            "False",
            ".nan",
            "-.inf",
            "0x1F",
            "0o17",
            "017",
            "1e3",
            "1_000",
            "12:34:56",
            "2026-01-01",
            "<<",
            "=",
            "---",
            "...",
            "- a",
            "? a",
            "a: b",
            "a #b",
            " lead",
            "trail ",
            "",
            "\u{feff}bom",
            "\u{85}",
            "\u{2028}",
            "\u{0}",
            "\u{7f}",
            "!tag",
            "&anchor",
            "*alias",
        ])
        .prop_map(str::to_owned),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0 + 0.0625)),
        tricky().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(tricky(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_an_annotation_says_it_is_read_back_as_it_was_written(key in tricky(), value in tricky()) {
        let mut object = Object::new(Kind::IPPool, "p", &json!({"cidr": "10.0.0.0/16"}));
        object.metadata.annotations.insert(key, value);
        prop_assert_eq!(round_trip(&object), Ok(object));
    }

    #[test]
    fn whatever_a_spec_holds_it_is_read_back_as_it_was_written(spec in json_value()) {
        let object = Object::new(Kind::IPPool, "p", &json!({"cidr": "10.0.0.0/16", "x": spec}));
        prop_assert_eq!(round_trip(&object), Ok(object));
    }
}
