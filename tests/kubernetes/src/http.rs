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

#[derive(Debug)]
pub(crate) struct Client {
    server: SocketAddr,
    namespace: Option<String>,
    token: String,
    tls: Arc<ClientConfig>,
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
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let answer = self.exchange(path).with_context(|| format!("GET https://{}{path}", self.server))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.split(' ').nth(1) == Some("200"), "GET {path}: {status}: {}", body.trim());
        Ok(body.to_owned())
    }

    /// In HTTP 1.0 the answer ends where the connection ends, and comes in no chunks.
    fn exchange(&self, path: &str) -> Result<String> {
        let tcp = self.connect()?;
        // Linux would hold the second small piece back until the first is acknowledged, for 40 ms.
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE * manx_ground::slowness()))?;
        let name = ServerName::IpAddress(self.server.ip().into());
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(&self.tls), name)?, tcp);
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {}\r\nUser-Agent: manx-kubernetes\r\n\r\n",
            self.server, self.token
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
