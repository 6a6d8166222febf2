//! A connection with what is still to be written to it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use manx_bgp::session::ConnectionId;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::transport::Stream;

/// Read at once; what comes out of it waits for the owner before more is read.
const READ: usize = 64 * 1024;
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection of a peer.
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    stream: Box<dyn Stream>,
    /// The kernel's socket under it, if there is one.
    socket: Option<OwnedFd>,
    out: VecDeque<Bytes>,
    queued: usize,
}

/// What happened on a connection.
pub(crate) struct Progress {
    pub(crate) id: ConnectionId,
    /// Bytes were taken; whether nothing is left.
    pub(crate) sent: Option<bool>,
    /// Bytes came, or the end, in words.
    pub(crate) received: Option<Result<Bytes, String>>,
}

impl Link {
    pub(crate) fn new(id: ConnectionId, stream: Box<dyn Stream>, socket: Option<OwnedFd>) -> Self {
        Self { id, stream, socket, out: VecDeque::new(), queued: 0 }
    }

    /// Octets that are still to be written.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    pub(crate) fn send(&mut self, bytes: Bytes) {
        self.queued += bytes.len();
        self.out.push_back(bytes);
    }

    /// Writes and reads what can be; ready when anything happened.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, may_read: bool) -> Poll<Progress> {
        let (sent, broken) = self.poll_write(context);
        let received = match broken {
            Some(error) => Some(Err(error.to_string())),
            None if may_read => match self.poll_read(context) {
                Poll::Ready(received) => Some(received),
                Poll::Pending => None,
            },
            None => None,
        };
        if sent.is_none() && received.is_none() {
            return Poll::Pending;
        }
        Poll::Ready(Progress { id: self.id, sent, received })
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> (Option<bool>, Option<io::Error>) {
        let mut sent = None;
        while let Some(front) = self.out.front_mut() {
            match Pin::new(&mut self.stream).poll_write(context, front) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return (sent, Some(error)),
                Poll::Ready(Ok(0)) => return (sent, Some(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.queued -= count;
                    front.advance(count);
                    if front.is_empty() {
                        self.out.pop_front();
                    }
                    sent = Some(self.out.is_empty());
                }
            }
        }
        (sent, None)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, String>> {
        let mut space = vec![0; READ];
        let mut buffer = ReadBuf::new(&mut space);
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer));
        let length = buffer.filled().len();
        Poll::Ready(match read {
            Ok(()) if length == 0 => Err("the peer closed it".to_owned()),
            Ok(()) => {
                let mut bytes = BytesMut::from(&space[..length]);
                Ok(bytes.split().freeze())
            }
            Err(error) => Err(error.to_string()),
        })
    }

    /// Writes what is left and closes. What the peer still sends is read and dropped: a socket that is closed
    /// with bytes unread sends a reset, which overtakes the NOTIFICATION. A peer that says nothing to it is sent a reset
    /// after all: where its packets do not get through, as when its password is another, what is unacknowledged would hold up
    /// our end of the connection, and for so long it would take no other.
    pub(crate) async fn close(mut self) {
        let farewell = async {
            while let Some(mut front) = self.out.pop_front() {
                self.stream.write_all_buf(&mut front).await?;
            }
            self.stream.shutdown().await?;
            let mut space = [0; 1024];
            while self.stream.read(&mut space).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether the last words arrived changes nothing any more.
        if timeout(FAREWELL, farewell).await.is_err()
            && let Some(socket) = &self.socket
        {
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}
