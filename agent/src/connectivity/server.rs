//! A test pod that is reached: it sends back what it is sent, and says what it reaches itself.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::calls;
use super::survey::{Plan, survey};

/// Connections served at a time; more wait to be accepted. Each checks all, at most once.
const CONNECTIONS: usize = 64;
/// Whoever is slower than this with one request and its answer is given up.
const LIMIT: Duration = Duration::from_secs(90);
/// What is longer is not sent back.
const LONGEST: usize = 1 << 20;
/// For how long a server tries what does not go well at once: it is asked when everything should be there.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Listens on all addresses of the pod.
///
/// # Errors
/// Those of the system.
pub async fn listen(plan: &Plan) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, plan.port)).await
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, plan: Plan) {
    let (plan, slots) = (Arc::new(plan), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let plan = Arc::clone(&plan);
                tokio::spawn(async move {
                    converse(stream, &plan).await;
                    drop(slot);
                });
            }
            Err(error) => {
                eprintln!("manx connectivity serve: cannot accept a connection: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, plan: &Plan) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request, plan).await) });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Who has gone in the middle of it says so on the other side.
    let _ = timeout(LIMIT, connection).await;
}

async fn answer(request: Request<Incoming>, plan: &Plan) -> Response<Full<Bytes>> {
    if request.uri().path() == calls::CHECK {
        let (findings, _) = survey(plan, PATIENCE).await;
        return page(plan, serde_json::to_vec(&findings).expect("findings serialize").into());
    }
    match Limited::new(request.into_body(), LONGEST).collect().await {
        Ok(body) => page(plan, body.to_bytes()),
        Err(error) => {
            let mut refused = page(plan, format!("{error}\n").into());
            *refused.status_mut() = StatusCode::BAD_REQUEST;
            refused
        }
    }
}

fn page(plan: &Plan, body: Bytes) -> Response<Full<Bytes>> {
    let mut page = Response::new(Full::new(body));
    for (name, text) in [(calls::NODE, &plan.here.node), (calls::POD, &plan.here.pod)] {
        if let Ok(value) = HeaderValue::from_str(text) {
            page.headers_mut().insert(name, value);
        }
    }
    page
}
