//! Single calls, each with its limit: a name that is looked up, a body that is sent there and back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

use super::{Finding, Place, Trouble};

/// A packet that is lost at the begin of a connection is sent again after 1 s, and after 2 s more (tcp_syn_retries).
pub(super) const ATTEMPT: Duration = Duration::from_secs(4);
/// The C library asks a nameserver again after 5 s, once.
const LOOKUP: Duration = Duration::from_secs(6);
/// Between an attempt and the next.
const PAUSE: Duration = Duration::from_millis(500);
/// The path at which a server says what it reaches itself; at every other it sends back what it is sent.
pub(super) const CHECK: &str = "/check";
/// The name of a server's node in its answers, and of its pod.
pub(super) const NODE: &str = "manx-node";
pub(super) const POD: &str = "manx-pod";
/// Many packets of every MTU, and more than a window of TCP holds at its begin.
const LARGE: usize = 64 << 10;
/// An answer that is longer is none.
const LONGEST: usize = 8 << 20;

/// Tries until it goes well or `patience` is over; how many attempts it took, or the trouble of the last.
pub(super) async fn persist<T, F: Future<Output = Result<T, Trouble>>>(
    patience: Duration,
    attempt: impl Fn() -> F,
) -> Result<(T, usize), Trouble> {
    let begin = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        match attempt().await {
            Ok(result) => return Ok((result, attempts)),
            Err(trouble) if begin.elapsed() >= patience => return Err(trouble),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// The IPv4 addresses of a name, in order; looked up as the C library does it, with the search list of `/etc/resolv.conf`.
pub(super) async fn resolve(name: &str) -> Result<Vec<IpAddr>, Trouble> {
    let found = match timeout(LOOKUP, lookup_host((name, 0))).await {
        Ok(found) => found.map_err(|error| Trouble::Unresolved(error.to_string()))?,
        Err(_) => return Err(Trouble::Unresolved(format!("none within {} s", LOOKUP.as_secs()))),
    };
    let mut found: Vec<IpAddr> = found.map(|address| address.ip()).filter(IpAddr::is_ipv4).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Sends a few bytes to a server and back, and then many, each within `limit`; who it is.
pub(super) async fn echo(server: SocketAddr, limit: Duration) -> Result<Place, Trouble> {
    let few = Bytes::from_static(b"manx");
    let (_, back) = exchange(server, "/", few.clone(), limit).await?;
    if back != few {
        return Err(Trouble::Unanswered("something else than a test pod answers".into()));
    }
    let many = Bytes::from(vec![0x6d; LARGE]);
    let large_lost = |trouble| match trouble {
        Trouble::Unanswered(why) => Trouble::LargeLost(why),
        trouble => trouble,
    };
    let (headers, back) = exchange(server, "/", many.clone(), limit).await.map_err(large_lost)?;
    if back != many {
        return Err(Trouble::LargeLost(format!("{} bytes did", back.len())));
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("?").to_owned();
    Ok(Place { node: text(NODE), pod: text(POD) })
}

/// What a server reaches itself.
pub(super) async fn ask(server: SocketAddr, limit: Duration) -> Result<Vec<Finding>, Trouble> {
    let (_, page) = exchange(server, CHECK, Bytes::new(), limit).await?;
    serde_json::from_slice(&page)
        .map_err(|error| Trouble::Unanswered(format!("its answer cannot be read: {error}")))
}

/// One request on a connection of its own, and the whole answer.
async fn exchange(
    server: SocketAddr,
    path: &str,
    body: Bytes,
    limit: Duration,
) -> Result<(HeaderMap, Bytes), Trouble> {
    let late = |_| io::Error::other(format!("none within {} s", ATTEMPT.as_secs()));
    let connected = timeout(ATTEMPT, TcpStream::connect(server)).await.map_err(late);
    let stream = connected
        .and_then(|connected| connected)
        .map_err(|error| Trouble::Unconnected(format!("no connection to port {}: {error}", server.port())))?;
    let unanswered = |why: String| Trouble::Unanswered(format!("connected, but no answer: {why}"));
    let request = Request::post(path).header(http::header::HOST, server.to_string()).body(Full::new(body));
    let request = request.map_err(|error| unanswered(error.to_string()))?;
    let conversation = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender.
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head.headers, body.to_bytes()))
    };
    match timeout(limit, conversation).await {
        Ok(answer) => answer.map_err(|error| unanswered(error.to_string())),
        Err(_) => Err(unanswered(format!("none within {} s", limit.as_secs()))),
    }
}
