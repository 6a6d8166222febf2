//! Frames on a unix stream socket, with a deadline, and the pod's namespace as a descriptor beside the request.
//!
//! The functions block, as suits the plugin; [`Incoming`] and [`frame`] are the same without waiting, for the agent, which
//! waits for all its sockets at once. A deadline bounds the whole frame and not each read, so that a peer which sends one
//! octet per second holds nobody up. The descriptor (SCM_RIGHTS, unix(7)) arrives with the first octets of the request.
//! Each side sends one frame, and nothing behind it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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

/// Reads the reply. Plugin's side.
pub fn read_reply(socket: &UnixStream, deadline: Instant) -> Result<Reply, ProtocolError> {
    let mut incoming = Incoming::default();
    loop {
        socket.set_read_timeout(Some(remaining(deadline)?)).map_err(ProtocolError::Io)?;
        match incoming.read(socket) {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => return decode(incoming.text()),
            Ok(Err(error)) => return Err(error),
            Err(error) => drop(again_if_interrupted(error)?),
        }
    }
}

/// The frame of `body`: what [`send_request`] sends, without waiting.
///
/// # Errors
/// [`ProtocolError::TooLong`].
pub fn frame<T: Serialize>(body: &T) -> Result<Vec<u8>, ProtocolError> {
    let text = encode(body)?;
    let length = u32::try_from(text.len()).map_err(|_| ProtocolError::TooLong(text.len()))?;
    Ok([&length.to_be_bytes(), text.as_slice()].concat())
}

fn send<T: Serialize>(
    socket: &UnixStream,
    body: &T,
    descriptor: Option<BorrowedFd<'_>>,
    deadline: Instant,
) -> Result<(), ProtocolError> {
    let frame = frame(body)?;
    let mut descriptor = descriptor;
    let mut sent = 0;
    while sent < frame.len() {
        socket.set_write_timeout(Some(remaining(deadline)?)).map_err(ProtocolError::Io)?;
        let some = send_some(socket, &frame[sent..], descriptor.as_slice());
        sent += some.or_else(|errno| again_if_interrupted(errno.into()))?;
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

/// What is read at once: more than a frame is long, mostly.
const CHUNK: usize = 4096;
/// The octets of a frame's length.
const HEAD: usize = 4;

/// A frame on its way in, and the descriptor that was beside it.
#[derive(Debug, Default)]
pub struct Incoming {
    octets: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

impl Incoming {
    /// Reads once, and says whether the frame is whole. When it is not, read again.
    ///
    /// # Errors
    /// The outer one is the socket's, `WouldBlock` among them; the inner one says why there will be no frame.
    pub fn read(&mut self, socket: impl AsFd) -> io::Result<Result<bool, ProtocolError>> {
        let mut chunk = [0; CHUNK];
        let read = self.read_some(socket.as_fd(), &mut chunk)?;
        if read == 0 {
            let nothing = self.octets.is_empty();
            return Ok(Err(if nothing { ProtocolError::Closed } else { ProtocolError::CutShort }));
        }
        self.octets.extend_from_slice(&chunk[..read]);
        Ok(self.is_whole())
    }

    /// The request, and the namespace that came with it, once the frame is whole. On an error the agent should answer
    /// `Reply::Error((&error).into())` and close: the plugin prints it.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn request(self) -> Result<(Request, Option<OwnedFd>), ProtocolError> {
        Ok((decode(self.text())?, self.descriptor))
    }

    fn text(&self) -> &[u8] {
        self.octets.get(HEAD..).unwrap_or_default()
    }

    fn is_whole(&self) -> Result<bool, ProtocolError> {
        let Some(head) = self.octets.first_chunk::<HEAD>() else { return Ok(false) };
        let length = u32::from_be_bytes(*head) as usize;
        match self.text().len() {
            _ if length > MAX_FRAME => Err(ProtocolError::TooLong(length)),
            read if read > length => Err(ProtocolError::Malformed("there is something behind it".to_owned())),
            read => Ok(read == length),
        }
    }

    /// One read. A second descriptor is closed unseen: there is one namespace per request.
    fn read_some(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut octets = [IoSliceMut::new(buffer)];
        let message = rustix::net::recvmsg(socket, &mut octets, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for received in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = received {
                self.descriptor = self.descriptor.take().or(descriptors.last());
            }
        }
        Ok(message.bytes)
    }
}

/// An interrupted call moved nothing and is repeated; a timed-out one ends the frame.
fn again_if_interrupted(error: io::Error) -> Result<usize, ProtocolError> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(0),
        io::ErrorKind::WouldBlock => Err(ProtocolError::TimedOut),
        _ => Err(ProtocolError::Io(error)),
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

    fn read_request(socket: &UnixStream) -> Result<(Request, Option<OwnedFd>), ProtocolError> {
        let mut incoming = Incoming::default();
        while !incoming.read(socket).unwrap()? {}
        incoming.request()
    }

    fn error_after(octets: &[u8]) -> ProtocolError {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(octets).unwrap();
        drop(ours);
        read_request(&theirs).unwrap_err()
    }

    #[test]
    fn the_descriptor_beside_a_request_is_the_same_file() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/proc/self/ns/net").unwrap();
        send_request(&ours, &status(), Some(file.as_fd()), late()).unwrap();
        let (request, descriptor) = read_request(&theirs).unwrap();
        assert_eq!(request, status());
        let (sent, arrived) =
            (rustix::fs::fstat(&file).unwrap(), rustix::fs::fstat(descriptor.unwrap()).unwrap());
        assert_eq!((sent.st_dev, sent.st_ino), (arrived.st_dev, arrived.st_ino));
    }

    #[test]
    fn a_request_without_a_descriptor_arrives_without_one() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_request(&ours, &status(), None, late()).unwrap();
        assert!(read_request(&theirs).unwrap().1.is_none());
    }

    #[test]
    fn a_request_larger_than_the_sockets_buffer_arrives_whole_with_its_descriptor() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let large = Request { network: "x".repeat(MAX_FRAME - 200), ..status() };
        let reader = std::thread::spawn(move || read_request(&theirs).unwrap());
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
        assert!(matches!(error_after(b"\0\0\0\x02{}{}"), ProtocolError::Malformed(_)));
        assert!(matches!(error_after(b"GET / HTTP/1.1\r\n"), ProtocolError::TooLong(_)));
    }

    #[test]
    fn a_frame_that_comes_octet_by_octet_is_read_without_waiting_for_the_next() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (frame, mut incoming) = (frame(&status()).unwrap(), Incoming::default());
        for (index, octet) in frame.iter().enumerate() {
            assert_eq!(incoming.read(&theirs).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            ours.write_all(&[*octet]).unwrap();
            assert_eq!(incoming.read(&theirs).unwrap().unwrap(), index + 1 == frame.len());
        }
        assert_eq!(incoming.request().unwrap().0, status());
    }

    #[test]
    fn the_deadline_holds_for_reading_and_for_writing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(matches!(read_reply(&theirs, soon()), Err(ProtocolError::TimedOut)));
        let large = Request { network: "x".repeat(MAX_FRAME - 200), ..status() };
        assert!(matches!(send_request(&ours, &large, None, soon()), Err(ProtocolError::TimedOut)));
    }
}
