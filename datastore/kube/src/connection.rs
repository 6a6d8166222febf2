//! The one connection of an agent to the API server, on which all its calls and watches travel side by side (HTTP/2;
//! over a proxy that has only HTTP/1.1, a few connections that are kept).
//!
//! The client is put together here and not by `kube`: its own speaks HTTP/1.1, where each watch is a TLS connection of
//! its own, logs every refused call as an error, and repeats refused calls for an hour.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use manx_datastore::Error;
use tower::{BoxError, ServiceBuilder};

use crate::traffic::Counters;
use crate::watch::Pace;
use crate::{Options, config};

/// How the API server's logs name us.
const AGENT: &str = concat!("manx/", env!("CARGO_PKG_VERSION"));

/// For how long one address of the API server is tried. (A call has its own, longer time.)
const CONNECT: Duration = Duration::from_secs(5);

/// A connection on which nothing comes is asked whether it lives after three times what a call may take (30 s), and given
/// up when half of that has passed without an answer: the other end may be gone without a word.
fn patience(timeout: Duration) -> (Duration, Duration) {
    (timeout * 3, timeout * 3 / 2)
}

/// What all calls and watches of a store share.
pub(crate) struct Connection {
    client: Client,
    /// Host and port of the API server.
    server: String,
    pub(crate) timeout: Duration,
    pub(crate) reporter: String,
    pub(crate) pace: Pace,
    pub(crate) traffic: Counters,
    /// Whether the API server can send a list as the beginning of a watch; it is asked once.
    pub(crate) streams_lists: AtomicBool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection that opens when it is first used.
    pub(crate) async fn open(options: Options, pace: Pace) -> Result<Self, Error> {
        let config = config::load(options.kubeconfig.as_deref()).await.map_err(Error::Unavailable)?;
        let url = &config.cluster_url;
        let server = format!("{}:{}", url.host().unwrap_or_default(), url.port_u16().unwrap_or(443));
        // Credentials may be made by a program, which is waited for.
        let made = tokio::task::spawn_blocking(move || client(config, options.timeout)).await;
        let client = made
            .map_err(|error| Error::Unavailable(error.to_string()))?
            .map_err(|error| Error::Unavailable(config::client_problem(&error)))?;
        Ok(Self {
            client,
            server,
            timeout: options.timeout,
            reporter: options.reporter,
            pace,
            traffic: Counters::default(),
            streams_lists: AtomicBool::new(true),
        })
    }

    /// Sends a request; the answer's head, its body still to come.
    ///
    /// # Errors
    /// A sentence that says why there is no answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, String> {
        let sent = self.client.send(request).await;
        sent.map_err(|error| format!("{}: {}", self.server, config::client_problem(&error)))
    }
}

pub(crate) fn client(mut config: Config, timeout: Duration) -> Result<Client, kube::Error> {
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    // Over HTTP/1.1, and for what is sent into the void, the kernel asks.
    let (ping, pong) = patience(timeout);
    connector.set_keepalive(Some(ping));
    connector.set_keepalive_interval(Some(pong));
    connector.set_tcp_user_timeout(Some(ping + pong));
    let mut https =
        HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        let name = name.try_into().map_err(kube::client::RustlsTlsError::InvalidServerName);
        https = https
            .with_server_name_resolver(FixedServerNameResolver::new(name.map_err(kube::Error::RustlsTls)?));
    }
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(ping)
        .http2_keep_alive_timeout(pong)
        .http2_keep_alive_while_idle(true)
        .build(https.enable_all_versions().wrap_connector(connector));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}
