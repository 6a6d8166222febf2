//! The rules of our definitions: what people can write, and what they are told when they cannot.

use manx_datastore::Error;

use super::*;
mod table;

/// A spec that is good, or the field that is refused and a word of why.
type Case = (serde_json::Value, Option<(&'static str, &'static str)>);

async fn check(kind: Kind, cases: Vec<Case>) {
    let (_control_plane, store) = shared().await;
    let good = cases.iter().find(|(_, refused)| refused.is_none()).expect("a good one").0.clone();
    for (number, (spec, refused)) in cases.into_iter().enumerate() {
        let created = store.create(Object::new(kind, format!("case-{number}"), &spec)).await;
        match (created, refused) {
            (Ok(stored), None) => {
                assert_eq!(stored.spec, spec, "stored as it was written");
                store.delete(&stored).await.unwrap();
            }
            (Err(Error::Invalid(invalid)), Some((field, word))) => {
                println!("{invalid}");
                assert!(invalid.field.starts_with(field), "{field}: {invalid}");
                assert!(invalid.reason.contains(word), "{word}: {invalid}");
            }
            (result, refused) => panic!("{kind} {spec}: expected {refused:?}, got {result:?}"),
        }
    }
    // Fields of a release to come are kept.
    let mut future = good;
    future["fromTheFuture"] = json!({"a": [1, null, {}]});
    let stored = store.create(Object::new(kind, "future", &future)).await.unwrap();
    assert_eq!(stored.spec, future);
}

#[tokio::test]
async fn what_a_pool_is_made_of_cannot_be_changed() {
    let (_control_plane, store) = shared().await;
    let change = async |before: serde_json::Value, after: serde_json::Value| {
        let stored = store.create(Object::new(Kind::IPPool, "p", &before)).await.unwrap();
        let changed = store.update(stored.clone().with_spec(&after)).await;
        store.delete(&store.get(Kind::IPPool, "p").await.unwrap().unwrap()).await.unwrap();
        changed.map(|object| object.spec)
    };
    for (before, after, field) in [
        (json!({"cidr": "10.0.0.0/16"}), json!({"cidr": "10.1.0.0/16"}), "spec.cidr"),
        (json!({"cidr": "10.0.0.0/16"}), json!({"cidr": "10.0.0.0/16", "blockSize": 27}), "spec.blockSize"),
        (json!({"cidr": "10.0.0.0/16", "blockSize": 27}), json!({"cidr": "10.0.0.0/16"}), "spec.blockSize"),
    ] {
        let Err(Error::Invalid(invalid)) = change(before, after.clone()).await else { panic!("{after}") };
        assert_eq!(invalid.field, field, "{invalid}");
        assert!(invalid.reason.contains("cannot be changed; make another pool"), "{invalid}");
    }
    // Saying what the default is changes nothing.
    let same = json!({"cidr": "fd00::/112", "blockSize": 122, "disabled": true});
    assert_eq!(change(json!({"cidr": "fd00::/112"}), same.clone()).await, Ok(same));
}
