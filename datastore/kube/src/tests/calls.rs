use futures::future::join;
use tokio::time::Instant;

use super::fake::{pool, status};
use super::*;

async fn get(fake: &Fake) -> Result<Option<Object>, Error> {
    fake.store.get(Kind::IPPool, "p").await
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_after_the_time_it_names() {
    let fake = Fake::new().await;
    let server = async {
        fake.asked().await.answer_text(429, "Retry-After: 1\r\n", "busy").await;
        let begun = Instant::now();
        fake.asked().await.answer(200, &pool("p", "1")).await;
        begun.elapsed()
    };
    let (got, waited) = join(get(&fake), server).await;
    assert_eq!(got.unwrap().unwrap().name(), "p");
    assert!(waited >= Duration::from_millis(950), "{waited:?}");
    assert_eq!(fake.store.traffic().calls[&("get", Kind::IPPool)], 2);
}

#[tokio::test]
async fn a_server_that_stays_busy_is_not_waited_for_longer_than_a_call_may_take() {
    let fake = Fake::with(Duration::from_secs(2), |_| {}).await;
    let begun = Instant::now();
    let busy = async { fake.asked().await.answer_text(429, "Retry-After: 3600\r\n", "busy").await };
    let (got, ()) = join(get(&fake), busy).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let Err(Error::Unavailable(reason)) = got else { panic!("{got:?}") };
    assert_eq!(reason, "the API server is overloaded (429)");
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_in_one_sentence_without_what_was_answered() {
    let fake = Fake::new().await;
    for (code, body, expected) in [
        (200, "<html>s3cr3t</html>".to_owned(), "the answer is no JSON: line 1"),
        (200, "{\"kind\": \"IPPool\", \"a\": \"s3cr3t".to_owned(), "the answer is no JSON: line 1"),
        (500, "<html>s3cr3t</html>".to_owned(), "the API server failed (500)"),
        (503, status(503, "ServiceUnavailable", "etcd is away").to_string(), "not ready (503): etcd is away"),
        (504, status(504, "Timeout", "too slow").to_string(), "was too slow (504)"),
        (404, "404 page not found\n".to_owned(), "ippools.crd.projectcalico.org is not installed"),
        (302, String::new(), "the API server refuses (302)"),
        (401, status(401, "Unauthorized", "Unauthorized").to_string(), "does not know who asks (401)"),
    ] {
        let (got, ()) =
            join(get(&fake), async { fake.asked().await.answer_text(code, "", &body).await }).await;
        let error = got.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("s3cr3t"), "{expected}: {error}");
    }
    let another = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
    let (got, ()) = join(get(&fake), async { fake.asked().await.answer(200, &another).await }).await;
    assert!(matches!(got, Err(Error::Invalid(_))), "{got:?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_never_comes_is_an_error_in_time() {
    let fake = Fake::with(Duration::from_millis(300), |_| {}).await;
    let breaks = async {
        let mut asked = fake.asked().await;
        asked.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"kind\":").await;
    };
    let (got, ()) = join(get(&fake), breaks).await;
    let error = got.unwrap_err().to_string();
    assert!(error.contains("its answer broke off"), "{error}");
    let (got, asked) = join(get(&fake), fake.asked()).await;
    assert!(got.unwrap_err().to_string().contains("no answer within 0.3 s"));
    asked.hung_up().await;
}

#[tokio::test]
async fn a_list_whose_place_was_forgotten_between_two_pages_starts_over_as_one() {
    let fake = Fake::new().await;
    let page = |items: &[Value], next: &str| json!({"metadata": {"resourceVersion": "9", "continue": next}, "items": items});
    let server = async {
        let asked = fake.asked().await;
        assert!(asked.what.contains("limit=500") && !asked.what.contains("continue"), "{}", asked.what);
        asked.answer(200, &page(&[pool("b", "1")], "next&1")).await;
        let asked = fake.asked().await;
        assert!(asked.what.contains("continue=next%261"), "{}", asked.what);
        asked.answer(410, &status(410, "Expired", "too old")).await;
        let asked = fake.asked().await;
        assert!(!asked.what.contains("limit="), "{}", asked.what);
        asked
            .answer(200, &page(&[pool("b", "1"), json!({"metadata": {"name": "a", "labels": 7}})], ""))
            .await;
    };
    let (listed, ()) = join(fake.store.list(Kind::IPPool, &Only::All), server).await;
    let listed = listed.unwrap();
    assert_eq!(listed[0].as_ref().unwrap_err().name, "a", "what cannot be read stands among the others");
    assert_eq!(listed[1].as_ref().unwrap().name(), "b");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_as_such_without_credentials() {
    let fake = Fake::new().await;
    let Fake { store, listener, .. } = fake;
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = store.get(Kind::IPPool, "p").await.unwrap_err().to_string();
    println!("{error}");
    assert!(error.contains("Connection refused") && error.contains(&address), "{error}");
    assert!(!error.contains("s3cr3t") && !error.contains("ServiceError"), "{error}");
}
