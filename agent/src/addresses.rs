//! The one owner of this node's addresses: many requests at once become one write.
//!
//! The owner is a task with a queue in front. What has gathered in the queue while a write was under way is the next
//! batch, so a burst of pods costs fewer writes than pods, and a single pod waits for nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use manx_datastore::Datastore;
use manx_ipam::{Allocator, AssignRequest, Assigned, Rules, SweepReport};
use manx_model::{AllocationAttribute, IpamConfigSpec};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::Cluster;
use crate::latest;

/// Requests that may wait in the queue; more callers wait their turn to queue.
const QUEUE: usize = 1024;

/// Asks the owner. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Addresses {
    commands: mpsc::Sender<Command>,
}

/// To whoever asked.
type Reply<T> = oneshot::Sender<Result<T, Refused>>;

#[derive(Debug)]
enum Command {
    Assign(AssignRequest, Reply<Vec<Assigned>>),
    Release(String, Reply<Vec<IpAddr>>),
    Sweep(BTreeSet<String>, Reply<SweepReport>),
}

impl Addresses {
    /// The addresses that `request` wants; the same ones if its handle has them already.
    ///
    /// # Errors
    /// Why there is none, in words for the operator.
    pub async fn assign(&self, request: AssignRequest) -> Result<Vec<Assigned>, Refused> {
        self.ask(|reply| Command::Assign(request, reply)).await
    }

    /// Gives back what `handle` holds: nothing, if it holds nothing.
    ///
    /// # Errors
    /// Why it is not given back; try again.
    pub async fn release(&self, handle: String) -> Result<Vec<IpAddr>, Refused> {
        self.ask(|reply| Command::Release(handle, reply)).await
    }

    /// Gives back what this node holds under the `stale` handles, and mends handles that hold nothing any more.
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

/// Why a request was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// IPAM could not.
    #[error(transparent)]
    Ipam(#[from] manx_ipam::Error),
    /// Nobody is there to ask any more.
    #[error("the agent is stopping")]
    Stopping,
}

impl Refused {
    /// Whether the same request may well succeed a little later.
    pub fn is_passing(&self) -> bool {
        use manx_datastore::Error::Invalid;
        match self {
            Self::Stopping | Self::Ipam(manx_ipam::Error::Contention { .. }) => true,
            Self::Ipam(manx_ipam::Error::Datastore(error)) => !matches!(error, Invalid(_)),
            Self::Ipam(_) => false,
        }
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
    /// Told of the confirmed blocks whenever they change.
    pub blocks: watch::Sender<BTreeSet<IpNet>>,
    /// The time of day.
    pub wall_clock: fn() -> SystemTime,
    commands: mpsc::Receiver<Command>,
}

impl Owner {
    /// The task and the way to ask it.
    pub fn new(
        allocator: Allocator,
        store: Arc<dyn Datastore>,
        cluster: watch::Receiver<Arc<Cluster>>,
        blocks: watch::Sender<BTreeSet<IpNet>>,
        wall_clock: fn() -> SystemTime,
    ) -> (Self, Addresses) {
        let (sender, commands) = mpsc::channel(QUEUE);
        (Self { allocator, store, cluster, blocks, wall_clock, commands }, Addresses { commands: sender })
    }

    /// Serves until nobody can ask any more.
    pub async fn run(mut self) {
        let mut batch = Vec::new();
        while self.commands.recv_many(&mut batch, QUEUE).await > 0 {
            self.serve(batch.drain(..)).await;
            latest::set(&self.blocks, self.allocator.confirmed_blocks());
        }
    }

    /// Releases first: what they free is there for the rest.
    async fn serve(&mut self, batch: impl Iterator<Item = Command>) {
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

    async fn release(&mut self, batch: Vec<(String, Reply<Vec<IpAddr>>)>) {
        if batch.is_empty() {
            return;
        }
        let (handles, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let config = self.cluster.borrow_and_update().ipam.clone();
        let answers = self.allocator.release(&*self.store, (self.wall_clock)(), &config, &handles).await;
        for (reply, answer) in replies.into_iter().zip(answers) {
            // A caller that went away has lost interest, not the release.
            let _ = reply.send(answer.map_err(Refused::from));
        }
    }

    async fn assign(&mut self, batch: Vec<(AssignRequest, Reply<Vec<Assigned>>)>) {
        if batch.is_empty() {
            return;
        }
        let (requests, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        let node = cluster.node_objects.get(self.allocator.node().as_str());
        let no_labels = BTreeMap::new();
        // A borrowed address needs a route of its own, which nobody originates yet (`Allocator::borrowed`).
        let config = IpamConfigSpec { strict_affinity: true, ..cluster.ipam.clone() };
        let rules = Rules {
            pools: &cluster.pools,
            reserved: &[],
            config: &config,
            node_labels: node.map_or(&no_labels, |node| &node.metadata.labels),
        };
        let answers = self.allocator.assign(&*self.store, (self.wall_clock)(), rules, &requests).await;
        for (reply, answer) in replies.into_iter().zip(answers) {
            let _ = reply.send(answer.map_err(Refused::from));
        }
    }

    async fn sweep(&mut self, stale: &BTreeSet<String>) -> Result<SweepReport, Refused> {
        let config = self.cluster.borrow_and_update().ipam.clone();
        let keep = |handle: &str, _: &AllocationAttribute| !stale.contains(handle);
        let swept = self.allocator.sweep(&*self.store, (self.wall_clock)(), &config, stale, keep).await;
        Ok(swept?)
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
