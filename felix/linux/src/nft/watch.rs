//! Notices what others do to our table.
//!
//! The kernel tells whoever listens about every transaction in nftables, also kube-proxy's: what is about other tables is
//! passed over. Events that nobody waited for stay in the queue; when it overflows, that is told as a change.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use manx_felix::TABLE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};
use rustix::net::sockopt;

use super::message::{IPV4, NEWGEN, NFTABLES, kind};
use super::read::table_of;
use crate::parse::{Message, messages};
use crate::socket::Ports;

/// NFNLGRP_NFTABLES.
const GROUP: u32 = 7;
/// Receive buffer, in bytes: what kube-proxy writes at once on a large cluster.
const EVENT_BUFFER: usize = 4 << 20;
const DATAGRAM: usize = 64 << 10;

pub(crate) struct Watch {
    socket: TokioSocket,
    ports: Ports,
}

impl Watch {
    /// Subscribes in the calling thread's network namespace; inside a tokio runtime. What the sockets of `ports` do is
    /// not told.
    pub(crate) fn open(ports: Ports) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        let inner = socket.socket_mut();
        sockopt::set_socket_recv_buffer_size_force(inner.as_fd(), EVENT_BUFFER)?;
        inner.bind(&SocketAddr::new(0, 0))?;
        inner.add_membership(GROUP)?;
        Ok(Self { socket, ports })
    }

    /// Resolves when our table was changed by somebody else.
    pub(crate) async fn changed(&self) {
        let mut buffer = Vec::with_capacity(DATAGRAM);
        poll_fn(|context| self.poll(context, &mut buffer)).await;
    }

    fn poll(&self, context: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<()> {
        loop {
            buffer.clear();
            match self.socket.poll_recv(context, buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if messages(buffer).any(|message| self.concerns_us(&message)) => {
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // ENOBUFS: events were lost.
                Poll::Ready(Err(_)) => return Poll::Ready(()),
            }
        }
    }

    fn concerns_us(&self, message: &Message<'_>) -> bool {
        let ours =
            || self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&message.port);
        // A new generation is told about every transaction, and is about no table.
        let is_of_a_table = message.kind >> 8 == NFTABLES && message.kind != kind(NEWGEN);
        is_of_a_table
            && message.payload.first() == Some(&IPV4)
            && table_of(message.payload).as_deref() == Some(TABLE)
            && !ours()
    }
}
