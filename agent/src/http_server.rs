//! HTTP for a few: so many connections at a time, each for one request and its answer.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How a place is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serving {
    /// What the requests are for, for the log.
    pub(crate) what: &'static str,
    /// Connections served at a time; more wait to be accepted.
    pub(crate) connections: usize,
    /// Whoever is slower than this with one request and its answer is given up.
    pub(crate) limit: Duration,
    /// Told of each connection that cannot be accepted.
    pub(crate) refused: fn(&io::Error),
}

impl Serving {
    /// Serves for ever.
    pub(crate) async fn run<F: Future<Output = Response<Full<Bytes>>> + Send>(
        self,
        listener: TcpListener,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) {
        let slots = Arc::new(Semaphore::new(self.connections));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answer = answer.clone();
                    tokio::spawn(async move {
                        self.converse(stream, answer).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    (self.refused)(&error);
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// One request and its answer.
    async fn converse<F: Future<Output = Response<Full<Bytes>>>>(
        self,
        stream: TcpStream,
        answer: impl Fn(Request<Incoming>) -> F,
    ) {
        let service = service_fn(|request| {
            let answer = answer(request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        match timeout(self.limit, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("a request for {}: {error}", self.what),
            Err(_) => tracing::debug!("a request for {} took too long", self.what),
        }
    }
}
