//! The speaker as its owner holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use manx_bgp::session::{Output, SessionConfig};
use manx_bgp::speaker::{Change, Speaker, SpeakerConfig, SpeakerStatus};
use manx_bgp::wire::{ErrorCode, Notification};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::listener::{Door, Doors, ListenerStatus, ListenerTask};
use crate::now;
use crate::peer::{Batch, Channels, Directive, PeerTask, Said};
use crate::transport::{Connection, Transport};

/// Outputs of all sessions together that wait for the owner.
const SAID: usize = 1024;
/// Batches of UPDATEs that wait for a peer's task.
const BATCHES: usize = 2;
/// Connections that wait for a peer's task.
const ACCEPTED: usize = 4;
/// Outputs taken at once; then the owner gets its changes.
const MOST_AT_ONCE: usize = 4096;
/// How long peers may take to say goodbye.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// How to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// We shall be back soon: connections are closed without a NOTIFICATION, so that peers keep our routes.
    Restart,
    /// We are gone: Cease/Administrative Shutdown. Peers drop our routes at once.
    Stop,
}

/// The state of everything.
#[derive(Clone, Debug)]
pub struct Status {
    /// The speaker and its peers.
    pub speaker: SpeakerStatus,
    /// The listener.
    pub listener: ListenerStatus,
}

/// A BGP speaker with its tasks. Dropped without [`Self::shutdown`], it vanishes like a killed process.
pub struct Bgp {
    speaker: Speaker,
    transport: Arc<dyn Transport>,
    seed: u64,
    peers: BTreeMap<IpAddr, Handle>,
    generations: u64,
    said: (mpsc::Sender<Said>, mpsc::Receiver<Said>),
    room: Arc<Notify>,
    doors: watch::Sender<Doors>,
    listener: watch::Receiver<ListenerStatus>,
    listener_task: JoinSet<()>,
    tasks: JoinSet<()>,
}

/// Our end of a peer's task.
struct Handle {
    generation: u64,
    epoch: u64,
    config: SessionConfig,
    directive: watch::Sender<Directive>,
    batches: mpsc::Sender<Batch>,
    accepted: mpsc::Sender<Connection>,
}

impl Bgp {
    /// Starts to listen and to dial. A listener that cannot bind is tried again, and reported in [`Self::status`].
    /// `seed` makes all jitter repeatable. To be called inside a tokio runtime.
    pub fn new(
        transport: Arc<dyn Transport>,
        config: SpeakerConfig,
        listen: Option<SocketAddr>,
        seed: u64,
    ) -> Self {
        let (doors, rooms) = watch::channel(Doors::new());
        let (status, listener) = watch::channel(ListenerStatus { address: listen, ..Default::default() });
        let mut listener_task = JoinSet::new();
        if let Some(address) = listen {
            let task = ListenerTask { transport: transport.clone(), address, doors: rooms, status };
            listener_task.spawn(task.run());
        }
        let mut bgp = Self {
            speaker: Speaker::new(now(), config),
            transport,
            seed,
            peers: BTreeMap::new(),
            generations: 0,
            said: mpsc::channel(SAID),
            room: Arc::default(),
            doors,
            listener,
            listener_task,
            tasks: JoinSet::new(),
        };
        bgp.sync_peers();
        bgp
    }

    /// Takes a whole new configuration; sessions whose part is the same are not disturbed.
    pub fn configure(&mut self, config: SpeakerConfig) {
        self.speaker.configure(now(), config);
        self.sync_peers();
    }

    /// Takes the whole set of prefixes that we originate. Until the first call no peer is sent End-of-RIB and nothing
    /// is [`Change::Converged`]: configure the peers first, then say this.
    pub fn originate(&mut self, prefixes: BTreeSet<IpNet>) {
        self.speaker.originate(now(), prefixes);
    }

    /// Waits until something changed, and says what, coalesced by prefix. Cancel-safe. Nothing but KEEPALIVEs happens
    /// unless this is awaited.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            let changes = self.speaker.take_changes();
            // The end of a restart changes what the next OPEN is to say.
            if changes.contains(&Change::Converged) {
                self.sync_peers();
            }
            self.transmit();
            if !changes.is_empty() {
                return changes;
            }
            if let Some(change) = self.wait().await {
                return vec![change];
            }
        }
    }

    /// The state of everything.
    pub fn status(&self) -> Status {
        Status { speaker: self.speaker.status(now()), listener: self.listener.borrow().clone() }
    }

    /// The speaker, to look at its table.
    pub fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// Ends all sessions and waits until the last words are on their way, at most 3 s.
    pub async fn shutdown(mut self, how: Shutdown) {
        self.listener_task.shutdown().await;
        let directive = match how {
            Shutdown::Restart => Directive::Abandon,
            Shutdown::Stop => Directive::Stop(Notification::new(ErrorCode::ADMINISTRATIVE_SHUTDOWN)),
        };
        for peer in self.peers.values() {
            peer.directive.send_replace(directive.clone());
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(SHUTDOWN, ended).await.is_err() {
            debug!("a peer took no farewell");
        }
    }

    async fn wait(&mut self) -> Option<Change> {
        let deadline = self.speaker.poll_timeout().map(Instant::from_std);
        tokio::select! {
            biased;
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.speaker.handle_timeout(now());
                None
            }
            Some(said) = self.said.1.recv() => {
                self.hear(said);
                self.hear_more();
                None
            }
            () = self.room.notified() => None,
            Ok(()) = self.listener.changed() => Some(Change::Peers),
        }
    }

    /// What has come meanwhile, so that one batch of changes has it all.
    fn hear_more(&mut self) {
        for _ in 1..MOST_AT_ONCE {
            let Ok(said) = self.said.1.try_recv() else { break };
            self.hear(said);
        }
    }

    fn hear(&mut self, said: Said) {
        let Said { peer, generation, epoch, output } = said;
        let Some(handle) = self.peers.get_mut(&peer).filter(|it| it.generation == generation) else { return };
        handle.epoch = epoch;
        log(peer, &output);
        self.speaker.handle(now(), peer, output);
    }

    /// Gives UPDATEs to the peers that have room for them. The others stay dirty in the speaker.
    fn transmit(&mut self) {
        for address in self.speaker.pending() {
            let Some(handle) = self.peers.get(&address) else { continue };
            while let Ok(permit) = handle.batches.try_reserve() {
                let Some(messages) = self.speaker.transmit(address) else { break };
                permit.send(Batch { epoch: handle.epoch, messages });
            }
        }
    }

    /// Makes the tasks be what the speaker is configured to have.
    fn sync_peers(&mut self) {
        let wanted: BTreeMap<_, _> = self.speaker.sessions().collect();
        self.peers.retain(|address, handle| {
            let stays = wanted.contains_key(address);
            if !stays {
                let farewell = Notification::new(ErrorCode::PEER_DECONFIGURED);
                handle.directive.send_replace(Directive::Stop(farewell));
            }
            stays
        });
        for (address, config) in wanted {
            match self.peers.get_mut(&address) {
                Some(handle) if handle.config == config => (),
                Some(handle) => {
                    handle.config = config.clone();
                    handle.directive.send_replace(Directive::Run(config));
                }
                None => self.add_peer(address, config),
            }
        }
        while self.tasks.try_join_next().is_some() {}
        let door = |handle: &Handle| Door {
            connections: handle.accepted.clone(),
            key: handle.config.guard.key().cloned(),
        };
        self.doors.send_replace(self.peers.iter().map(|(address, it)| (*address, door(it))).collect());
    }

    fn add_peer(&mut self, address: IpAddr, config: SessionConfig) {
        self.generations += 1;
        let generation = self.generations;
        let (directive, directives) = watch::channel(Directive::Run(config.clone()));
        let (batches, taken) = mpsc::channel(BATCHES);
        let (accepted, door) = mpsc::channel(ACCEPTED);
        let channels = Channels {
            directive: directives,
            accepted: door,
            batches: taken,
            said: self.said.0.clone(),
            room: self.room.clone(),
        };
        let seed = self.seed.wrapping_add(generation.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let key = (address, generation);
        let task = PeerTask::new(key, self.transport.clone(), config.clone(), channels, seed);
        self.tasks.spawn(task.run());
        self.peers.insert(address, Handle { generation, epoch: 0, config, directive, batches, accepted });
    }
}

fn log(peer: IpAddr, output: &Output) {
    match output {
        Output::Established(_) => info!(%peer, "BGP session established"),
        Output::Down { reason, graceful } => warn!(%peer, %reason, graceful, "BGP session down"),
        Output::Failed(reason) => debug!(%peer, %reason, "BGP attempt failed"),
        Output::Update(update) => {
            for error in &update.errors {
                warn!(%peer, %error, severity = ?error.severity, "BGP UPDATE with a fault");
            }
        }
        Output::State(state) => debug!(%peer, %state, "BGP state"),
        Output::EndOfRib(family) => debug!(%peer, %family, "BGP peer has told all"),
        Output::Refresh(family) => debug!(%peer, %family, "BGP peer asks for a refresh"),
        Output::Dial | Output::AbortDial | Output::Send(..) | Output::Close(_) => (),
    }
}
