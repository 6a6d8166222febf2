//! A netlink socket: requests in batches, dumps that notice when they are torn.
//!
//! Both protocols of netlink that are spoken here use it: NETLINK_ROUTE, with the messages of `rtnetlink`, and
//! NETLINK_NETFILTER, with those of [`crate::nft`].
//!
//! `rtnetlink`'s own connection sends one request per reply and hides `NLM_F_DUMP_INTR`; its message types are used here,
//! on a plain socket. The kernel carries a request out inside `send`, so these calls block (for as long as RTNL is
//! held) and belong on a thread that may.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use manx_felix::IfIndex;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkHeader, NetlinkMessage,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys;
use rustix::net::{netdevice, sockopt};

use crate::netns;
use crate::parse::{Attributes, Message, messages, u32_at};

/// Receive buffer of request sockets, in bytes: room for the answers to one batch, each of which may be an error.
const ANSWER_BUFFER: usize = 4 << 20;
/// Send buffer, in bytes: what is sent at once must fit, and so must a whole ruleset.
const SEND_BUFFER: usize = 8 << 20;
/// The kernel's datagrams are at most this long, in bytes (it sizes them by what was received before, up to 32 KiB).
const DATAGRAM: usize = 64 << 10;
/// How long the kernel may take for an answer; RTNL can be held for seconds on a busy node.
const PATIENCE: Duration = Duration::from_secs(30);
const MSG_TRUNC: i32 = 0x20;

/// One request and its `NLM_F_*` flags besides REQUEST and ACK.
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

impl Request {
    pub(crate) fn new(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0 }
    }

    pub(crate) fn with(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags }
    }
}

/// The kernel's answer when it refuses: the errno, and its own words where it gave some (extended acknowledgement).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    pub(crate) words: Option<String>,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { errno: error.raw_os_error().unwrap_or(0), words: Some(error.to_string()) }
    }
}

/// Why a dump gave nothing.
pub(crate) enum DumpError {
    /// What was dumped changed meanwhile: read again.
    Interrupted,
    Refused(Refusal),
}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// A socket for requests.
pub(crate) struct Socket {
    inner: sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket of this `NETLINK_*` protocol in the calling thread's network namespace.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let inner = sys::Socket::new(protocol)?;
        inner.connect(&sys::SocketAddr::new(0, 0))?;
        inner.set_ext_ack(true)?;
        inner.set_cap_ack(true)?;
        inner.set_netlink_get_strict_chk(true)?;
        sockopt::set_socket_send_buffer_size_force(inner.as_fd(), SEND_BUFFER)?;
        sockopt::set_socket_recv_buffer_size_force(inner.as_fd(), ANSWER_BUFFER)?;
        sockopt::set_socket_timeout(inner.as_fd(), sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { inner, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Sends the requests in one `send` and answers for each; the kernel carries them out in order, and goes on
    /// after one that it refuses. `reply` is given what the requests asked for.
    pub(crate) fn exchange(
        &mut self,
        requests: &[Request],
        mut reply: impl FnMut(Message<'_>),
    ) -> io::Result<Vec<Result<(), Refusal>>> {
        let mut outcomes = vec![Ok(()); requests.len()];
        if requests.is_empty() {
            return Ok(outcomes);
        }
        let first = self.send(requests, NLM_F_ACK)?;
        loop {
            let received = self.receive()?;
            for message in messages(&self.buffer[..received]) {
                // An answer to an earlier request, which was given up, is passed over.
                let index = message.sequence.wrapping_sub(first) as usize;
                let Some(outcome) = outcomes.get_mut(index) else { continue };
                if message.kind != NLMSG_ERROR {
                    reply(message);
                    continue;
                }
                *outcome = acknowledgement(&message);
                if index + 1 == requests.len() {
                    return Ok(outcomes);
                }
            }
        }
    }

    /// Like [`Self::exchange`], where the first refusal is the answer to all.
    pub(crate) fn request(&mut self, requests: &[Request]) -> Result<(), Refusal> {
        self.exchange(requests, |_| ())?.into_iter().collect()
    }

    /// Asks for everything that the request describes.
    pub(crate) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        each: impl FnMut(Message<'_>),
    ) -> Result<(), DumpError> {
        let first = self.send(&[Request::with(message, NLM_F_DUMP)], 0)?;
        self.answers(first, each)
    }

    /// What the kernel answers to the request with this sequence number, up to its end.
    pub(crate) fn answers(&mut self, first: u32, mut each: impl FnMut(Message<'_>)) -> Result<(), DumpError> {
        let mut torn = false;
        loop {
            let received = self.receive()?;
            for message in messages(&self.buffer[..received]).filter(|message| message.sequence == first) {
                torn |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        acknowledgement(&message).map_err(DumpError::Refused)?;
                        return if torn { Err(DumpError::Interrupted) } else { Ok(()) };
                    }
                    _ => each(message),
                }
            }
        }
    }

    /// The port id that the kernel has given this socket.
    fn port(&self) -> io::Result<u32> {
        let mut address = sys::SocketAddr::new(0, 0);
        self.inner.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// The name of a device, or its index where it has gone.
    pub(crate) fn device_name(&self, index: IfIndex) -> String {
        netdevice::index_to_name(self.inner.as_fd(), index.0).unwrap_or_else(|_| format!("if{}", index.0))
    }

    /// Sends all in one message; an acknowledgement is asked of the last only, since refusals come unasked. Returns the
    /// first sequence number.
    fn send(&mut self, requests: &[Request], last: u16) -> io::Result<u32> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(requests.len() * 96);
        for (index, request) in requests.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.sequence_number = self.sequence;
            header.flags = NLM_F_REQUEST | request.flags;
            if index + 1 == requests.len() {
                header.flags |= last;
            }
            let mut message = NetlinkMessage::new(header, request.message.clone().into());
            message.finalize();
            let start = bytes.len().next_multiple_of(4);
            bytes.resize(start + message.buffer_len(), 0);
            message.serialize(&mut bytes[start..]);
        }
        self.inner.send(&bytes, 0)?;
        Ok(first)
    }

    /// Sends messages whose sequence numbers were taken from [`Self::sequence`].
    pub(crate) fn transmit(&self, bytes: &[u8]) -> io::Result<()> {
        self.inner.send(bytes, 0).map(drop)
    }

    /// The next sequence number.
    pub(crate) fn sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Receives one datagram.
    pub(crate) fn datagram(&mut self) -> io::Result<&[u8]> {
        let received = self.receive()?;
        Ok(&self.buffer[..received])
    }

    fn receive(&mut self) -> io::Result<usize> {
        let received = self.inner.recv(&mut self.buffer.as_mut_slice(), MSG_TRUNC).map_err(in_words)?;
        match received <= self.buffer.len() {
            true => Ok(received),
            false => Err(io::Error::other(format!("the kernel sent a datagram of {received} bytes"))),
        }
    }
}

fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other("the kernel did not answer within 30 s"),
        _ => error,
    }
}

/// Reads the errno of an NLMSG_ERROR or NLMSG_DONE (0: success), and the kernel's words.
pub(crate) fn acknowledgement(message: &Message<'_>) -> Result<(), Refusal> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let errno = message.payload.first_chunk().map_or(0, |bytes| -i32::from_ne_bytes(*bytes));
    if errno == 0 {
        return Ok(());
    }
    // struct nlmsgerr: the errno, the header of the request, and its payload unless that was cut off.
    let echoed = match message.flags & NLM_F_CAPPED {
        0 => u32_at(message.payload, 4).unwrap_or(16) as usize,
        _ => 16,
    };
    let attributes = match message.flags & NLM_F_ACK_TLVS {
        0 => &[],
        _ => message.payload.get(4 + echoed.next_multiple_of(4)..).unwrap_or_default(),
    };
    let words = Attributes::new(attributes)
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .map(|(_, text)| crate::parse::text(text));
    Err(Refusal { errno, words })
}

/// The port ids of our sockets, by which the monitor knows our own changes.
pub(crate) type Ports = Arc<Mutex<HashSet<u32>>>;

/// Sockets of one network namespace, opened as they are needed: as many as there are calls at the same time.
pub(crate) struct Sockets {
    netns: OwnedFd,
    protocol: isize,
    idle: Mutex<Vec<Socket>>,
    ports: Ports,
}

impl Sockets {
    /// Sockets of this `NETLINK_*` protocol.
    pub(crate) fn new(netns: OwnedFd, protocol: isize) -> Self {
        Self { netns, protocol, idle: Mutex::default(), ports: Ports::default() }
    }

    pub(crate) fn netns(&self) -> &OwnedFd {
        &self.netns
    }

    pub(crate) fn ports(&self) -> Ports {
        Arc::clone(&self.ports)
    }

    /// Lends a socket to `work`.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Socket) -> T) -> io::Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut socket = match idle {
            Some(socket) => socket,
            None => self.open()?,
        };
        let result = work(&mut socket);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
        Ok(result)
    }

    fn open(&self) -> io::Result<Socket> {
        let socket = netns::within(self.netns.as_fd(), || Socket::open(self.protocol))??;
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).insert(socket.port()?);
        Ok(socket)
    }
}
