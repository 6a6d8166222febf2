//! One agent, from its parts: every task and every channel between them.
//!
//! ```text
//!  datastore --watch--> cluster ----+--------------+-----------------+---------------+
//!                                   v              v                 v               v
//!  CNI socket --> pods --> addresses (IPAM)   route loop (BGP)   node loop (Felix)  default pool
//!                  |          |   blocks ------->  |  --- paths ---> |  ^
//!                  |          +-- blocks --------------------------> |  |
//!                  +-- endpoints ----------------------------------> |  +-- tunnel address
//!                  +------------- attach ------> kernel <--- plan ---+
//!                                                       publication ---> Node object
//! ```
//!
//! Channels hold the latest value or coalesce by key; the one queue is that of IPAM requests. Dropping an [`Agent`] is
//! what kill -9 is to the process: everything ends where it stands.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use manx_bgp_driver::Transport;
use manx_datastore::Datastore;
use manx_felix::{Kernel, Snapshot};
use manx_ipam::{Allocator, SweepReport};
use manx_model::{InterfaceAddress, Kind, tunnel_handle};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::addresses::{Owner, by_handle};
use crate::cluster::{self, Cluster};
use crate::cni_server::NotReady;
use crate::coalesce::Coalesce;
use crate::config::{Backend, Config};
use crate::default_pool;
use crate::detect;
use crate::endpoints::{self, Endpoints};
use crate::node_loop::{NodeLoop, NodeReport};
use crate::pods::Pods;
use crate::problems::Problems;
use crate::publish::{Publication, keep_published};
use crate::route_loop::{Question, RouteLoop, Stop};
use crate::tunnel_address;
use crate::view::View;

/// Questions to the route loop that may wait for it; more are answered without it.
const QUESTIONS: usize = 8;
/// While something that a start needs is missing, it is looked for this often.
const RETRY: Duration = Duration::from_secs(1);

/// The ways out of an agent.
#[derive(Clone)]
pub struct Doors {
    /// The cluster's objects.
    pub store: Arc<dyn Datastore>,
    /// This node's kernel.
    pub kernel: Arc<dyn Kernel>,
    /// Connections to BGP peers.
    pub transport: Arc<dyn Transport>,
    /// The time of day.
    pub wall_clock: fn() -> SystemTime,
    /// Where chance comes from (the jitter of timers).
    pub seed: u64,
}

/// A running agent.
pub struct Agent {
    /// Serves pods, once it can.
    pub pods: watch::Receiver<Option<Arc<Pods>>>,
    /// Why it cannot yet.
    pub not_ready: watch::Receiver<NotReady>,
    /// What it says about itself.
    pub view: View,
    stop: mpsc::Sender<Stop>,
    tasks: JoinSet<()>,
}

impl Agent {
    /// Starts an agent. It needs no datastore to start, and serves once it has one.
    pub fn start(config: Arc<Config>, doors: Doors) -> Self {
        let (stop, stopped) = mpsc::channel(1);
        let (pods, pods_receiver) = watch::channel(None);
        let (not_ready, not_ready_receiver) = watch::channel(Some("it is starting".to_owned()));
        let (view, feeds) = View::new(Arc::clone(&config), not_ready_receiver.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(cluster::watch(Arc::clone(&doors.store), feeds.cluster.clone()));
        tasks.spawn(BringUp { config, doors, feeds, pods, not_ready }.run(stopped));
        Self { pods: pods_receiver, not_ready: not_ready_receiver, view, stop, tasks }
    }

    /// Ends so that the node keeps forwarding and its peers keep its routes, for a successor to take over.
    pub async fn stop(mut self) {
        let (done, ended) = tokio::sync::oneshot::channel();
        if self.stop.send(done).await.is_ok() {
            // An error says that the route loop is gone, which is what was asked for.
            let _ = ended.await;
        }
        self.tasks.shutdown().await;
    }

    /// Resolves if a part of the agent ended that never should.
    pub async fn failed(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Err(error)) => format!("a task of the agent failed: {error}"),
            _ => "a task of the agent ended".to_owned(),
        }
    }
}

/// What the tasks tell the [`View`].
pub struct Feeds {
    /// The cluster.
    pub cluster: watch::Sender<Arc<Cluster>>,
    /// The node loop's report.
    pub report: watch::Sender<NodeReport>,
    /// Our blocks.
    pub blocks: watch::Sender<std::collections::BTreeSet<ipnet::IpNet>>,
    /// Our address.
    pub address: watch::Sender<Option<InterfaceAddress>>,
    /// BGP has converged.
    pub converged: watch::Sender<bool>,
    /// Where the route loop takes questions, once it runs.
    pub questions: watch::Sender<Option<mpsc::Sender<Question>>>,
    /// Our pods.
    pub endpoints: Endpoints,
    /// What is wrong.
    pub problems: Problems,
}

/// The start of an agent, step by step.
struct BringUp {
    config: Arc<Config>,
    doors: Doors,
    feeds: Feeds,
    pods: watch::Sender<Option<Arc<Pods>>>,
    not_ready: watch::Sender<NotReady>,
}

/// What outlived the last agent.
struct Found {
    allocator: Allocator,
    tunnel: Option<Ipv4Addr>,
    kernel: Snapshot,
}

impl BringUp {
    async fn run(self, mut stopped: mpsc::Receiver<Stop>) {
        let mut tasks = JoinSet::new();
        let prepared = tokio::select! {
            biased;
            Some(done) = stopped.recv() => {
                // No speaker runs yet: there is nobody to take leave of.
                let _ = done.send(());
                return std::future::pending().await;
            }
            prepared = self.prepare(&mut tasks) => prepared,
        };
        if let Some((address, found)) = prepared {
            self.assemble(address, found, tasks, stopped).await;
        }
    }

    /// Waits for everything that an agent needs; `None` when the watch of the cluster has ended.
    async fn prepare(&self, tasks: &mut JoinSet<()>) -> Option<(InterfaceAddress, Found)> {
        let mut cluster = self.feeds.cluster.subscribe();
        self.wait_for("the datastore to be read whole");
        cluster.wait_for(|cluster| cluster.in_sync).await.ok()?;
        tasks.spawn(default_pool::keep(
            Arc::clone(&self.doors.store),
            self.config.default_pool.clone(),
            cluster,
            self.feeds.problems.clone(),
        ));
        self.wait_for("this node's address");
        let address = detect::address(&self.config, &*self.doors.kernel, &self.feeds.problems).await;
        self.feeds.address.send_replace(Some(address));
        detect::prepare(&*self.doors.kernel, address, self.config.felix.ip_forwarding, &self.feeds.problems)
            .await;
        self.wait_for("this node's blocks to be read");
        let found = self.find().await;
        self.wait_for("pods that are gone to be given up");
        Some((address, found))
    }

    fn wait_for(&self, what: &str) {
        tracing::info!("waiting for {what}");
        self.not_ready.send_replace(Some(format!("waiting for {what}")));
    }

    /// Reads what IPAM and the kernel have of this node, until both answer.
    async fn find(&self) -> Found {
        loop {
            let mut allocator = Allocator::new(self.config.node.clone());
            let loaded = allocator.load(&*self.doors.store, (self.doors.wall_clock)()).await;
            let kernel = self.doors.kernel.read().await;
            match (loaded, kernel) {
                (Ok(_), Ok(kernel)) => {
                    self.feeds.problems.set("start", None);
                    let held = by_handle(&allocator);
                    let tunnel =
                        held.get(&tunnel_handle(&self.config.node)).and_then(|held| first_ipv4(held));
                    return Found { allocator, tunnel, kernel };
                }
                (loaded, kernel) => {
                    let errors = [loaded.err().map(|e| e.to_string()), kernel.err().map(|e| e.to_string())];
                    self.feeds.problems.set("start", errors.into_iter().flatten());
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn assemble(
        self,
        address: InterfaceAddress,
        found: Found,
        mut tasks: JoinSet<()>,
        stopped: mpsc::Receiver<Stop>,
    ) {
        let Self { config, doors, feeds, .. } = self;
        let cluster = feeds.cluster.subscribe();
        let node = config.node.clone();
        let problems = feeds.problems.clone();
        let stale = endpoints::adopt(
            &feeds.endpoints,
            &found.allocator,
            &found.kernel,
            &config.felix.interface_prefix,
        );
        // Before anybody asks: a speaker that said End-of-RIB without them would make peers forget our blocks.
        feeds.blocks.send_replace(found.allocator.confirmed_blocks());
        let (owner, addresses) = Owner::new(
            found.allocator,
            Arc::clone(&doors.store),
            cluster.clone(),
            feeds.blocks.clone(),
            doors.wall_clock,
        );
        tasks.spawn(owner.run());

        let (tunnel_wanted, tunnel_wish) = watch::channel(found.tunnel.is_some());
        let (tunnel_address, tunnel_held) = watch::channel(found.tunnel);
        tasks.spawn(tunnel_address::keep(
            node.clone(),
            addresses.clone(),
            tunnel_wish,
            tunnel_address,
            problems.clone(),
        ));

        // What was published stays published until the node loop knows better: others must not change their routes
        // because an agent restarts.
        let published = cluster.borrow().nodes.get(&node).and_then(|node| node.tunnel_address);
        let (publication, published) =
            watch::channel(Publication { address, tunnel: published, asn: config.asn });
        tasks.spawn(keep_published(
            Arc::clone(&doors.store),
            node.clone(),
            published,
            cluster.clone(),
            problems.clone(),
        ));

        let paths = Coalesce::default();
        let (pod_mtu, pod_mtu_known) = watch::channel(config.felix.mtu.pod(&found.kernel, address.address()));
        let node_loop = NodeLoop {
            node: node.clone(),
            address,
            mtu: config.felix.mtu,
            kernel: Arc::clone(&doors.kernel),
            cluster: cluster.clone(),
            blocks: feeds.blocks.subscribe(),
            endpoints: feeds.endpoints.clone(),
            paths: paths.clone(),
            converged: feeds.converged.subscribe(),
            tunnel_address: tunnel_held,
            tunnel_wanted,
            pod_mtu,
            publication,
            report: feeds.report,
            problems: problems.clone(),
        };
        tasks.spawn(node_loop.run());

        let pods = Arc::new(Pods {
            node: node.clone(),
            interface_prefix: config.felix.interface_prefix.clone(),
            mtu: pod_mtu_known,
            addresses,
            endpoints: feeds.endpoints,
            kernel: Arc::clone(&doors.kernel),
            wall_clock: doors.wall_clock,
        });
        let opening =
            Opening { pods, stale, spool: config.spool(), open: self.pods, not_ready: self.not_ready };
        let pool = config.default_pool.cidr.is_some().then(|| cluster.clone());
        tasks.spawn(opening.run(pool));

        match config.backend {
            Backend::None => {
                feeds.converged.send_replace(true);
                tasks.spawn(answer_stop(stopped));
            }
            Backend::Bird => {
                let (ask, questions) = mpsc::channel(QUESTIONS);
                feeds.questions.send_replace(Some(ask));
                let route_loop = RouteLoop {
                    node,
                    address: address.address(),
                    own_asn: config.asn,
                    forwarding_preserved: found.kernel.ours().next().is_some(),
                    cluster,
                    blocks: feeds.blocks.subscribe(),
                    paths,
                    converged: feeds.converged,
                    questions,
                    stopped,
                    problems,
                };
                tasks.spawn(route_loop.run(doors.transport, doors.seed));
            }
        }
        // The parts run for ever; one that ends or panics ends the agent, and whoever runs it starts it again.
        if let Some(Err(error)) = tasks.join_next().await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn first_ipv4(addresses: &[IpAddr]) -> Option<Ipv4Addr> {
    addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// Without a speaker there is nobody to take leave of.
async fn answer_stop(mut stopped: mpsc::Receiver<Stop>) {
    while let Some(done) = stopped.recv().await {
        let _ = done.send(());
    }
    std::future::pending::<()>().await;
}

/// What stands between an agent and its first pod.
struct Opening {
    pods: Arc<Pods>,
    /// What gone pods hold, and how it is known that they are gone.
    stale: BTreeMap<String, String>,
    spool: std::path::PathBuf,
    open: watch::Sender<Option<Arc<Pods>>>,
    not_ready: watch::Sender<NotReady>,
}

impl Opening {
    /// Settles what happened while no agent ran, waits for a pool where we make one, then lets pods in.
    async fn run(self, pool: Option<watch::Receiver<Arc<Cluster>>>) {
        crate::cni_server::drain_spool(&self.spool, &self.pods).await;
        for (handle, reason) in &self.stale {
            tracing::info!(handle, "gives up what a gone pod held: {reason}");
        }
        match self.pods.addresses.sweep(self.stale.into_keys().collect()).await {
            Ok(report) if report == SweepReport::default() => {}
            Ok(report) => tracing::info!(released = ?report.released, dangling = ?report.dangling, "swept"),
            // It is in nobody's way; the next start tries again.
            Err(error) => tracing::warn!("what gone pods held is not given back: {error}"),
        }
        if let Some(mut cluster) = pool {
            // A pod that came before the pool which we are just making would be refused.
            self.not_ready.send_replace(Some("waiting for the default pool".to_owned()));
            if cluster.wait_for(|cluster| has_pool(cluster)).await.is_err() {
                return;
            }
        }
        self.open.send_replace(Some(self.pods));
        self.not_ready.send_replace(None);
        tracing::info!("ready");
        std::future::pending::<()>().await;
    }
}

/// Somebody made a pool, although perhaps none that can be used: which is for the requests to say.
fn has_pool(cluster: &Cluster) -> bool {
    !cluster.pool_objects.is_empty() || cluster.invalid.iter().any(|invalid| invalid.kind == Kind::IPPool)
}
