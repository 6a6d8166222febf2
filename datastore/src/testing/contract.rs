//! What every datastore does, as one test that runs against any of them.

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use manx_model::{Kind, Object};
use serde_json::json;

use crate::{Datastore, Error, Event};

/// Runs the contract against an empty store, and leaves it empty. Panics where the contract is broken.
pub async fn contract(store: &dyn Datastore) {
    compare_and_swap(store).await;
    a_round_trip_loses_nothing(store).await;
    bad_names_are_refused(store).await;
    a_watch_tells_all_and_then_each_change(store).await;
    concurrent_writers_lose_no_write(store).await;
    for kind in Kind::ALL {
        assert_eq!(store.list(kind).await, Ok(Vec::new()), "the contract leaves nothing behind");
    }
}

fn pool(name: &str, cidr: &str) -> Object {
    Object::new(Kind::IPPool, name, &json!({ "cidr": cidr }))
}

async fn create(store: &dyn Datastore, object: Object) -> Object {
    store.create(object).await.expect("a free name can be taken")
}

async fn compare_and_swap(store: &dyn Datastore) {
    assert_eq!(store.get(Kind::IPPool, "a").await, Ok(None));
    let first = create(store, pool("a", "10.0.0.0/16")).await;
    assert!(first.metadata.resource_version.is_some() && first.metadata.uid.is_some(), "{first:?}");
    assert_eq!(store.get(Kind::IPPool, "a").await, Ok(Some(first.clone())));
    assert_eq!(store.get(Kind::IPAMBlock, "a").await, Ok(None), "kinds do not share names");
    assert_eq!(store.create(pool("a", "10.9.0.0/16")).await, Err(Error::exists(&first)));

    let second = store.update(first.clone().with_spec(&json!({"cidr": "10.1.0.0/16"}))).await;
    let second = second.expect("the current version can be replaced");
    assert_ne!(second.metadata.resource_version, first.metadata.resource_version);
    assert_eq!(second.metadata.uid, first.metadata.uid);
    assert_eq!(second.spec, json!({"cidr": "10.1.0.0/16"}));
    assert_eq!(store.get(Kind::IPPool, "a").await, Ok(Some(second.clone())));
    assert_eq!(store.update(first.clone()).await, Err(Error::conflict(&first)));
    assert_eq!(store.delete(&first).await, Err(Error::conflict(&first)));
    assert_eq!(
        store.update(pool("a", "10.2.0.0/16")).await,
        Err(Error::conflict(&first)),
        "no version, no write"
    );

    let listed = [create(store, pool("b", "10.3.0.0/16")).await, second.clone()];
    assert_eq!(
        store.list(Kind::IPPool).await,
        Ok(vec![Ok(listed[1].clone()), Ok(listed[0].clone())]),
        "by name"
    );
    assert_eq!(store.delete(&listed[0]).await, Ok(()));

    assert_eq!(store.delete(&second).await, Ok(()));
    assert_eq!(store.get(Kind::IPPool, "a").await, Ok(None));
    assert_eq!(store.delete(&second).await, Err(Error::gone(&second)));
    assert_eq!(store.update(second.clone()).await, Err(Error::gone(&second)));
    let third = create(store, second.clone()).await;
    assert_ne!(third.metadata.uid, second.metadata.uid, "another object of the same name has another uid");
    assert_eq!(store.update(second.clone()).await, Err(Error::conflict(&second)));
    assert_eq!(store.delete(&third).await, Ok(()));
}

async fn a_round_trip_loses_nothing(store: &dyn Datastore) {
    let mut object = Object::new(
        Kind::IPPool,
        "kept",
        &json!({"cidr": "10.0.0.0/16", "fromTheFuture": {"a": [1, null, "no", {}, []]}, "big": 1_793_487_600_123_456_789_u64}),
    );
    object.metadata.labels.insert("projectcalico.org/x".into(), "true".into());
    object.metadata.annotations.insert("note".into(), "two\nlines: # \"quoted\"\n".into());
    object.metadata.annotations.insert("number".into(), "0123".into());
    object.metadata.annotations.insert("empty".into(), String::new());
    object.metadata.rest.insert("finalizers".into(), json!(["a/b"]));
    object.rest.insert("status".into(), json!({"conditions": [{"type": "Ready", "status": "False"}]}));
    let stored = create(store, object.clone()).await;
    assert_eq!(store.get(Kind::IPPool, "kept").await, Ok(Some(stored.clone())));
    object.metadata.resource_version.clone_from(&stored.metadata.resource_version);
    object.metadata.uid.clone_from(&stored.metadata.uid);
    assert_eq!(stored, object);
    assert_eq!(store.delete(&stored).await, Ok(()));
}

async fn bad_names_are_refused(store: &dyn Datastore) {
    for name in
        ["", "Upper", "under_score", "../escape", "a/b", "dot.", ".hidden", "new\nline", &"x".repeat(254)]
    {
        match store.create(pool(name, "10.0.0.0/16")).await {
            Err(Error::Invalid(invalid)) => {
                assert_eq!(invalid.field, "metadata.name");
                assert!(invalid.reason.contains("a-z"), "the error says what a name is: {invalid}");
            }
            other => panic!("{name:?} is no name, and yet: {other:?}"),
        }
        assert_eq!(store.get(Kind::IPPool, name).await, Ok(None));
    }
}

async fn a_watch_tells_all_and_then_each_change(store: &dyn Datastore) {
    let a = create(store, pool("a", "10.0.0.0/16")).await;
    create(store, Object::new(Kind::Node, "n", &())).await;
    let mut watch = store.watch(Kind::IPPool);
    assert_eq!(next(&mut watch).await, Event::Init);
    assert_eq!(next(&mut watch).await, Event::Object(a.clone()));
    assert_eq!(next(&mut watch).await, Event::InSync);

    let b = create(store, pool("b", "10.1.0.0/16")).await;
    assert_eq!(next(&mut watch).await, Event::Object(b.clone()));
    let a = store.update(a.with_spec(&json!({"cidr": "10.2.0.0/16"}))).await.expect("the current version");
    assert_eq!(next(&mut watch).await, Event::Object(a.clone()));
    assert_eq!(store.delete(&a).await, Ok(()));
    assert_eq!(next(&mut watch).await, Event::Deleted("a".into()));

    // Deleted and made again before anybody looks: the news may be merged, and end with the new object.
    assert_eq!(store.delete(&b).await, Ok(()));
    let again = create(store, pool("b", "10.1.0.0/16")).await;
    assert_ne!(again.metadata.uid, b.metadata.uid);
    loop {
        match next(&mut watch).await {
            Event::Object(seen) if seen == again => break,
            Event::Deleted(name) => assert_eq!(name, "b"),
            other => panic!("not about b: {other:?}"),
        }
    }
    let mut late = store.watch(Kind::IPPool);
    for event in [Event::Init, Event::Object(again.clone()), Event::InSync] {
        assert_eq!(next(&mut late).await, event);
    }
    assert_eq!(store.delete(&again).await, Ok(()));
    assert_eq!(next(&mut late).await, Event::Deleted("b".into()));
    assert_eq!(next(&mut watch).await, Event::Deleted("b".into()));
    let node = store.get(Kind::Node, "n").await.expect("available").expect("not touched");
    assert_eq!(store.delete(&node).await, Ok(()));
}

async fn next(watch: &mut BoxStream<'static, Event>) -> Event {
    watch.next().await.expect("a watch ends never")
}

async fn concurrent_writers_lose_no_write(store: &dyn Datastore) {
    const WRITERS: usize = 8;
    const EACH: usize = 5;
    create(store, Object::new(Kind::IPAMConfig, "default", &json!({"n": 0}))).await;
    join_all((0..WRITERS).map(|_| async {
        for _ in 0..EACH {
            increment(store).await;
        }
    }))
    .await;
    let total = store.get(Kind::IPAMConfig, "default").await.expect("available").expect("still there");
    assert_eq!(total.spec, json!({"n": WRITERS * EACH}));
    assert_eq!(store.delete(&total).await, Ok(()));

    let created = join_all((0..WRITERS).map(|_| store.create(pool("one", "10.0.0.0/16")))).await;
    assert_eq!(
        created.iter().filter(|result| result.is_ok()).count(),
        1,
        "a name is taken once: {created:?}"
    );
    let one = created.into_iter().flatten().next().expect("counted");
    assert_eq!(store.delete(&one).await, Ok(()));
}

async fn increment(store: &dyn Datastore) {
    loop {
        let object = store.get(Kind::IPAMConfig, "default").await.expect("available").expect("still there");
        let n = object.spec["n"].as_u64().expect("a number");
        match store.update(object.with_spec(&json!({"n": n + 1}))).await {
            Ok(_) => return,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
