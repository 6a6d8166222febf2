//! Whatever a runtime passes, the plugin ends with 0, or with 1 and a valid error: it never dies and never hangs.

use crate::support::{Call, Scratch};
use proptest::prelude::*;
use serde_json::{Value, json};

const VARIABLES: [&str; 5] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];

/// Not among them: `socket` and `spool`, which keep the test within its own directory.
const KEYS: [&str; 9] = [
    "cniVersion",
    "name",
    "mtu",
    "ipam",
    "container_settings",
    "timeout_seconds",
    "prevResult",
    "cni.dev/valid-attachments",
    "anything",
];

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("type|ipv4_pools|assign_ipv4|containerID|ifname|.*", inner, 0..4)
                .prop_map(|map| json!(map)),
        ]
    })
}

fn verb() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("ADD"), Just("CHECK"), Just("DEL"), Just("GC"), Just("STATUS"), Just("VERSION")]
}

fn check(call: Call) {
    let outcome = call.run();
    if outcome.code != 0 {
        let code = outcome.json()["code"].as_u64().unwrap();
        outcome.expect_error(u32::try_from(code).unwrap(), "");
        assert!(code > 0);
    } else if !outcome.stdout.is_empty() {
        assert!(outcome.json()["supportedVersions"].is_array(), "{outcome:?}");
    }
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_on_stdin_are_answered(verb in verb(), stdin: Vec<u8>) {
        check(Call::new(verb, &Scratch::new()).stdin(stdin));
    }

    #[test]
    fn any_value_of_any_key_is_answered(verb in verb(), key in proptest::sample::select(&KEYS[..]), value in json_value()) {
        check(Call::new(verb, &Scratch::new()).conf(key, value));
    }

    #[test]
    fn any_value_of_any_variable_is_answered(
        verb in verb(), variable in proptest::sample::select(&VARIABLES[..]), value in "[^\0]*",
    ) {
        check(Call::new(verb, &Scratch::new()).env(variable, &value));
    }
}
