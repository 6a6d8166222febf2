//! Frames on a unix stream socket, with a deadline, and the pod's namespace as a descriptor beside the request.
//!
//! All functions block. The deadline bounds the whole frame and not each read, so that a peer which sends one octet per
//! second holds nobody up. The descriptor (SCM_RIGHTS, unix(7)) arrives with the first octets of the request.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::Serialize;

use crate::protocol::{MAX_FRAME, ProtocolError, decode, encode};
use crate::{Reply, Request};

/// Sends a request, and `netns` with its first octet. Plugin's side.
pub fn send_request(
    socket: &UnixStream,
    request: &Request,
    netns: Option<BorrowedFd<'_>>,
    deadline: Instant,
) -> Result<(), ProtocolError> {
    send(socket, request, netns, deadline)
}

/// Reads a request and the namespace that came with it. Agent's side. On an error the agent should answer
/// `Reply::Error((&error).into())` and close: the plugin prints it.
pub fn read_request(
    socket: &UnixStream,
    deadline: Instant,
) -> Result<(Request, Option<OwnedFd>), ProtocolError> {
    let mut incoming = Incoming { socket, deadline, descriptor: None };
    let text = incoming.frame()?;
    Ok((decode(&text)?, incoming.descriptor))
}

/// Sends the reply. Agent's side.
pub fn send_reply(socket: &UnixStream, reply: &Reply, deadline: Instant) -> Result<(), ProtocolError> {
    send(socket, reply, None, deadline)
}

/// Reads the reply. Plugin's side.
pub fn read_reply(socket: &UnixStream, deadline: Instant) -> Result<Reply, ProtocolError> {
    let text = Incoming { socket, deadline, descriptor: None }.frame()?;
    decode(&text)
}

fn send<T: Serialize>(
    socket: &UnixStream,
    body: &T,
    descriptor: Option<BorrowedFd<'_>>,
    deadline: Instant,
) -> Result<(), ProtocolError> {
    let text = encode(body)?;
    let length = u32::try_from(text.len()).map_err(|_| ProtocolError::TooLong(text.len()))?;
    let frame = [&length.to_be_bytes(), text.as_slice()].concat();
    let mut descriptor = descriptor;
    let mut sent = 0;
    while sent < frame.len() {
        socket.set_write_timeout(Some(remaining(deadline)?)).map_err(ProtocolError::Io)?;
        sent += send_some(socket, &frame[sent..], descriptor.as_slice()).or_else(again_if_interrupted)?;
        if sent > 0 {
            descriptor = None;
        }
    }
    Ok(())
}

fn send_some(socket: &UnixStream, octets: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(octets)], &mut ancillary, SendFlags::NOSIGNAL)
}

/// A frame on its way in, and the descriptor that was beside it.
struct Incoming<'a> {
    socket: &'a UnixStream,
    deadline: Instant,
    descriptor: Option<OwnedFd>,
}

impl Incoming<'_> {
    fn frame(&mut self) -> Result<Vec<u8>, ProtocolError> {
        let mut length = [0; 4];
        self.fill(&mut length, ProtocolError::Closed)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(ProtocolError::TooLong(length));
        }
        let mut text = vec![0; length];
        self.fill(&mut text, ProtocolError::CutShort)?;
        Ok(text)
    }

    /// Fills `buffer`; `at_once` is the error when the stream ends before its first octet.
    fn fill(&mut self, buffer: &mut [u8], at_once: ProtocolError) -> Result<(), ProtocolError> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.socket.set_read_timeout(Some(remaining(self.deadline)?)).map_err(ProtocolError::Io)?;
            match self.read_some(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Err(at_once),
                Ok(0) => return Err(ProtocolError::CutShort),
                Ok(read) => filled += read,
                Err(errno) => filled += again_if_interrupted(errno)?,
            }
        }
        Ok(())
    }

    /// One read. A second descriptor is closed unseen: there is one namespace per request.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut octets = [IoSliceMut::new(buffer)];
        let message =
            rustix::net::recvmsg(self.socket, &mut octets, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for received in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = received {
                self.descriptor = self.descriptor.take().or(descriptors.last());
            }
        }
        Ok(message.bytes)
    }
}

/// An interrupted call moved nothing and is repeated; a timed-out one ends the frame.
fn again_if_interrupted(errno: Errno) -> Result<usize, ProtocolError> {
    match errno {
        Errno::INTR => Ok(0),
        Errno::AGAIN => Err(ProtocolError::TimedOut),
        errno => Err(ProtocolError::Io(io::Error::from(errno))),
    }
}

/// What is left until `deadline`; never zero, which would mean "no limit" to the socket.
fn remaining(deadline: Instant) -> Result<Duration, ProtocolError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ProtocolError::TimedOut) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;
    use crate::{Command, Settings};

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn status() -> Request {
        Request { network: "n".to_owned(), command: Command::Status, settings: Settings::default() }
    }

    fn error_after(octets: &[u8]) -> ProtocolError {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(octets).unwrap();
        drop(ours);
        read_request(&theirs, late()).unwrap_err()
    }

    #[test]
    fn the_descriptor_beside_a_request_is_the_same_file() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/proc/self/ns/net").unwrap();
        send_request(&ours, &status(), Some(file.as_fd()), late()).unwrap();
        let (request, descriptor) = read_request(&theirs, late()).unwrap();
        assert_eq!(request, status());
        let (sent, arrived) =
            (rustix::fs::fstat(&file).unwrap(), rustix::fs::fstat(descriptor.unwrap()).unwrap());
        assert_eq!((sent.st_dev, sent.st_ino), (arrived.st_dev, arrived.st_ino));
    }

    #[test]
    fn a_request_without_a_descriptor_arrives_without_one() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_request(&ours, &status(), None, late()).unwrap();
        assert!(read_request(&theirs, late()).unwrap().1.is_none());
    }

    #[test]
    fn a_request_larger_than_the_sockets_buffer_arrives_whole_with_its_descriptor() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let large = Request { network: "x".repeat(MAX_FRAME - 200), ..status() };
        let reader = std::thread::spawn(move || read_request(&theirs, late()).unwrap());
        let file = std::fs::File::open("/proc/self/ns/net").unwrap();
        send_request(&ours, &large, Some(file.as_fd()), late()).unwrap();
        let (request, descriptor) = reader.join().unwrap();
        assert_eq!(request, large);
        assert!(descriptor.is_some());
    }

    #[test]
    fn a_stream_that_ends_early_says_where() {
        assert!(matches!(error_after(b""), ProtocolError::Closed));
        assert!(matches!(error_after(b"\0\0"), ProtocolError::CutShort));
        assert!(matches!(error_after(b"\0\0\0\x09"), ProtocolError::CutShort));
        assert!(matches!(error_after(b"\0\0\0\x09{\"pro"), ProtocolError::CutShort));
        assert!(matches!(error_after(b"\0\0\0\0"), ProtocolError::Malformed(_)));
        assert!(matches!(error_after(b"GET / HTTP/1.1\r\n"), ProtocolError::TooLong(_)));
    }

    #[test]
    fn the_deadline_holds_for_reading_and_for_writing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(matches!(read_request(&theirs, soon()), Err(ProtocolError::TimedOut)));
        let large = Request { network: "x".repeat(MAX_FRAME - 200), ..status() };
        assert!(matches!(send_request(&ours, &large, None, soon()), Err(ProtocolError::TimedOut)));
    }
}
