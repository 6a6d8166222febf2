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

mod assembly;
mod bring_up;
mod duties;
mod opening;
mod unwritten;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use manx_bgp_driver::Transport;
use manx_datastore::Datastore;
use manx_felix::Kernel;
use manx_model::{Complaint, InterfaceAddress};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cluster::{self, Cluster, KnownPods};
use crate::cni_server::NotReady;
use crate::config::Config;
use crate::endpoints::Endpoints;
use crate::metrics::Metrics;
use crate::network_condition;
use crate::no_ipip;
use crate::node_loop::{Beat, NodeReport};
use crate::node_status::Answerer;
use crate::pods::Pods;
use crate::policies::Unenforced;
use crate::problems::Problems;
use crate::route_loop::{Question, Stop};
use crate::view::View;

use bring_up::BringUp;

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
        tasks.spawn(cluster::watch(
            Arc::clone(&doors.store),
            config.node.clone(),
            feeds.cluster.clone(),
            feeds.pods.clone(),
        ));
        let answerer = Answerer {
            store: Arc::clone(&doors.store),
            cluster: feeds.cluster.subscribe(),
            view: view.clone(),
            wall_clock: doors.wall_clock,
        };
        tasks.spawn(answerer.run());
        if config.datastore.is_kubernetes() {
            tasks.spawn(network_condition::keep(
                Arc::clone(&doors.store),
                config.node.clone(),
                not_ready_receiver.clone(),
                feeds.cluster.subscribe(),
                feeds.problems.clone(),
            ));
            tasks.spawn(no_ipip::tell(
                Arc::clone(&doors.store),
                config.node.clone(),
                feeds.report.subscribe(),
            ));
        }
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
    /// The objects behind our pods.
    pub pods: watch::Sender<KnownPods>,
    /// The node loop's report.
    pub report: watch::Sender<NodeReport>,
    /// Our blocks.
    pub blocks: watch::Sender<BTreeSet<IpNet>>,
    /// The addresses of our pods in blocks of others.
    pub borrowed: watch::Sender<BTreeSet<IpNet>>,
    /// What the objects about BGP ask for in vain, or wrongly.
    pub complaints: watch::Sender<Vec<Complaint>>,
    /// Our address.
    pub address: watch::Sender<Option<InterfaceAddress>>,
    /// BGP has converged.
    pub converged: watch::Sender<bool>,
    /// Where the route loop takes questions, once it runs.
    pub questions: watch::Sender<Option<mpsc::Sender<Question>>>,
    /// Where the node loop is asked whether it still turns, once it runs.
    pub beats: watch::Sender<Option<mpsc::Sender<Beat>>>,
    /// What the collector counted last, on the node that leads.
    pub ipam: watch::Sender<Option<Arc<manx_ipam::Metrics>>>,
    /// The policies that are not enforced, once somebody has counted them.
    pub policies: watch::Sender<Option<Unenforced>>,
    /// What is counted as it happens.
    pub metrics: Metrics,
    /// Our pods.
    pub endpoints: Endpoints,
    /// What is wrong.
    pub problems: Problems,
}
