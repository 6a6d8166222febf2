//! The task of one peer: its session, its sockets, its timers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use manx_bgp::session::{ConnectionId, Event, Output, Reason, Session, SessionConfig};
use manx_bgp::wire::Notification;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::link::{Link, Progress};
use crate::now;
use crate::tcp::protect_accepted;
use crate::transport::{BoxFuture, Connection, Dial, Transport};

/// UPDATEs are taken from the owner while less than this is waiting to be written.
const WRITE_QUEUE: usize = 256 * 1024;

/// What the owner wants of a peer's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Directive {
    /// Be this session.
    Run(SessionConfig),
    /// Say goodbye and end.
    Stop(Notification),
    /// End without a word.
    Abandon,
}

/// UPDATEs for the session with this number: those of an earlier one must not get into a later one.
pub(crate) struct Batch {
    pub(crate) epoch: u64,
    pub(crate) messages: Bytes,
}

/// What a session said.
pub(crate) struct Said {
    pub(crate) peer: IpAddr,
    /// The task, since a peer may be removed and added again.
    pub(crate) generation: u64,
    /// How many sessions of the task got to Established.
    pub(crate) epoch: u64,
    pub(crate) output: Output,
}

/// A peer's ends of its channels.
pub(crate) struct Channels {
    pub(crate) directive: watch::Receiver<Directive>,
    pub(crate) accepted: mpsc::Receiver<Connection>,
    pub(crate) batches: mpsc::Receiver<Batch>,
    pub(crate) said: mpsc::Sender<Said>,
    /// Rung when a batch has been taken.
    pub(crate) room: Arc<Notify>,
}

pub(crate) struct PeerTask {
    address: IpAddr,
    generation: u64,
    transport: Arc<dyn Transport>,
    channels: Channels,
    config: SessionConfig,
    session: Session,
    links: Vec<Link>,
    closing: JoinSet<()>,
    dial: Option<BoxFuture<'static, io::Result<Connection>>>,
    next_id: u64,
    epoch: u64,
    /// What the owner has not taken yet. While there is something, nothing is read.
    pending: VecDeque<Said>,
}

enum Happening {
    Directive(Directive),
    Accepted(Connection),
    Dialled(io::Result<Connection>),
    Told,
    Batch(Batch),
    Progress(Progress),
    Timer,
}

impl PeerTask {
    pub(crate) fn new(
        (address, generation): (IpAddr, u64),
        transport: Arc<dyn Transport>,
        config: SessionConfig,
        channels: Channels,
        seed: u64,
    ) -> Self {
        Self {
            address,
            generation,
            transport,
            channels,
            session: Session::new(config.clone(), seed),
            config,
            links: Vec::new(),
            closing: JoinSet::new(),
            dial: None,
            next_id: 0,
            epoch: 0,
            pending: VecDeque::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        self.session.start(now());
        loop {
            self.drain();
            let happening = self.wait().await;
            let last = matches!(&happening, Happening::Directive(Directive::Stop(_) | Directive::Abandon));
            self.apply(happening);
            if last {
                break;
            }
            self.timeouts();
        }
        self.drain();
        while self.closing.join_next().await.is_some() {}
    }

    /// In the order of urgency; no branch can be ready for ever without one below it being served, since
    /// each of them waits for what those do.
    async fn wait(&mut self) -> Happening {
        let room = self.links.iter().map(Link::queued).max().unwrap_or(0) < WRITE_QUEUE;
        let deadline = self.session.poll_timeout().map(Instant::from_std);
        let Self { channels, links, dial, pending, .. } = self;
        let Channels { directive, accepted, batches, said, room: bell } = channels;
        tokio::select! {
            biased;
            changed = directive.changed() => Happening::Directive(match changed {
                Ok(()) => directive.borrow_and_update().clone(),
                // The owner is gone without a word, and so are we.
                Err(_) => Directive::Abandon,
            }),
            Some(connection) = accepted.recv() => Happening::Accepted(connection),
            connected = dialled(dial) => Happening::Dialled(connected),
            Ok(permit) = said.reserve(), if !pending.is_empty() => {
                if let Some(said) = pending.pop_front() {
                    permit.send(said);
                }
                Happening::Told
            }
            Some(batch) = batches.recv(), if room => {
                bell.notify_one();
                Happening::Batch(batch)
            }
            progress = progress(links, pending.is_empty()) => Happening::Progress(progress),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Happening::Timer,
        }
    }

    fn apply(&mut self, happening: Happening) {
        match happening {
            Happening::Directive(Directive::Run(config)) => {
                self.config = config.clone();
                self.session.configure(now(), config);
            }
            Happening::Directive(Directive::Stop(notification)) => self.session.stop(notification),
            Happening::Directive(Directive::Abandon) => self.session.abandon(),
            Happening::Accepted(connection) => self.accepted(connection),
            Happening::Dialled(Ok(connection)) => self.connected(connection, Event::Dialled),
            Happening::Dialled(Err(error)) => {
                self.session.handle(now(), Event::DialFailed(error.to_string()));
            }
            Happening::Batch(batch) if batch.epoch == self.epoch => {
                self.session.send_updates(now(), batch.messages);
            }
            Happening::Progress(progress) => self.progressed(progress),
            Happening::Told | Happening::Batch(_) | Happening::Timer => (),
        }
    }

    /// The connection may be older than the present guard: where the peer signs with another key it gets no further.
    fn accepted(&mut self, connection: Connection) {
        let guard = &self.config.guard;
        let protected =
            connection.socket.as_ref().map(|socket| protect_accepted(socket, self.address, guard));
        match protected.transpose() {
            Ok(_) => self.connected(connection, Event::Accepted),
            Err(error) => self.tell(Output::Failed(Reason::Refused(error.to_string()))),
        }
    }

    fn connected(&mut self, connection: Connection, event: impl Fn(ConnectionId, IpAddr) -> Event) {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.links.push(Link::new(id, connection.stream, connection.socket));
        self.session.handle(now(), event(id, connection.local.ip().to_canonical()));
    }

    fn progressed(&mut self, progress: Progress) {
        let Progress { id, sent, received } = progress;
        if let Some(drained) = sent {
            self.session.handle(now(), Event::Sent(id, drained));
        }
        match received {
            Some(Ok(bytes)) => self.session.handle(now(), Event::Received(id, bytes)),
            Some(Err(words)) => {
                self.links.retain(|link| link.id != id);
                self.session.handle(now(), Event::Closed(id, words));
            }
            None => (),
        }
    }

    /// After what was read, so that a peer is not given up for words that lie in our own socket.
    fn timeouts(&mut self) {
        let now = now();
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            if !self.pending.is_empty() {
                self.session.deaf(now);
            }
            self.session.handle_timeout(now);
        }
    }

    /// Does what the session asks for.
    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Dial => self.dial = Some(self.begin_dial()),
                Output::AbortDial => self.dial = None,
                Output::Send(id, bytes) => {
                    self.links
                        .iter_mut()
                        .filter(|link| link.id == id)
                        .for_each(|link| link.send(bytes.clone()));
                }
                Output::Close(id) => {
                    if let Some(index) = self.links.iter().position(|link| link.id == id) {
                        self.closing.spawn(self.links.remove(index).close());
                    }
                }
                output => self.tell(output),
            }
        }
        while self.closing.try_join_next().is_some() {}
    }

    fn begin_dial(&self) -> BoxFuture<'static, io::Result<Connection>> {
        let transport = self.transport.clone();
        let SessionConfig { local_address: local, peer, guard, .. } = self.config.clone();
        Box::pin(async move { transport.dial(Dial { local, remote: SocketAddr::from(peer), guard }).await })
    }

    fn tell(&mut self, output: Output) {
        if matches!(output, Output::Established(_)) {
            self.epoch += 1;
        }
        let Self { address: peer, generation, epoch, .. } = *self;
        let said = Said { peer, generation, epoch, output };
        // The short way; the channel keeps the order as long as nothing waits here.
        if self.pending.is_empty() {
            if let Err(mpsc::error::TrySendError::Full(said)) = self.channels.said.try_send(said) {
                self.pending.push_back(said);
            }
        } else {
            self.pending.push_back(said);
        }
    }
}

async fn dialled(dial: &mut Option<BoxFuture<'static, io::Result<Connection>>>) -> io::Result<Connection> {
    let Some(future) = dial else { return std::future::pending().await };
    let result = future.await;
    *dial = None;
    result
}

async fn progress(links: &mut [Link], may_read: bool) -> Progress {
    poll_fn(|context| {
        for link in links.iter_mut() {
            if let Poll::Ready(progress) = link.poll(context, may_read) {
                return Poll::Ready(progress);
            }
        }
        Poll::Pending
    })
    .await
}
