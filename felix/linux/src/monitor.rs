//! Notices what others change in the kernel.
//!
//! A change that one of our own sockets caused carries its port id. Links are the exception: kernels before 6.3 send
//! link events without it, and the carrier of a veth comes up in an event of its own, later. So the monitor remembers
//! what it last saw of each link, where an event that brings nothing new is passed over, and which links are in our hands:
//! while they are, events about them are our own doing, and when we let go, those that are already queued are read first.
//!
//! So it is with IPv6 routes, which the kernel itself takes away when their device goes: those over a link in our hands are
//! our own doing. The kernel sends nothing for IPv4 routes that it drops because a link goes down: the link's own event stands for them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use manx_felix::Protocol;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rustix::net::sockopt;
use tokio::sync::Notify;

use crate::parse::{
    self, Message, RT_TABLE_MAIN, RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWLINK,
    RTM_NEWROUTE, messages,
};
use crate::socket::Ports;

/// Receive buffer, in bytes: 100,000 routes written in one go fit.
pub(crate) const EVENT_BUFFER: usize = 16 << 20;
/// RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE.
const GROUPS: [u32; 3] = [1, 5, 7];
/// RTNLGRP_IPV6_ROUTE.
const IPV6_ROUTES: u32 = 11;
const DATAGRAM: usize = 64 << 10;

pub(crate) struct Monitor {
    socket: TokioSocket,
    ports: Ports,
    watches_ipv6: AtomicBool,
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    /// Something changed that was not our doing, and has not been told yet.
    dirty: bool,
    links: HashMap<u32, Seen>,
    /// Names of links in our hands, and how many hands.
    in_hand: HashMap<String, usize>,
    buffer: Vec<u8>,
}

/// Of a link, what a snapshot shows.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    name: String,
    up: bool,
    mtu: u32,
    alias: Option<String>,
}

impl Monitor {
    /// Subscribes in the calling thread's network namespace; inside a tokio runtime. `buffer` is the size of the
    /// receive buffer in bytes.
    pub(crate) fn open(ports: Ports, buffer: usize) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        sockopt::set_socket_recv_buffer_size_force(inner.as_fd(), buffer)?;
        inner.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            inner.add_membership(group)?;
        }
        let state = State {
            dirty: false,
            links: HashMap::new(),
            in_hand: HashMap::new(),
            buffer: Vec::with_capacity(DATAGRAM),
        };
        Ok(Self {
            socket,
            ports,
            watches_ipv6: AtomicBool::new(false),
            state: Mutex::new(state),
            wake: Notify::new(),
        })
    }

    /// Watches IPv6 routes, too, from now on; the first call answers `true`. Called once there are some of ours, or the
    /// kernel would tell several with every device, on nodes that have no use for them.
    pub(crate) fn watch_ipv6(&self) -> io::Result<bool> {
        if self.watches_ipv6.load(Ordering::Acquire) {
            return Ok(false);
        }
        self.socket.socket_ref().add_membership(IPV6_ROUTES)?;
        Ok(!self.watches_ipv6.swap(true, Ordering::AcqRel))
    }

    /// Resolves when something changed that was not our doing. For one waiter at a time.
    pub(crate) async fn changed(&self) {
        loop {
            tokio::select! {
                () = poll_fn(|context| self.poll(context)) => return,
                // Somebody else has drained the socket and found a change.
                () = self.wake.notified() => {}
            }
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        while !state.dirty {
            let mut buffer = std::mem::take(&mut state.buffer);
            buffer.clear();
            let received = self.socket.poll_recv(context, &mut buffer);
            let pending = received.is_pending();
            if let Poll::Ready(received) = received {
                self.take(&mut state, received.map(|()| buffer.as_slice()));
            }
            state.buffer = buffer;
            if pending {
                return Poll::Pending;
            }
        }
        state.dirty = false;
        Poll::Ready(())
    }

    /// Takes a link in hand: until the guard is dropped, events about it are our own doing.
    pub(crate) fn hold(&self, name: &str) -> Hand<'_> {
        let mut state = self.state();
        *state.in_hand.entry(name.to_owned()).or_default() += 1;
        Hand { monitor: self, name: name.to_owned() }
    }

    /// Reads the queued events. Writers of many routes call it now and then, or their own events would fill the queue.
    pub(crate) fn drain(&self) {
        let mut state = self.state();
        let before = state.dirty;
        let mut buffer = std::mem::take(&mut state.buffer);
        loop {
            buffer.clear();
            match self.socket.socket_ref().recv(&mut buffer, 0) {
                Ok(_) => self.take(&mut state, Ok(&buffer)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.take(&mut state, Err(error)),
            }
        }
        state.buffer = buffer;
        if state.dirty && !before {
            self.wake.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, state: &mut State, received: io::Result<&[u8]>) {
        match received {
            Ok(datagram) => messages(datagram).for_each(|message| self.see(state, message)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // ENOBUFS: events were lost, and what we remember of links may be old.
            Err(_) => {
                state.dirty = true;
                state.links.clear();
            }
        }
    }

    fn see(&self, state: &mut State, message: Message<'_>) {
        let ours = self.ports.lock().unwrap_or_else(PoisonError::into_inner).contains(&message.port);
        match message.kind {
            RTM_NEWLINK | RTM_DELLINK => state.see_link(message, ours),
            RTM_NEWADDR | RTM_DELADDR => state.dirty |= !ours,
            RTM_NEWROUTE | RTM_DELROUTE => state.see_route(message, ours),
            _ => {}
        }
    }
}

impl State {
    /// What concerns us are routes of the main table, but those of other BGP speakers and to link-local addresses.
    fn see_route(&mut self, message: Message<'_>, ours: bool) {
        let Some((table, protocol, device)) = parse::route_owner(message.payload) else { return };
        let concerns_us = table == RT_TABLE_MAIN && (!protocol.is_bgp() || protocol == Protocol::MANX);
        if ours || self.dirty || !concerns_us || parse::is_link_local(message.payload) {
            return;
        }
        let link = device.and_then(|device| self.links.get(&device.0));
        let in_hand = link.is_some_and(|link| self.in_hand.contains_key(&link.name));
        // Port 0 is the kernel's own.
        self.dirty = !(in_hand && message.port == 0);
    }

    fn see_link(&mut self, message: Message<'_>, ours: bool) {
        let Some(device) = parse::device(message.payload) else { return };
        let link = device.link;
        let ours = ours || self.in_hand.contains_key(&link.name);
        let seen = Seen { name: link.name, up: link.up, mtu: link.mtu, alias: link.alias };
        let is_new = match message.kind {
            RTM_DELLINK => {
                self.links.remove(&link.index.0);
                true
            }
            _ => self.links.insert(link.index.0, seen.clone()).as_ref() != Some(&seen),
        };
        self.dirty |= is_new && !ours;
    }
}

/// A link in our hands.
pub(crate) struct Hand<'a> {
    monitor: &'a Monitor,
    name: String,
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.monitor.drain();
        let mut state = self.monitor.state();
        if let Some(hands) = state.in_hand.get_mut(&self.name) {
            *hands -= 1;
            if *hands == 0 {
                state.in_hand.remove(&self.name);
            }
        }
    }
}
