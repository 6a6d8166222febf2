//! A test pod that is reached: it sends back what it is sent, and says what it reaches itself.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use tokio::net::TcpListener;

use super::calls;
use super::survey::{Plan, survey};
use crate::http_server::Serving;

/// Each connection checks all, at most once.
const SERVING: Serving = Serving {
    what: "connectivity",
    connections: 64,
    limit: Duration::from_secs(90),
    refused: |error| eprintln!("manx connectivity serve: cannot accept a connection: {error}"),
};
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
    let plan = Arc::new(plan);
    let answer = move |request| {
        let plan = Arc::clone(&plan);
        async move { answer(request, &plan).await }
    };
    SERVING.run(listener, answer).await;
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
