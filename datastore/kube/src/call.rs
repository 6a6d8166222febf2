//! One call: a request and its whole answer, within the call's time.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use manx_datastore::Error;
use manx_model::{Kind, Object};
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::Connection;
use crate::refusal::Refusal;
use crate::request::{Call, path};
use crate::{backoff, config, decode};

/// The longest answer that is read, in bytes: a page of the largest objects is far shorter.
const LONGEST: usize = 256 << 20;

/// How long to wait when a server that is busy does not say.
const BUSY: Duration = Duration::from_secs(1);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

/// [`manx_datastore::Datastore::get`].
pub(crate) async fn get(connection: &Connection, kind: Kind, key: &str) -> Result<Option<Object>, Error> {
    let Some(path) = path(kind, key) else { return Ok(None) };
    let answer = connection.call(Some(kind), &Call::get(path)).await?;
    if answer.status.is_success() {
        return decode::stored(kind, key, &answer.body).map(Some);
    }
    match Refusal::read(kind, &answer) {
        Refusal::NotFound => Ok(None),
        refusal => Err(Error::Unavailable(refusal.to_string())),
    }
}

impl Connection {
    /// Asks, and asks again what was turned away with 429 as long as there is time: that was not carried out.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no answer in time. What the answer says is for the caller to read.
    pub(crate) async fn call(&self, kind: Option<Kind>, call: &Call) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let answer = self.call_once(kind, call, deadline).await.map_err(Error::Unavailable)?;
            let wait = backoff::spread(answer.retry_after.unwrap_or(BUSY));
            if answer.status != StatusCode::TOO_MANY_REQUESTS || Instant::now() + wait >= deadline {
                return Ok(answer);
            }
            sleep(wait).await;
        }
    }

    async fn call_once(&self, kind: Option<Kind>, call: &Call, deadline: Instant) -> Result<Answer, String> {
        let response = self.head(kind, call, deadline).await?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let body = Limited::new(response.into_body(), LONGEST).collect();
        match timeout_at(deadline, body).await {
            Ok(Ok(body)) => Ok(Answer { status, retry_after, body: body.to_bytes() }),
            Ok(Err(error)) => Err(format!("its answer broke off: {}", config::chain(&*error))),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// A sentence that says why there is none by then.
    pub(crate) async fn head(
        &self,
        kind: Option<Kind>,
        call: &Call,
        deadline: Instant,
    ) -> Result<Response<Body>, String> {
        if let Some(kind) = kind {
            self.traffic.called(call.verb, kind);
        }
        let request = call.request().map_err(|error| error.to_string())?;
        timeout_at(deadline, self.send(request)).await.unwrap_or_else(|_| Err(self.too_slow()))
    }

    fn too_slow(&self) -> String {
        format!("no answer within {} s", self.timeout.as_secs_f32())
    }
}

/// What the server asks us to wait. A date, which it may also say, is none that the API server sends.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).max(Duration::from_millis(100)))
}
