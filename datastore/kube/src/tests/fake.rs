//! An API server of which a test plays the part: it takes a request, and answers it as it likes.

use std::fs;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::connection::Connection;
use crate::watch::Pace;
use crate::{KubeStore, Options};

/// Longer than anything here takes, on a machine that builds at the same time.
pub(super) const SOON: Duration = Duration::from_secs(30);

pub(super) struct Fake {
    pub(super) listener: TcpListener,
    pub(super) store: KubeStore,
    _dir: TempDir,
}

/// A request that waits for its answer.
pub(super) struct Asked {
    /// As in `GET /api/v1/nodes?watch=true`.
    pub(super) what: String,
    stream: TcpStream,
}

impl Fake {
    pub(super) async fn new() -> Self {
        Self::with(SOON, |_| {}).await
    }

    /// With a store whose calls take at most `timeout`, and whose watches wait for shorter times than usual, but are as
    /// patient as the test, unless it says otherwise.
    pub(super) async fn with(timeout: Duration, change: impl FnOnce(&mut Pace)) -> Self {
        let mut pace = Pace {
            shortest: Duration::from_millis(20),
            longest: Duration::from_millis(200),
            silence: SOON,
            settled: SOON,
            life: Duration::from_secs(300),
        };
        change(&mut pace);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", listener.local_addr().unwrap())}}],
            "users": [{"name": "u", "user": {"token": "s3cr3t"}}]});
        fs::write(&path, kubeconfig.to_string()).unwrap();
        let options = Options { kubeconfig: Some(path), timeout, ..Options::default() };
        let connection = Connection::open(options, pace).await.unwrap();
        Self { listener, store: KubeStore(connection.into()), _dir: dir }
    }

    /// The next request. Each comes on a connection of its own, since every answer ends its connection.
    pub(super) async fn asked(&self) -> Asked {
        let (mut stream, _) = timeout(SOON, self.listener.accept()).await.expect("asked soon").unwrap();
        let mut text = String::new();
        while !text.contains("\r\n\r\n") {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "half a request: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        assert!(text.to_lowercase().contains("user-agent: manx/0."), "{text}");
        let what = text.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        Asked { what, stream }
    }

    /// The next request, which must be a watch; and that, with the head of its answer sent.
    pub(super) async fn watched(&self) -> Asked {
        let mut asked = self.asked().await;
        assert!(asked.what.contains("watch=true"), "{}", asked.what);
        asked.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n").await;
        asked
    }
}

impl Asked {
    /// Answers with JSON.
    pub(super) async fn answer(self, code: u16, body: &Value) {
        self.answer_text(code, "", &body.to_string()).await;
    }

    pub(super) async fn answer_text(mut self, code: u16, headers: &str, body: &str) {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {code} x\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
        self.send(&format!("{head}{body}")).await;
    }

    /// Sends a piece of the answer. That nobody listens any more is no fault.
    pub(super) async fn send(&mut self, text: &str) {
        drop(self.stream.write_all(text.as_bytes()).await);
    }

    /// Sends an event of a watch.
    pub(super) async fn tell(&mut self, kind: &str, object: &Value) {
        self.send(&format!("{}\n", json!({"type": kind, "object": object}))).await;
    }

    /// Sends the bookmark that ends a list.
    pub(super) async fn end_list(&mut self, version: &str) {
        let annotations = json!({"k8s.io/initial-events-end": "true"});
        let metadata = json!({"resourceVersion": version, "annotations": annotations});
        self.tell("BOOKMARK", &json!({"kind": "IPPool", "metadata": metadata})).await;
    }

    /// Waits until the other end has hung up.
    pub(super) async fn hung_up(mut self) {
        let read = timeout(SOON, self.stream.read(&mut [0])).await.expect("hung up soon");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}

pub(super) fn pool(name: &str, version: &str) -> Value {
    json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool",
        "metadata": {"name": name, "resourceVersion": version, "uid": name}, "spec": {"cidr": "10.0.0.0/16"}})
}

pub(super) fn object(name: &str, version: &str) -> Event {
    Event::Object(Object::from_value(Kind::IPPool, pool(name, version)).unwrap())
}

pub(super) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": message, "details": {"kind": "ippools"}})
}

pub(super) async fn next(watch: &mut BoxStream<'static, Event>) -> Event {
    timeout(SOON, watch.next()).await.expect("told soon").expect("a watch ends never")
}
