//! The one owner of this node's addresses: many requests at once become one write.
//!
//! The owner is a task with a queue in front. What has gathered in the queue while a write was under way is the next
//! batch, so a burst of pods costs fewer writes than pods, and a single pod waits for nobody: what the node holds back is
//! given ahead, and written before anything else is done ([`Allocator::assign_ahead`]).
//!
//! What is given back while the datastore is away is owed: the owner remembers it, and gives it back as soon as the
//! datastore answers. An agent that is killed meanwhile finds in IPAM what has no link any more, and gives that back.
//! What is given out while it is away ([`away`]) is written as soon as it answers.

mod affinities;
mod ahead;
mod away;
mod under_way;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use manx_datastore::Datastore;
use manx_ipam::{Allocator, AssignRequest, Assigned, Redeemed, SweepReport};
use manx_model::AllocationAttribute;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use self::away::Absence;
use self::under_way::UnderWay;
use crate::cluster::Cluster;
use crate::information::{LOCKED, is_locked};
use crate::latest;
use crate::problems::Problems;

/// Requests that may wait in the queue; more callers wait their turn to queue.
const QUEUE: usize = 1024;

/// What is owed is tried again after this long, and then after twice as long, up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Asks the owner. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Addresses {
    commands: mpsc::Sender<Command>,
}

/// To whoever asked.
type Reply<T> = oneshot::Sender<Result<T, Refused>>;

#[derive(Debug)]
enum Command {
    Assign(AssignRequest, Reply<Granted>),
    Release(String, Reply<Release>),
    Sweep(BTreeSet<String>, Reply<SweepReport>),
}

impl Addresses {
    /// The addresses that `request` wants; the same ones if its handle has them already.
    ///
    /// # Errors
    /// Why there is none, in words for the operator.
    pub async fn assign(&self, request: AssignRequest) -> Result<Granted, Refused> {
        self.ask(|reply| Command::Assign(request, reply)).await
    }

    /// Gives back what `handle` holds: nothing, if it holds nothing. While the datastore is away that is remembered.
    ///
    /// # Errors
    /// Why it is not given back; try again.
    pub async fn release(&self, handle: String) -> Result<Release, Refused> {
        self.ask(|reply| Command::Release(handle, reply)).await
    }

    /// Gives back what this node holds under the `stale` handles (while the datastore is away: later), and mends handles
    /// that hold nothing any more.
    ///
    /// # Errors
    /// Why it is not given back; try again.
    pub async fn sweep(&self, stale: BTreeSet<String>) -> Result<SweepReport, Refused> {
        self.ask(|reply| Command::Sweep(stale, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Refused::Stopping)?;
        answer.await.map_err(|_| Refused::Stopping)?
    }
}

/// What was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The addresses.
    pub assigned: Vec<Assigned>,
    /// The datastore is away, and does not know of it yet.
    pub away: bool,
}

/// What became of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// These were given back.
    Done(Vec<IpAddr>),
    /// The datastore is away: it is done when it is back.
    Owed,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// IPAM could not.
    #[error(transparent)]
    Ipam(#[from] manx_ipam::Error),
    /// Somebody is moving the datastore.
    #[error("{LOCKED}")]
    Locked,
    /// Nobody is there to ask any more.
    #[error("the agent is stopping")]
    Stopping,
}

impl Refused {
    /// Whether the same request may well succeed a little later.
    pub fn is_passing(&self) -> bool {
        use manx_datastore::Error::Invalid;
        match self {
            Self::Stopping | Self::Locked => true,
            Self::Ipam(manx_ipam::Error::Contention { .. } | manx_ipam::Error::Away { .. }) => true,
            Self::Ipam(manx_ipam::Error::Datastore(error)) => !matches!(error, Invalid(_)),
            Self::Ipam(_) => false,
        }
    }
}

/// Where it is told what this node has.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its confirmed blocks.
    pub blocks: watch::Sender<BTreeSet<IpNet>>,
    /// The addresses that it borrows from blocks of others.
    pub borrowed: watch::Sender<BTreeSet<IpNet>>,
}

impl Told {
    /// Tells it.
    pub fn tell(&self, allocator: &Allocator) {
        latest::set(&self.blocks, allocator.confirmed_blocks());
        latest::set(&self.borrowed, allocator.borrowed().map(|(address, _)| IpNet::from(address)).collect());
    }
}

/// The task behind [`Addresses`].
pub struct Owner {
    /// What this node owns.
    pub allocator: Allocator,
    /// Where it is written.
    pub store: Arc<dyn Datastore>,
    /// The pools to take addresses from.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// Told of what this node has, whenever that changes.
    pub told: Told,
    /// The time of day.
    pub wall_clock: fn() -> SystemTime,
    /// What is wrong.
    pub problems: Problems,
    /// How many addresses of a block are held back at most.
    pub reserve: usize,
    /// What is known of an absence of the datastore.
    absence: Absence,
    /// The write of what was given ahead.
    writing: UnderWay<Redeemed>,
    /// By when the disk is to know what pods were given of what was held back ([`Datastore::settle`]).
    unsettled: Option<Instant>,
    /// Handles that are to be given back when the datastore answers.
    owed: BTreeSet<String>,
    /// The names of this node's confirmed affinities, as the watch has told them.
    affinities: BTreeSet<String>,
    /// When what this node owns is to be read again, since the watch does not tell an affinity that we know of.
    missed: Option<Instant>,
    commands: mpsc::Receiver<Command>,
}

impl Owner {
    /// The task and the way to ask it. It holds nothing back.
    pub fn new(
        allocator: Allocator,
        store: Arc<dyn Datastore>,
        cluster: watch::Receiver<Arc<Cluster>>,
        told: Told,
        wall_clock: fn() -> SystemTime,
        problems: Problems,
    ) -> (Self, Addresses) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let absence = Absence::new(&allocator);
        let owner = Self {
            allocator,
            store,
            cluster,
            told,
            wall_clock,
            problems,
            reserve: 0,
            absence,
            writing: UnderWay::default(),
            unsettled: None,
            owed: BTreeSet::new(),
            affinities: BTreeSet::new(),
            missed: None,
            commands,
        };
        (owner, Addresses { commands: sender })
    }

    /// Serves until nobody can ask any more.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        let mut retry = RETRY_FIRST;
        let (mut due, mut waited) = (Instant::now(), self.waits());
        let mut cluster = self.cluster.clone();
        let mut ping = UnderWay::default();
        self.look_at_affinities().await;
        loop {
            self.told.tell(&self.allocator);
            self.keep_reserve().await;
            self.told.tell(&self.allocator);
            self.look_for_missing();
            let waits = self.waits();
            if waits && !waited {
                due = Instant::now() + RETRY_FIRST;
            }
            waited = waits;
            tokio::select! {
                () = sleep_until(due), if waits && !ping.is_under_way() => ping.begin(ping_of(Arc::clone(&self.store))),
                answered = ping.outcome() => {
                    retry = match answered && self.come_back().await {
                        true => RETRY_FIRST,
                        false => RETRY_MOST.min(retry * 2),
                    };
                    due = Instant::now() + retry;
                }
                written = self.writing.outcome() => self.take_written(written).await,
                () = at(self.unsettled) => self.settle().await,
                () = at(self.missed), if !waits => {
                    self.missed = None;
                    self.read_again().await;
                }
                received = self.commands.recv_many(&mut batch, QUEUE) => match received {
                    0 => return,
                    _ => self.serve(batch.drain(..)).await,
                },
                Ok(()) = cluster.changed() => {
                    self.notice_loss();
                    self.look_at_affinities().await;
                }
            }
        }
    }

    /// Tries to give back what is owed; `true` when the datastore answered.
    async fn pay(&mut self) -> bool {
        let needed = self.needed();
        let owed = std::mem::replace(&mut self.owed, needed);
        let owed: Vec<String> = owed.difference(&self.owed).cloned().collect();
        let answers = self.release_all(&owed).await;
        for (handle, answer) in owed.into_iter().zip(answers) {
            match answer {
                Ok(Release::Done(addresses)) => tracing::info!(handle, ?addresses, "given back"),
                Ok(Release::Owed) => {}
                // Nobody else asks for it any more.
                Err(error) => {
                    tracing::warn!(handle, "what it held is not given back yet: {error}");
                    self.owed.insert(handle);
                }
            }
        }
        self.tell_owed();
        self.owed.is_empty()
    }

    /// Releases first: what they free is there for the rest.
    async fn serve(&mut self, batch: impl Iterator<Item = Command>) {
        self.notice_loss();
        let (mut releases, mut assigns) = (Vec::new(), Vec::new());
        for command in batch {
            match command {
                Command::Release(handle, reply) => releases.push((handle, reply)),
                Command::Assign(request, reply) => assigns.push((request, reply)),
                Command::Sweep(stale, reply) => drop(reply.send(self.sweep(&stale).await)),
            }
        }
        self.release(releases).await;
        self.assign(assigns).await;
    }

    async fn release(&mut self, batch: Vec<(String, Reply<Release>)>) {
        if batch.is_empty() {
            return;
        }
        let (handles, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        self.finish_writing().await;
        let answers = match self.absence.is_suspected() {
            // A release that is asked for in vain may come about at any time: it is not asked for.
            true => handles.iter().map(|handle| Ok(self.owe(handle))).collect(),
            false => self.release_all(&handles).await,
        };
        self.tell_owed();
        answer(replies, answers);
    }

    /// Gives back what the handles hold; what cannot be, since the datastore is away, is owed.
    async fn release_all(&mut self, handles: &[String]) -> Vec<Result<Release, Refused>> {
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        for handle in handles {
            self.owe(handle);
        }
        if is_locked(&cluster) {
            return handles.iter().map(|_| Ok(Release::Owed)).collect();
        }
        self.settle().await;
        let config = Arc::clone(&cluster.ipam);
        let answers = self.allocator.release(&*self.store, (self.wall_clock)(), &config, handles).await;
        let mut settle = |handle: &String, answer: Result<Vec<IpAddr>, manx_ipam::Error>| match answer {
            Err(error) if error.is_unavailable() => {
                self.absence.begin();
                Ok(Release::Owed)
            }
            ended => {
                self.owed.remove(handle);
                ended.map(Release::Done).map_err(Refused::from)
            }
        };
        handles.iter().zip(answers).map(|(handle, answer)| settle(handle, answer)).collect()
    }

    async fn assign(&mut self, batch: Vec<(AssignRequest, Reply<Granted>)>) {
        if batch.is_empty() {
            return;
        }
        let (requests, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        for request in &requests {
            // The container is wanted again: it keeps what it was to give back.
            self.owed.remove(&request.handle);
        }
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        let mut ahead = self.assign_ahead(&cluster, &requests);
        if ahead.is_none() && self.writing.is_under_way() {
            self.finish_writing().await;
            ahead = self.assign_ahead(&cluster, &requests);
        }
        if let Some(given) = ahead {
            answer(replies, given.into_iter().map(|assigned| Ok(Granted { assigned, away: false })));
            return self.begin_to_write(&cluster);
        }
        let answers = match is_locked(&cluster) {
            true => requests.iter().map(|_| Err(Refused::Locked)).collect(),
            false => self.assign_all(&cluster, &requests).await,
        };
        self.tell_owed();
        answer(replies, answers);
    }

    async fn sweep(&mut self, stale: &BTreeSet<String>) -> Result<SweepReport, Refused> {
        self.finish_writing().await;
        if self.absence.is_suspected() {
            for handle in stale {
                self.owe(handle);
            }
            self.tell_owed();
            return Ok(SweepReport::default());
        }
        self.settle().await;
        let config = Arc::clone(&self.cluster.borrow_and_update().ipam);
        let keep = |handle: &str, _: &AllocationAttribute| !stale.contains(handle);
        let swept = self.allocator.sweep(&*self.store, (self.wall_clock)(), &config, stale, keep).await;
        if swept.as_ref().is_err_and(manx_ipam::Error::is_unavailable) {
            self.absence.begin();
            self.owed.extend(stale.iter().cloned());
            self.tell_owed();
        }
        Ok(swept?)
    }
}

/// Answers each caller. One that went away has lost interest, and nothing else changes.
fn answer<T>(replies: Vec<Reply<T>>, answers: impl IntoIterator<Item = Result<T, Refused>>) {
    for (reply, answer) in replies.into_iter().zip(answers) {
        let _ = reply.send(answer);
    }
}

async fn ping_of(store: Arc<dyn Datastore>) -> bool {
    store.ping().await.is_ok()
}

/// Resolves then; never without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What a handle holds, and as whom.
#[derive(Debug)]
pub struct Held<'a> {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The attributes under which it holds them.
    pub attributes: &'a BTreeMap<String, String>,
}

/// The allocations that a freshly loaded allocator found, by handle.
pub fn by_handle(allocator: &Allocator) -> BTreeMap<&str, Held<'_>> {
    let mut handles: BTreeMap<&str, Held<'_>> = BTreeMap::new();
    for (address, handle, attribute) in allocator.allocations() {
        let fresh = || Held { addresses: Vec::new(), attributes: &attribute.secondary };
        handles.entry(handle).or_insert_with(fresh).addresses.push(address);
    }
    handles
}

#[cfg(test)]
mod tests;
