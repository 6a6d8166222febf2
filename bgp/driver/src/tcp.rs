//! TCP.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::transport::{BoxFuture, Connection, Listener, Transport};

/// CS6, "network control", as it stands in the TOS octet (RFC 4594 §3.1): a full link must not drop KEEPALIVEs first.
const NETWORK_CONTROL: u32 = 0xc0;
const BACKLOG: u32 = 1024;

/// The kernel's TCP, in the network namespace of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Transport for Tcp {
    fn dial(&self, local: Option<IpAddr>, remote: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let socket = socket(remote)?;
            if let Some(local) = local {
                let bound = socket.bind(SocketAddr::new(local, 0));
                bound.map_err(|error| because(&error, format!("cannot send from {local}")))?;
            }
            let stream = socket.connect(remote).await;
            connection(stream.map_err(|error| because(&error, format!("{remote}")))?)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let socket = socket(address)?;
            let listening = socket.bind(address).and_then(|()| socket.listen(BACKLOG));
            let listener =
                listening.map_err(|error| because(&error, format!("cannot listen on {address}")))?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move { connection(TcpListener::accept(self).await?.0) })
    }
}

/// Accepted sockets inherit the options.
fn socket(family: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if family.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    if family.is_ipv4() {
        SockRef::from(&socket).set_tos_v4(NETWORK_CONTROL)?;
    }
    Ok(socket)
}

fn connection(stream: TcpStream) -> io::Result<Connection> {
    let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
    Ok(Connection { stream: Box::new(stream), local, remote })
}

fn because(error: &io::Error, what: String) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
