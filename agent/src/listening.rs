//! Where probes are answered and metrics are told, over HTTP: a task that keeps listening where the parameters say, and
//! the pages that it serves.
//!
//! The parameters are Felix' (`healthEnabled`, `healthHost`, `healthPort`, `prometheusMetrics…`), from the environment, else
//! the FelixConfiguration of this node, else that of the cluster. A change is followed at once.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use manx_model::FelixConfigurationSpec;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::config::FelixEnvironment;
use crate::felix_parameters;
use crate::http_server::Serving;
use crate::probes::{self, BgpAsked, Verdict};
use crate::problems::Problems;
use crate::view::View;

/// A place that cannot be listened on is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// At one place.
const SERVING: Serving = Serving {
    what: "probes or metrics",
    connections: 16,
    limit: Duration::from_secs(10),
    refused: |error| tracing::warn!("cannot accept a connection for probes or metrics: {error}"),
};

const HEALTH_PORT: u16 = 9099;
const METRICS_PORT: u16 = 9091;

/// A host, as it was written, and a TCP port. An empty host is all addresses.
type Place = (String, u16);

/// What is served at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Serves {
    probes: bool,
    metrics: bool,
}

/// What the parameters ask for.
fn wanted(environment: &FelixEnvironment, cluster: &Cluster) -> BTreeMap<Place, Serves> {
    let health = Asked {
        enabled: first(environment.health_enabled, cluster, |spec| spec.health_enabled),
        host: first(environment.health_host.clone(), cluster, |spec| spec.health_host.clone())
            .unwrap_or_else(|| "localhost".into()),
        port: first(environment.health_port, cluster, |spec| spec.health_port).unwrap_or(HEALTH_PORT),
    };
    let metrics = Asked {
        enabled: first(environment.metrics_enabled, cluster, |spec| spec.prometheus_metrics_enabled),
        host: first(environment.metrics_host.clone(), cluster, |spec| spec.prometheus_metrics_host.clone())
            .unwrap_or_default(),
        port: first(environment.metrics_port, cluster, |spec| spec.prometheus_metrics_port)
            .unwrap_or(METRICS_PORT),
    };
    let mut wanted: BTreeMap<Place, Serves> = BTreeMap::new();
    if let Some(place) = health.place() {
        wanted.entry(place).or_default().probes = true;
    }
    if let Some(place) = metrics.place() {
        wanted.entry(place).or_default().metrics = true;
    }
    wanted
}

struct Asked {
    enabled: Option<bool>,
    host: String,
    port: u16,
}

impl Asked {
    fn place(self) -> Option<Place> {
        (self.enabled == Some(true)).then_some((self.host, self.port))
    }
}

fn first<T>(
    environment: Option<T>,
    cluster: &Cluster,
    read: impl Fn(&FelixConfigurationSpec) -> Option<T>,
) -> Option<T> {
    environment.or_else(|| felix_parameters::objects(cluster).find_map(|(_, spec)| read(spec)))
}

/// Listens where the parameters say, for ever.
pub async fn keep(environment: FelixEnvironment, view: View, problems: Problems) {
    let mut cluster = view.cluster();
    let mut open: BTreeMap<Place, (Serves, AbortHandle)> = BTreeMap::new();
    loop {
        let wanted = wanted(&environment, &cluster.borrow_and_update());
        open.retain(|place, (serves, task)| {
            let stays = wanted.get(place) == Some(serves);
            if !stays {
                task.abort();
            }
            stays
        });
        let mut failed = Vec::new();
        for ((host, port), serves) in wanted {
            if open.contains_key(&(host.clone(), port)) {
                continue;
            }
            match bind(&host, port).await {
                Ok(listener) => {
                    let task = tokio::spawn(serve(listener, serves, view.clone()));
                    open.insert((host, port), (serves, task.abort_handle()));
                }
                Err(error) => {
                    failed.push(format!("probes or metrics are not served on {host}:{port}: {error}"));
                }
            }
        }
        let again = !failed.is_empty();
        problems.set("listening", failed);
        tokio::select! {
            changed = cluster.changed() => if changed.is_err() { return },
            () = sleep(RETRY), if again => {}
        }
    }
}

/// `localhost` needs no resolver: an image from scratch has none.
async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match host {
        // A kernel without IPv6 has the other one.
        "" => match TcpListener::bind(everywhere).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            bound => bound,
        },
        "localhost" => TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await,
        host => TcpListener::bind((host, port)).await,
    }
}

async fn serve(listener: TcpListener, serves: Serves, view: View) {
    let answer = move |request: Request<Incoming>| {
        let view = view.clone();
        async move { answer(request.method(), request.uri(), serves, &view).await }
    };
    SERVING.run(listener, answer).await;
}

async fn answer(method: &Method, uri: &http::Uri, serves: Serves, view: &View) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return page(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".into());
    }
    match (uri.path(), serves) {
        ("/livez" | "/liveness", Serves { probes: true, .. }) => judged(&probes::alive(&view.stuck().await)),
        ("/readyz" | "/readiness", Serves { probes: true, .. }) => match BgpAsked::from_query(uri.query()) {
            Ok(asked) => judged(&probes::ready(&view.status().await, asked)),
            Err(reason) => page(StatusCode::BAD_REQUEST, format!("{reason}\n")),
        },
        ("/metrics", Serves { metrics: true, .. }) => page(StatusCode::OK, view.metrics_page().await),
        _ => page(StatusCode::NOT_FOUND, format!("here is {}\n", serves.paths())),
    }
}

impl Serves {
    fn paths(self) -> &'static str {
        match (self.probes, self.metrics) {
            (true, true) => "/livez, /readyz, /metrics",
            (true, false) => "/livez, /readyz",
            (false, _) => "/metrics",
        }
    }
}

fn judged(verdict: &Verdict) -> Response<Full<Bytes>> {
    let status = if verdict.is_good() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    page(status, verdict.to_string())
}

fn page(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_model::{Kind, Object};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn places(environment: &FelixEnvironment, default: &Value) -> Vec<(Place, &'static str)> {
        let object = Object::new(Kind::FelixConfiguration, "default", default);
        let felix = Arc::new(FelixConfigurationSpec::from_object(&object).0);
        let cluster = Cluster { felix, ..Cluster::default() };
        wanted(environment, &cluster).into_iter().map(|(place, serves)| (place, serves.paths())).collect()
    }

    #[test]
    fn nothing_listens_unless_it_is_asked_for_and_the_environment_wins() {
        let nothing = FelixEnvironment::default();
        assert!(places(&nothing, &json!({})).is_empty());
        let health = ("localhost".to_owned(), 9099);
        let on =
            json!({"healthEnabled": true, "prometheusMetricsEnabled": true, "prometheusMetricsPort": 9095});
        assert_eq!(places(&nothing, &on), [((String::new(), 9095), "/metrics"), (health, "/livez, /readyz")]);
        let off = FelixEnvironment {
            health_enabled: Some(false),
            metrics_host: Some("10.0.0.5".into()),
            ..FelixEnvironment::default()
        };
        assert_eq!(places(&off, &on), [(("10.0.0.5".to_owned(), 9095), "/metrics")]);
    }

    #[test]
    fn one_place_may_serve_both() {
        let both = json!({"healthEnabled": true, "healthHost": "10.0.0.5", "healthPort": 80,
            "prometheusMetricsEnabled": true, "prometheusMetricsHost": "10.0.0.5", "prometheusMetricsPort": 80});
        let found = places(&FelixEnvironment::default(), &both);
        assert_eq!(found, [(("10.0.0.5".to_owned(), 80), "/livez, /readyz, /metrics")]);
    }
}
