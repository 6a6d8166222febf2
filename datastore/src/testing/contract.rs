//! What every datastore does, as one test that runs against any of them.

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use manx_model::{Kind, NodeName, Object, affinity_labels, affinity_name};
use serde_json::{Value, json};

use crate::{Datastore, Error, Event, Only};

/// Runs the contract against an empty store, and leaves it empty. Panics where the contract is broken.
///
/// What a real API server keeps of its own (its services, its leases, its namespaces) is no breach: it is there before
/// and afterwards. So are fields that it adds to an object, or rules of a kind that forbid a change for its own reasons;
/// the objects here keep to those.
pub async fn contract(store: &dyn Datastore) {
    let before = keys(store).await;
    compare_and_swap(store).await;
    a_round_trip_loses_nothing(store).await;
    bad_names_are_refused(store).await;
    a_watch_tells_all_and_then_each_change(store).await;
    namespaces_keep_names_apart(store).await;
    annotations_of_others_are_set_without_touching_the_rest(store).await;
    a_node_is_told_only_what_concerns_it(store).await;
    concurrent_writers_lose_no_write(store).await;
    assert_eq!(keys(store).await, before, "the contract leaves nothing behind");
}

/// Of all that there is.
async fn keys(store: &dyn Datastore) -> Vec<(Kind, String)> {
    let mut keys = Vec::new();
    for kind in Kind::ALL {
        let listed = store.list(kind, &Only::All).await.expect("available");
        keys.extend(listed.into_iter().map(|object| (kind, object.expect("can be read").key())));
    }
    keys
}

fn pool(name: &str, cidr: &str) -> Object {
    Object::new(Kind::IPPool, name, &json!({ "cidr": cidr }))
}

/// What a pool can become: its addresses never change.
fn disabled(cidr: &str) -> Value {
    json!({"cidr": cidr, "disabled": true})
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

    let second = store.update(first.clone().with_spec(&disabled("10.0.0.0/16"))).await;
    let second = second.expect("the current version can be replaced");
    assert_ne!(second.metadata.resource_version, first.metadata.resource_version);
    assert_eq!(second.metadata.uid, first.metadata.uid);
    assert_eq!(second.spec, disabled("10.0.0.0/16"));
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
        store.list(Kind::IPPool, &Only::All).await,
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
    let (kept, given) = (&stored.metadata, &object.metadata);
    assert_eq!((&kept.labels, &kept.annotations), (&given.labels, &given.annotations));
    assert_eq!(kept.rest["finalizers"], given.rest["finalizers"]);
    assert_eq!((&stored.spec, &stored.rest), (&object.spec, &object.rest));
    // With a finalizer it would stay.
    let mut last = stored;
    last.metadata.rest.remove("finalizers");
    let last = store.update(last).await.expect("the current version");
    assert_eq!((&last.spec, &last.rest), (&object.spec, &object.rest));
    assert_eq!(store.delete(&last).await, Ok(()));
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
    let mut watch = store.watch(Kind::IPPool, Only::All);
    assert_eq!(next(&mut watch).await, Event::Init);
    assert_eq!(next(&mut watch).await, Event::Object(a.clone()));
    assert_eq!(next(&mut watch).await, Event::InSync);

    let b = create(store, pool("b", "10.1.0.0/16")).await;
    assert_eq!(next(&mut watch).await, Event::Object(b.clone()));
    let a = store.update(a.with_spec(&disabled("10.0.0.0/16"))).await.expect("the current version");
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
    let mut late = store.watch(Kind::IPPool, Only::All);
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

async fn namespaces_keep_names_apart(store: &dyn Datastore) {
    let lease = |namespace: &str, holder: &str| {
        Object::new_in(Kind::Lease, namespace, "one", &json!({"holderIdentity": holder}))
    };
    let here = create(store, lease("default", "a")).await;
    let there = create(store, lease("kube-system", "b")).await;
    assert_eq!(store.get(Kind::Lease, "default/one").await, Ok(Some(here.clone())));
    assert_eq!(store.create(lease("default", "c")).await, Err(Error::exists(&here)));
    assert_eq!(store.get(Kind::Lease, "one").await, Ok(None), "the key of a lease has its namespace");
    let listed = store.list(Kind::Lease, &Only::Key("kube-system/one".into())).await;
    assert_eq!(listed, Ok(vec![Ok(there.clone())]));
    let here =
        store.update(here.with_spec(&json!({"holderIdentity": "c"}))).await.expect("the current version");
    for lease in [here, there] {
        assert_eq!(store.delete(&lease).await, Ok(()));
    }
    let nowhere = Object::new(Kind::Lease, "one", &json!({"holderIdentity": "a"}));
    assert!(matches!(store.create(nowhere).await, Err(Error::Invalid(_))), "a lease has a namespace");
}

async fn annotations_of_others_are_set_without_touching_the_rest(store: &dyn Datastore) {
    let mut theirs = Object::new(Kind::Node, "theirs", &json!({"podCIDR": "10.9.0.0/24"}));
    theirs.metadata.annotations.insert("example.com/kept".into(), "yes".into());
    theirs.metadata.annotations.insert("example.com/gone".into(), "yes".into());
    let seen = create(store, theirs).await;
    let change = |value: &str| {
        [("example.com/gone", None), ("example.com/set", Some(value))]
            .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
            .into()
    };
    let changed = store.annotate(&seen, &change("1")).await.expect("the current version");
    let annotations: Vec<_> =
        changed.metadata.annotations.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(annotations, [("example.com/kept", "yes"), ("example.com/set", "1")]);
    let stored = store.get(Kind::Node, "theirs").await.expect("available").expect("still there");
    assert_eq!(stored.metadata, changed.metadata);
    assert_eq!(stored.spec["podCIDR"], "10.9.0.0/24");

    assert_eq!(
        store.annotate(&seen, &change("2")).await,
        Err(Error::conflict(&seen)),
        "not the version seen"
    );
    let mut whichever = seen.clone();
    whichever.metadata.resource_version = None;
    let changed = store.annotate(&whichever, &change("3")).await.expect("the version does not matter");
    assert_eq!(changed.metadata.annotations["example.com/set"], "3");
    whichever.metadata.uid = Some("00000000-0000-4000-8000-000000000000".into());
    assert_eq!(store.annotate(&whichever, &change("4")).await, Err(Error::conflict(&seen)), "another object");
    assert_eq!(store.delete(&changed).await, Ok(()));
    whichever.metadata.uid = None;
    assert_eq!(store.annotate(&whichever, &change("5")).await, Err(Error::gone(&seen)));
}

async fn a_node_is_told_only_what_concerns_it(store: &dyn Datastore) {
    let node = |name: &str| name.parse::<NodeName>().expect("a name");
    let affinity = |owner: &str, cidr: &str| {
        let cidr = cidr.parse().expect("a block");
        let spec = json!({"state": "confirmed", "node": owner, "cidr": cidr, "deleted": "false"});
        let mut object = Object::new(Kind::BlockAffinity, affinity_name(&node(owner), cidr), &spec);
        object.metadata.labels = affinity_labels(&node(owner), cidr);
        object
    };
    let only = Only::Node(node("a"));
    let mine = create(store, affinity("a", "10.0.0.0/26")).await;
    let other = create(store, affinity("b", "10.0.0.64/26")).await;
    let mut old = affinity("a", "10.0.0.128/26");
    old.metadata.labels.clear();
    let old = create(store, old).await;
    let listed = store.list(Kind::BlockAffinity, &only).await;
    assert_eq!(listed, Ok(vec![Ok(mine.clone()), Ok(old.clone())]), "old rows have no labels");
    assert_eq!(store.delete(&old).await, Ok(()));

    let mut watch = store.watch(Kind::BlockAffinity, only);
    for event in [Event::Init, Event::Object(mine.clone()), Event::InSync] {
        assert_eq!(next(&mut watch).await, event);
    }
    assert_eq!(store.delete(&other).await, Ok(()));
    create_and_delete(store, affinity("b", "10.0.1.0/26")).await;
    assert_eq!(store.delete(&mine).await, Ok(()));
    assert_eq!(next(&mut watch).await, Event::Deleted(mine.key()), "and nothing of b's");
}

async fn create_and_delete(store: &dyn Datastore, object: Object) {
    let stored = create(store, object).await;
    assert_eq!(store.delete(&stored).await, Ok(()));
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
