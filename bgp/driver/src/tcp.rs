//! TCP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use manx_bgp::session::{Guard, Secret};
use manx_tcp_guard::{keep_syns, set_least_ttl, set_md5_key, syn_ttl};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::transport::{BoxFuture, Connection, Dial, Listener, Transport};

/// CS6, "network control", as it stands in the TOS octet (RFC 4594 §3.1): a full link must not drop KEEPALIVEs first.
const NETWORK_CONTROL: u32 = 0xc0;
const BACKLOG: u32 = 1024;

/// The kernel's TCP, in the network namespace of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Transport for Tcp {
    fn dial(&self, dial: Dial) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let Dial { local, remote, guard } = dial;
            let socket = socket(remote)?;
            protect(&socket, remote.ip(), &guard)?;
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
            // The kernel answers a SYN before we see the connection, and a peer with TTL security wants 255 of all packets.
            set_ttl(&socket, u8::MAX)?;
            keep_syns(&socket)?;
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

    fn set_key(&mut self, peer: IpAddr, key: Option<&Secret>) -> io::Result<()> {
        set_md5_key(&*self, peer, key.map(Secret::expose))
    }
}

/// Protects a connection that has been accepted. Its first words may have been here before its least TTL was set, so the SYN
/// is judged, too.
pub(crate) fn protect_accepted(socket: &impl AsFd, peer: IpAddr, guard: &Guard) -> io::Result<()> {
    protect(socket, peer, guard)?;
    let least = guard.ttl.least_incoming();
    // Asked for in any case: the kernel keeps it until then.
    let arrived = syn_ttl(socket);
    if least == 0 {
        return Ok(());
    }
    match arrived? {
        Some(ttl) if ttl < least => {
            Err(io::Error::other(format!("it came with TTL {ttl}, TTL security wants {least} at least")))
        }
        _ => Ok(()),
    }
}

/// Protects a socket that is to be connected with a peer.
fn protect(socket: &impl AsFd, peer: IpAddr, guard: &Guard) -> io::Result<()> {
    match set_md5_key(socket, peer, guard.key().map(Secret::expose)) {
        // A kernel without signatures has none to take away either.
        Err(error) if guard.key().is_some() => Err(because(&error, "cannot set the password".to_owned())),
        _ => Ok(()),
    }?;
    if let Some(ttl) = guard.ttl.outgoing() {
        set_ttl(socket, ttl)?;
    }
    match guard.ttl.least_incoming() {
        0 => Ok(()),
        least => set_least_ttl(socket, least),
    }
}

fn set_ttl(socket: &impl AsFd, ttl: u8) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.local_addr()?.is_ipv6() {
        socket.set_unicast_hops_v6(ttl.into())?;
    }
    // On an IPv6 socket for peers with mapped IPv4 addresses.
    socket.set_ttl_v4(ttl.into())
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
    let socket = Some(stream.as_fd().try_clone_to_owned()?);
    Ok(Connection { stream: Box::new(stream), local, remote, socket })
}

fn because(error: &io::Error, what: String) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
