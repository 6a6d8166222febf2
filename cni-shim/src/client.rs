//! The plugin's side of a call: connect, ask, wait for the answer.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::protocol::ProtocolError;
use crate::wire::{read_reply, send_request};
use crate::{Reply, Request};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody took the request to its end: no socket, nobody behind it, or it fell silent. The call may be repeated.
    #[error("{0}")]
    Away(String),
    /// The request is longer than a frame may be; nothing was sent.
    #[error("the request is longer than a frame may be")]
    TooLong,
    /// Somebody answered, but not what an agent of this release answers.
    #[error("{0}")]
    Garbled(#[source] ProtocolError),
}

/// Asks the agent at `socket`, for at most `timeout` in all.
pub fn ask(
    socket: &Path,
    request: &Request,
    netns: Option<BorrowedFd<'_>>,
    timeout: Duration,
) -> Result<Reply, NoAnswer> {
    let deadline = Instant::now() + timeout;
    let stream =
        connect(socket, timeout).map_err(|error| NoAnswer::Away(format!("no connection: {error}")))?;
    // An agent that refuses a request may close before it has read all of it: its answer counts more than our error.
    let sent = match send_request(&stream, request, netns, deadline) {
        Err(ProtocolError::TooLong(_)) => return Err(NoAnswer::TooLong),
        sent => sent,
    };
    match (sent, read_reply(&stream, deadline)) {
        (_, Ok(reply)) => Ok(reply),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(no_answer(error, timeout)),
    }
}

/// Connects; `timeout` bounds the wait for a place in the agent's queue (`SO_SNDTIMEO` covers connect on Linux), which
/// `UnixStream::connect` would wait for without end.
fn connect(socket: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    let stream =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&stream, Timeout::Send, Some(timeout))?;
    rustix::net::connect(&stream, &address)?;
    Ok(UnixStream::from(stream))
}

fn no_answer(error: ProtocolError, timeout: Duration) -> NoAnswer {
    match error {
        ProtocolError::TimedOut => NoAnswer::Away(format!("no answer within {} s", timeout.as_secs())),
        ProtocolError::Closed | ProtocolError::CutShort | ProtocolError::Io(_) => {
            NoAnswer::Away(error.to_string())
        }
        ProtocolError::TooLong(_) | ProtocolError::Version(_) | ProtocolError::Malformed(_) => {
            NoAnswer::Garbled(error)
        }
    }
}
