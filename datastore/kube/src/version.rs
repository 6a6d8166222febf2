//! A question to an API server as nobody, without a store: who is there, at an address where it should be.

use std::path::Path;
use std::time::Duration;

use http::{Request, StatusCode};
use kube::Config;
use kube::client::Body;
use kube::config::{Cluster, Context, KubeConfigOptions, Kubeconfig, NamedCluster, NamedContext};
use serde::Deserialize;
use tokio::time::timeout;

use crate::{config, connection};

/// For the connection, TLS and the answer.
const LIMIT: Duration = Duration::from_secs(8);

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "gitVersion")]
    version: String,
}

/// Asks the API server at `host` and `port` for its version, over TLS, without credentials: `root` is the file of the
/// certificate by which it is known. An API server that tells strangers nothing has answered as well.
///
/// # Errors
/// A sentence that says why there is no answer.
pub async fn ask_version(host: &str, port: u16, root: &Path) -> Result<String, String> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let config = as_nobody(&format!("https://{host}:{port}"), root).await?;
    let client = connection::client(config, LIMIT).map_err(|error| config::client_problem(&error))?;
    let request = Request::get("/version").body(Body::empty()).map_err(|error| error.to_string())?;
    let asked = async {
        let answer = client.send(request).await.map_err(|error| config::client_problem(&error))?;
        let status = answer.status();
        let body =
            answer.into_body().collect_bytes().await.map_err(|error| config::client_problem(&error))?;
        told(status, &body)
    };
    timeout(LIMIT, asked).await.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
}

/// What an answer says.
fn told(status: StatusCode, body: &[u8]) -> Result<String, String> {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Ok("it answers, and tells strangers nothing".to_owned())
        }
        status if status.is_success() => match serde_json::from_slice(body) {
            Ok(Version { version }) => Ok(format!("it is Kubernetes {version}")),
            Err(error) => Err(format!("what answers there is no API server: {error}")),
        },
        status => Err(format!("what answers there is no API server: {status}")),
    }
}

async fn as_nobody(server: &str, root: &Path) -> Result<Config, String> {
    let cluster = Cluster {
        server: Some(server.to_owned()),
        certificate_authority: Some(root.display().to_string()),
        ..Cluster::default()
    };
    let context = Context { cluster: "cluster".into(), ..Context::default() };
    let kubeconfig = Kubeconfig {
        clusters: vec![NamedCluster {
            name: "cluster".into(),
            cluster: Some(cluster),
            ..NamedCluster::default()
        }],
        contexts: vec![NamedContext {
            name: "cluster".into(),
            context: Some(context),
            ..NamedContext::default()
        }],
        current_context: Some("cluster".into()),
        ..Kubeconfig::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.map_err(|error| format!("{}: {}", root.display(), config::problem(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_says_its_version_or_that_strangers_are_told_nothing() {
        let version = told(StatusCode::OK, br#"{"major": "1", "gitVersion": "v1.33.1"}"#);
        assert_eq!(version.unwrap(), "it is Kubernetes v1.33.1");
        assert!(told(StatusCode::UNAUTHORIZED, b"").unwrap().contains("nothing"));
        assert!(told(StatusCode::OK, b"<html>").unwrap_err().contains("no API server"));
        assert!(told(StatusCode::NOT_FOUND, b"").unwrap_err().contains("404"));
    }
}
