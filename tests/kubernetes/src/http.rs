//! One request at a time to the API server, without a runtime and without the 60 ms of processor time of a kubectl.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long a silent server is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who asks the API server as one of its [users](crate::Options::user), from any thread.
#[derive(Debug, Clone)]
pub struct Client {
    server: SocketAddr,
    namespace: Option<String>,
    token: String,
    tls: Arc<ClientConfig>,
}

/// What the API server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For instance 201, or 409 for a conflict.
    pub status: u16,
    /// The object, or a Status that says what was wrong.
    pub body: String,
}

impl Client {
    /// A client that trusts `authority` and shows `token`.
    pub(crate) fn new(
        server: SocketAddr,
        namespace: Option<&str>,
        authority: CertificateDer<'static>,
        token: &str,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client {
            server,
            namespace: namespace.map(str::to_owned),
            token: token.to_owned(),
            tls: Arc::new(tls),
        })
    }

    /// The body of the answer to GET `path`; any status but 200 is an error that says what the server said.
    pub fn get(&self, path: &str) -> Result<String> {
        let answer = self.ask("GET", path, "")?;
        ensure!(answer.status == 200, "GET {path}: {}: {}", answer.status, answer.body.trim());
        Ok(answer.body)
    }

    /// The answer, whatever it is, to a request with a body of JSON, or none where it is empty. A PATCH is a merge patch.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let text = self
            .exchange(method, path, body)
            .with_context(|| format!("{method} https://{}{path}", self.server))?;
        let (head, body) = text.split_once("\r\n\r\n").context("the answer has no end of its head")?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Ok(Answer { status: status.context("the answer has no status")?, body: body.to_owned() })
    }

    /// In HTTP 1.0 the answer ends where the connection ends, and comes in no chunks.
    fn exchange(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let tcp = self.connect()?;
        // Linux would hold the second small piece back until the first is acknowledged, for 40 ms.
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE * manx_ground::slowness()))?;
        let name = ServerName::IpAddress(self.server.ip().into());
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(&self.tls), name)?, tcp);
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {}\r\nUser-Agent: manx-kubernetes\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            self.server,
            self.token,
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn connect(&self) -> Result<TcpStream> {
        let connect = || TcpStream::connect_timeout(&self.server, PATIENCE);
        Ok(match &self.namespace {
            Some(name) => manx_ground::netns::within(name, connect)??,
            None => connect()?,
        })
    }
}
