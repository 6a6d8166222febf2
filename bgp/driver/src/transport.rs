//! How connections come to be: TCP in earnest, anything that carries bytes in a simulation.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection.
pub struct Connection {
    /// Its bytes.
    pub stream: Box<dyn Stream>,
    /// Our address on it.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// Makes connections. Errors are words for an operator.
pub trait Transport: Send + Sync + 'static {
    /// Connects to `remote`, from `local` if that is given.
    fn dial(&self, local: Option<IpAddr>, remote: SocketAddr) -> BoxFuture<'_, io::Result<Connection>>;

    /// Listens.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
}

/// A socket that listens.
pub trait Listener: Send {
    /// The next connection. Cancel-safe.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>>;
}
