//! How connections come to be: TCP in earnest, anything that carries bytes in a simulation.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;

use manx_bgp::session::{Guard, Secret};
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
    /// The kernel's socket under it, if there is one: the peer's task sees to it that the guard of an accepted connection is the
    /// present one, and resets what cannot be closed.
    pub socket: Option<OwnedFd>,
}

/// A connection that is wanted.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Our address; the kernel chooses when there is none.
    pub local: Option<IpAddr>,
    /// The peer's.
    pub remote: SocketAddr,
    /// What protects it.
    pub guard: Guard,
}

/// Makes connections. Errors are words for an operator.
pub trait Transport: Send + Sync + 'static {
    /// Connects.
    fn dial(&self, dial: Dial) -> BoxFuture<'_, io::Result<Connection>>;

    /// Listens.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
}

/// A socket that listens.
pub trait Listener: Send {
    /// The next connection. Cancel-safe.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>>;

    /// From now on connections from this peer must be signed with the key; without one, must not be signed. A transport that
    /// knows no forgers need not do anything.
    fn set_key(&mut self, _peer: IpAddr, _key: Option<&Secret>) -> io::Result<()> {
        Ok(())
    }
}

impl Connection {
    /// One that nobody can forge, as in a simulation.
    pub fn new(stream: Box<dyn Stream>, local: SocketAddr, remote: SocketAddr) -> Self {
        Self { stream, local, remote, socket: None }
    }
}
