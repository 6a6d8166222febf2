//! `readiness_gates`: URLs that must answer before a pod is attached, as Calico's plugin asks them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::{StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use manx_cni::{CniError, Code, Settings};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// A gate that is closed is asked again this late; an answer that takes longer is none.
const PACE: Duration = Duration::from_secs(5);
/// A pod waits this long for its gates.
const PATIENCE: Duration = Duration::from_secs(30);

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate(Uri);

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("it is no URL ({error})"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(_)) => Ok(Self(uri)),
            (Some("https"), _) => {
                Err("gates are asked by http, without encryption; give an http:// URL".into())
            }
            _ => Err("it is no URL, as http://localhost:9099/readiness".into()),
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The gates of a configuration.
///
/// # Errors
/// [`Code::UNSUPPORTED_FIELD`] names one that cannot be asked.
pub fn gates(settings: &Settings) -> Result<Vec<Gate>, CniError> {
    let gate = |text: &String| {
        text.parse().map_err(|reason| {
            let details = format!("readiness_gates has {text:?}: {reason}");
            CniError::new(Code::UNSUPPORTED_FIELD, "unsupported field in the network configuration", details)
        })
    };
    settings.readiness_gates.iter().map(gate).collect()
}

/// Waits until every gate has answered with a status of 200 to 399.
///
/// # Errors
/// [`Code::TRY_AGAIN_LATER`] names one that has not within half a minute, and what it said last.
pub async fn wait(gates: &[Gate]) -> Result<(), CniError> {
    wait_for(gates, ask).await
}

async fn wait_for<A: Future<Output = Result<(), String>>>(
    gates: &[Gate],
    ask: impl Fn(Uri) -> A,
) -> Result<(), CniError> {
    let deadline = Instant::now() + PATIENCE;
    let all = gates.iter().map(|gate| open(gate, deadline, &ask));
    futures::future::try_join_all(all).await.map(drop)
}

async fn open<A: Future<Output = Result<(), String>>>(
    gate: &Gate,
    deadline: Instant,
    ask: impl Fn(Uri) -> A,
) -> Result<(), CniError> {
    let mut said = "no answer".to_owned();
    let opened = timeout_at(deadline, async {
        loop {
            match timeout(PACE, ask(gate.0.clone())).await {
                Ok(Ok(())) => return,
                Ok(Err(reason)) => said = reason,
                Err(_) => said = format!("no answer within {} s", PACE.as_secs()),
            }
            sleep(PACE).await;
        }
    });
    if opened.await.is_ok() {
        return Ok(());
    }
    let details = format!("readiness gate {gate} is closed: {said}; no pod is attached before it opens");
    Err(CniError::new(Code::TRY_AGAIN_LATER, "a readiness gate is closed", details))
}

async fn ask(uri: Uri) -> Result<(), String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&'static [u8]>>();
    let answer = client.get(uri).await.map_err(|error| describe(&error))?;
    match answer.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(told(status)),
    }
}

fn told(status: StatusCode) -> String {
    format!("it answers {status}")
}

/// The error with what it comes from: the outermost only says that something failed.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_gate_is_an_http_url_and_another_is_named() {
        let read = |urls: &[&str]| {
            let readiness_gates = urls.iter().map(|url| (*url).to_owned()).collect();
            gates(&Settings { readiness_gates, ..Settings::default() })
        };
        assert_eq!(read(&["http://localhost:9099/readiness", "http://[::1]/"]).unwrap().len(), 2);
        for (url, said) in [("https://x/", "http://"), ("/readiness", "no URL"), ("ftp://x/", "no URL")] {
            let error = read(&["http://x/", url]).unwrap_err();
            assert_eq!(error.code, Code::UNSUPPORTED_FIELD);
            assert!(error.details.contains(url) && error.details.contains(said), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_waits_for_its_gates_and_not_for_ever() {
        let gate: Gate = "http://localhost:9099/readiness".parse().unwrap();
        let asked = AtomicU32::new(0);
        let third = |_| {
            let opens = asked.fetch_add(1, Ordering::Relaxed) == 2;
            async move { if opens { Ok(()) } else { Err(told(StatusCode::SERVICE_UNAVAILABLE)) } }
        };
        let begin = Instant::now();
        wait_for(std::slice::from_ref(&gate), third).await.unwrap();
        assert_eq!(begin.elapsed(), PACE * 2);

        let never = |_| std::future::pending();
        let error = wait_for(std::slice::from_ref(&gate), never).await.unwrap_err();
        assert_eq!(begin.elapsed(), PACE * 2 + PATIENCE);
        assert_eq!(error.code, Code::TRY_AGAIN_LATER);
        assert!(error.details.contains(&gate.to_string()), "{error}");
        let closed = |_| async { Err(told(StatusCode::SERVICE_UNAVAILABLE)) };
        assert!(wait_for(std::slice::from_ref(&gate), closed).await.unwrap_err().details.contains("503"));
        wait_for(&[], never).await.unwrap();
    }

    #[tokio::test]
    async fn a_real_server_is_understood() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readiness", server.local_addr().unwrap());
        tokio::spawn(async move {
            for status in ["503 Busy", "204 Fine", "302 Elsewhere"] {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /readiness HTTP/1.1\r\n"));
                let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let uri: Uri = url.parse().unwrap();
        assert!(ask(uri.clone()).await.unwrap_err().contains("503"));
        ask(uri.clone()).await.unwrap();
        ask(uri.clone()).await.unwrap();
        assert!(ask(uri).await.unwrap_err().contains("onnect"), "nobody listens any more");
    }
}
