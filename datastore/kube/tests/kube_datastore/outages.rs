//! The API server away, silent, or with nothing to say of a kind; etcd that has forgotten.

use std::process::Command;

use manx_kubernetes::Options as Setup;

use super::*;

#[tokio::test]
async fn watches_survive_the_death_and_the_return_of_the_api_server() {
    let (mut control_plane, store) = shared().await;
    let a = store.create(pool("a", "10.0.0.0/16")).await.unwrap();
    let mut watch = store.watch(Kind::IPPool, Only::All);
    assert_eq!(in_sync(&mut watch).await.len(), 3);
    control_plane.kill().unwrap();
    let Event::Lost(reason) = next(&mut watch).await else { panic!("the API server is dead") };
    assert!(reason.contains("refused"), "{reason}");
    let error = store.get(Kind::IPPool, "a").await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");

    control_plane.restart().unwrap();
    let b = store.create(pool("b", "10.1.0.0/16")).await.unwrap();
    store.delete(&a).await.unwrap();
    // Whether the server still knows what was before is its affair; either way the reader ends with b alone.
    let mut known = vec![Event::Object(a)];
    while known != [Event::Object(b.clone())] {
        match next(&mut watch).await {
            Event::Init => known.clear(),
            Event::Deleted(key) => {
                known.retain(|event| !matches!(event, Event::Object(object) if object.key() == key));
            }
            Event::InSync => {}
            Event::Lost(again) => panic!("said twice: {again}"),
            object => known.push(object),
        }
    }
}

#[tokio::test]
async fn calls_to_a_server_that_does_not_answer_end_in_time_and_what_is_watched_is_resumed() {
    let (control_plane, _) = shared().await;
    let kubeconfig = Some(control_plane.kubeconfig("admin").unwrap());
    let timeout = Duration::from_millis(500);
    let store = KubeStore::connect(Options { kubeconfig, timeout, ..Options::default() }).await.unwrap();
    let mut watch = store.watch(Kind::IPPool, Only::All);
    assert_eq!(in_sync(&mut watch).await, [Event::Init, Event::InSync]);
    control_plane.pause().unwrap();
    let error = soon(store.get(Kind::IPPool, "a")).await.unwrap_err().to_string();
    assert!(error.contains("no answer within 0.5 s"), "{error}");
    // The connection stays open; that nobody answers on it is noticed nevertheless.
    let Event::Lost(reason) = next(&mut watch).await else { panic!("nobody answers") };
    assert!(reason.contains("no answer"), "{reason}");
    control_plane.resume().unwrap();
    let stored = soon(async {
        loop {
            match store.create(pool("a", "10.0.0.0/16")).await {
                Ok(stored) => break stored,
                Err(manx_datastore::Error::Unavailable(_)) => {}
                // One that was given up was carried out nevertheless.
                Err(_) => break store.get(Kind::IPPool, "a").await.unwrap().unwrap(),
            }
        }
    })
    .await;
    assert_eq!(next_but_hiccups(&mut watch).await, Event::Object(stored));
}

/// On a busy machine a connection may seem lost for a moment.
async fn next_but_hiccups(watch: &mut BoxStream<'static, Event>) -> Event {
    loop {
        match next(watch).await {
            Event::Lost(_) | Event::InSync | Event::Init => {}
            event => return event,
        }
    }
}

#[tokio::test]
async fn after_etcd_was_compacted_a_watch_starts_over_and_misses_no_deletion() {
    // Without its cache the API server has no more to say of the past than etcd.
    let setup =
        Setup::new().api_server_arg("--watch-cache=false").api_server_arg("--etcd-compaction-interval=0");
    let mut control_plane = ControlPlane::start(setup).unwrap();
    let store = store(&control_plane, "admin").await;
    install_crds(&store).await.unwrap();
    let first = store.create(pool("first", "10.0.0.0/16")).await.unwrap();
    let second = store.create(pool("second", "10.2.0.0/16")).await.unwrap();
    let kept = store.create(pool("kept", "10.1.0.0/16")).await.unwrap();
    let mut watch = store.watch(Kind::IPPool, Only::All);
    assert_eq!(in_sync(&mut watch).await.len(), 5);

    // While the watch cannot look, an object goes, and etcd forgets that it ever was: all of it, or at that very moment,
    // about which the API server complains (500) whenever it is asked.
    let etcd = Etcd::of(&control_plane);
    for (gone, and_more) in [(first, true), (second, false)] {
        control_plane.kill().unwrap();
        assert!(matches!(next(&mut watch).await, Event::Lost(_)));
        let mut last = etcd.ask("kv/deleterange", &json!({"key": etcd.key(&gone)}));
        if and_more {
            last = etcd.ask("kv/put", &json!({"key": "YQ==", "value": "YQ=="}));
        }
        etcd.ask("kv/compaction", &json!({"revision": last["header"]["revision"], "physical": true}));
        control_plane.restart().unwrap();
        let mut told = in_sync(&mut watch).await;
        told.retain(|event| !matches!(event, Event::Object(object) if object.name() == "second" && and_more));
        assert_eq!(told, [Event::Init, Event::Object(kept.clone()), Event::InSync]);
    }
}

/// etcd, by its JSON gateway.
struct Etcd(String);

impl Etcd {
    fn of(control_plane: &ControlPlane) -> Self {
        let api_server = control_plane.url();
        let (host, port) = api_server.trim_start_matches("https://").rsplit_once(':').unwrap();
        Self(format!("http://{host}:{}", port.parse::<u16>().unwrap() + 1))
    }

    fn key(&self, object: &Object) -> String {
        let key = format!("/registry/{}/{}/{}", object.kind.group(), object.kind.plural(), object.name());
        data_encoding::BASE64.encode(key.as_bytes())
    }

    fn ask(&self, what: &str, question: &serde_json::Value) -> serde_json::Value {
        let url = format!("{}/v3/{what}", self.0);
        let output = Command::new("curl")
            .args(["-sS", "--fail-with-body", "-d", &question.to_string(), &url])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{what}: {text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap()
    }
}
