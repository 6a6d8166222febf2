use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::fake::{SOON, next, object, pool, status};
use super::*;

/// A watch of pools that knows `a`, at version 7; what it asked, still open.
async fn watching(fake: &Fake) -> (BoxStream<'static, Event>, Asked) {
    let mut watch = fake.store.watch(Kind::IPPool, Only::All);
    let mut asked = fake.watched().await;
    assert!(asked.what.contains("sendInitialEvents=true"), "{}", asked.what);
    assert!(asked.what.contains("allowWatchBookmarks=true") && asked.what.contains("timeoutSeconds="));
    asked.tell("ADDED", &pool("a", "3")).await;
    asked.end_list("7").await;
    for event in [Event::Init, object("a", "3"), Event::InSync] {
        assert_eq!(next(&mut watch).await, event);
    }
    (watch, asked)
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_from_where_it_was_and_nobody_is_told() {
    let fake = Fake::new().await;
    let (mut watch, mut asked) = watching(&fake).await;
    asked.tell("BOOKMARK", &json!({"metadata": {"resourceVersion": "12"}})).await;
    asked.send("{\"type\":\"MODIFIED\",\"obj").await;
    drop(asked);
    let mut asked = fake.watched().await;
    assert!(
        asked.what.contains("resourceVersion=12") && !asked.what.contains("sendInitial"),
        "{}",
        asked.what
    );
    asked.tell("MODIFIED", &pool("a", "13")).await;
    assert_eq!(next(&mut watch).await, object("a", "13"));
}

#[tokio::test]
async fn what_the_server_has_forgotten_is_listed_anew_in_the_middle_of_a_watch_and_at_its_start() {
    let fake = Fake::new().await;
    let (mut watch, mut asked) = watching(&fake).await;
    let gone = status(410, "Expired", "too old resource version");
    asked.tell("ERROR", &gone).await;
    let mut asked = fake.watched().await;
    assert!(asked.what.contains("sendInitialEvents=true"), "{}", asked.what);
    asked.tell("ADDED", &pool("b", "20")).await;
    asked.end_list("20").await;
    for event in [Event::Init, object("b", "20"), Event::InSync] {
        assert_eq!(next(&mut watch).await, event);
    }
    drop(asked);
    let asked = fake.asked().await;
    assert!(asked.what.contains("resourceVersion=20"), "{}", asked.what);
    asked.answer(410, &gone).await;
    let asked = fake.asked().await;
    assert!(asked.what.contains("sendInitialEvents=true"), "{}", asked.what);
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_told_as_such_and_the_watch_goes_on() {
    let fake = Fake::new().await;
    let (mut watch, mut asked) = watching(&fake).await;
    let mut damaged = pool("a", "8");
    damaged["metadata"]["labels"] = json!(["no", "labels"]);
    asked.tell("MODIFIED", &damaged).await;
    asked.tell("ADDED", &pool("b", "9")).await;
    let Event::Invalid(invalid) = next(&mut watch).await else { panic!("its labels are none") };
    assert_eq!((invalid.kind, &*invalid.name), (Kind::IPPool, "a"));
    assert_eq!(next(&mut watch).await, object("b", "9"));
}

#[tokio::test]
async fn a_server_that_says_nothing_for_too_long_is_given_up() {
    let fake = Fake::with(SOON, |pace| pace.silence = Duration::from_millis(500)).await;
    let (mut watch, asked) = watching(&fake).await;
    // The connection stays open, as one does whose other end lost its power.
    let mut again = fake.watched().await;
    assert!(again.what.contains("resourceVersion=7"), "{}", again.what);
    again.tell("DELETED", &pool("a", "8")).await;
    assert_eq!(next(&mut watch).await, Event::Deleted("a".into()));
    asked.hung_up().await;
}

#[tokio::test]
async fn an_outage_is_told_once_and_so_is_its_end() {
    let fake = Fake::with(SOON, |pace| pace.settled = Duration::from_millis(200)).await;
    let (mut watch, asked) = watching(&fake).await;
    drop(asked);
    for code in [503, 500, 429, 403, 200] {
        fake.asked().await.answer(code, &status(code, "x", "no")).await;
    }
    assert_eq!(next(&mut watch).await, Event::Lost("the API server is not ready (503): no".into()));
    // Silent, and yet a watch: nothing was missed, so nothing is listed.
    let mut asked = fake.watched().await;
    assert_eq!(next(&mut watch).await, Event::InSync);
    asked.tell("MODIFIED", &pool("a", "9")).await;
    assert_eq!(next(&mut watch).await, object("a", "9"));
}

#[tokio::test]
async fn a_list_that_breaks_off_again_and_again_is_an_outage_and_its_half_is_no_list() {
    let fake = Fake::new().await;
    let mut watch = fake.store.watch(Kind::IPPool, Only::All);
    for _ in 0..2 {
        fake.watched().await.tell("ADDED", &pool("a", "3")).await;
    }
    let mut told = Vec::new();
    while !matches!(told.last(), Some(Event::Lost(_))) {
        told.push(next(&mut watch).await);
    }
    assert_eq!(told.last(), Some(&Event::Lost("the list ended before it was whole".into())));
    assert!(!told.contains(&Event::InSync), "{told:?}");
    fake.watched().await.end_list("9").await;
    assert_eq!(next(&mut watch).await, Event::Init);
    assert_eq!(next(&mut watch).await, Event::InSync);
}

#[tokio::test]
async fn a_server_that_is_busy_for_once_is_no_outage() {
    let fake = Fake::new().await;
    let mut watch = fake.store.watch(Kind::IPPool, Only::All);
    fake.asked().await.answer(429, &status(429, "TooManyRequests", "storage is (re)initializing")).await;
    fake.watched().await.end_list("1").await;
    assert_eq!(next(&mut watch).await, Event::Init);
    assert_eq!(next(&mut watch).await, Event::InSync);
}

#[tokio::test]
async fn a_server_that_answers_garbage_is_asked_with_pauses_and_at_last_for_a_new_list() {
    let fake = Fake::new().await;
    let (mut watch, mut asked) = watching(&fake).await;
    asked.send("garbage\n").await;
    let begun = Instant::now();
    let mut tries = 1;
    let mut asked = loop {
        let mut asked = fake.watched().await;
        if asked.what.contains("sendInitialEvents=true") {
            break asked;
        }
        tries += 1;
        asked.tell("ADDED", &json!({"metadata": {}})).await;
    };
    assert_eq!(tries, 3);
    assert!(begun.elapsed() >= Duration::from_millis(20 + 40 + 80), "{:?}", begun.elapsed());
    let Event::Lost(reason) = next(&mut watch).await else { panic!("nothing of use twice in a row") };
    assert_eq!(reason, "what came as a IPPool has no name");
    asked.end_list("30").await;
    assert_eq!(next(&mut watch).await, Event::Init);
    assert_eq!(next(&mut watch).await, Event::InSync);
}

#[tokio::test]
async fn a_server_that_ends_every_watch_at_once_is_not_asked_in_a_loop() {
    let fake = Fake::new().await;
    let (_watch, asked) = watching(&fake).await;
    drop(asked);
    let begun = Instant::now();
    for _ in 0..3 {
        fake.asked().await.answer_text(200, "", "").await;
    }
    // The wait before the first is the shortest, and then they double.
    assert!(begun.elapsed() >= Duration::from_millis(20 + 40 + 80), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_server_that_sends_no_lists_as_watches_is_asked_for_pages_and_remembered() {
    let fake = Fake::new().await;
    for _ in 0..2 {
        let mut watch = fake.store.watch(Kind::IPPool, Only::All);
        let mut asked = fake.asked().await;
        if asked.what.contains("sendInitialEvents") {
            let mut refused = status(422, "Invalid", "sendInitialEvents is forbidden");
            refused["details"]["kind"] = "ListOptions".into();
            asked.answer(422, &refused).await;
            asked = fake.asked().await;
        }
        assert!(!asked.what.contains("watch="), "{}", asked.what);
        asked.answer(200, &json!({"metadata": {"resourceVersion": "5"}, "items": [pool("a", "3")]})).await;
        for event in [Event::Init, object("a", "3"), Event::InSync] {
            assert_eq!(next(&mut watch).await, event);
        }
        assert!(fake.watched().await.what.contains("resourceVersion=5"));
    }
    assert_eq!(fake.store.traffic().calls[&("list", Kind::IPPool)], 2);
}

#[tokio::test]
async fn a_watch_that_nobody_reads_any_more_hangs_up() {
    let fake = Fake::new().await;
    let (watch, asked) = watching(&fake).await;
    drop(watch);
    asked.hung_up().await;
}

#[tokio::test]
async fn of_what_the_server_cannot_select_a_node_is_told_only_its_own() {
    let fake = Fake::new().await;
    let only = Only::Node("n1".parse().unwrap());
    let mut watch = fake.store.watch(Kind::CalicoNodeStatus, only);
    let mut asked = fake.watched().await;
    let status = |name: &str, node: &str| {
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "CalicoNodeStatus",
            "metadata": {"name": name, "resourceVersion": "1"}, "spec": {"node": node}})
    };
    asked.tell("ADDED", &status("other", "n2")).await;
    asked.tell("ADDED", &status("mine", "n1")).await;
    asked.end_list("1").await;
    asked.tell("MODIFIED", &status("other", "n2")).await;
    asked.tell("DELETED", &status("other", "n2")).await;
    asked.tell("MODIFIED", &status("mine", "n2")).await;
    let told: Vec<_> = watch.by_ref().take(4).collect().await;
    let [Event::Init, Event::Object(mine), Event::InSync, Event::Deleted(key)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((mine.name(), key.as_str()), ("mine", "mine"));
}
