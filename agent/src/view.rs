//! Everything that an agent knows, gathered for [`Status`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use manx_felix::Path;
use manx_model::InterfaceAddress;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::agent::Feeds;
use crate::cluster::Cluster;
use crate::cni_server::NotReady;
use crate::config::Config;
use crate::endpoints::Endpoints;
use crate::metrics::{self, Metrics, Moment};
use crate::node_loop::{Beat, NodeReport};
use crate::policies::Unenforced;
use crate::probes::{NODE_LOOP, ROUTE_LOOP};
use crate::problems::Problems;
use crate::route_loop::Question;
use crate::status::{Bgp, Pod, Pool, RemotePath, Status};

/// The receiving ends of what every part tells. Cheap to clone.
#[derive(Clone)]
pub struct View {
    config: Arc<Config>,
    not_ready: watch::Receiver<NotReady>,
    cluster: watch::Receiver<Arc<Cluster>>,
    report: watch::Receiver<NodeReport>,
    blocks: watch::Receiver<BTreeSet<IpNet>>,
    address: watch::Receiver<Option<InterfaceAddress>>,
    questions: watch::Receiver<Option<mpsc::Sender<Question>>>,
    beats: watch::Receiver<Option<mpsc::Sender<Beat>>>,
    ipam: watch::Receiver<Option<Arc<manx_ipam::Metrics>>>,
    policies: watch::Receiver<Option<Unenforced>>,
    metrics: Metrics,
    endpoints: Endpoints,
    problems: Problems,
}

/// A loop that has not answered for this long is stuck.
const BEAT: Duration = Duration::from_secs(5);

impl View {
    /// A view, and what feeds it.
    pub fn new(config: Arc<Config>, not_ready: watch::Receiver<NotReady>) -> (Self, Feeds) {
        let feeds = Feeds {
            cluster: watch::Sender::default(),
            pods: watch::Sender::default(),
            report: watch::Sender::default(),
            blocks: watch::Sender::default(),
            borrowed: watch::Sender::default(),
            complaints: watch::Sender::default(),
            address: watch::Sender::default(),
            converged: watch::Sender::default(),
            questions: watch::Sender::default(),
            beats: watch::Sender::default(),
            ipam: watch::Sender::default(),
            policies: watch::Sender::default(),
            metrics: Metrics::default(),
            endpoints: Endpoints::default(),
            problems: Problems::default(),
        };
        let view = Self {
            config,
            not_ready,
            cluster: feeds.cluster.subscribe(),
            report: feeds.report.subscribe(),
            blocks: feeds.blocks.subscribe(),
            address: feeds.address.subscribe(),
            questions: feeds.questions.subscribe(),
            beats: feeds.beats.subscribe(),
            ipam: feeds.ipam.subscribe(),
            policies: feeds.policies.subscribe(),
            metrics: feeds.metrics.clone(),
            endpoints: feeds.endpoints.clone(),
            problems: feeds.problems.clone(),
        };
        (view, feeds)
    }

    /// The state of the agent now.
    pub async fn status(&self) -> Status {
        let bgp = self.bgp().await;
        let cluster = Arc::clone(&self.cluster.borrow());
        let report = self.report.borrow().clone();
        let not_ready = self.not_ready.borrow().clone();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.config.node.to_string(),
            address: self.address.borrow().map(|address| address.to_string()),
            ready: not_ready.is_none(),
            not_ready,
            datastore: self.config.datastore.to_string(),
            in_sync: cluster.in_sync && cluster.lost.is_none(),
            in_desired_state: report.in_desired_state,
            no_conflist: self.config.cni.as_ref().is_some_and(|files| !files.conflist().exists()),
            no_ipip: report.no_ipip,
            routes_written: report.written,
            pools: cluster.pools.iter().map(pool).collect(),
            blocks: self.blocks.borrow().iter().map(ToString::to_string).collect(),
            pods: self.pods(),
            tunnel: report.tunnel.map(|address| address.to_string()),
            bgp,
            paths: report.paths.iter().map(|(prefix, path)| remote_path(*prefix, path)).collect(),
            policies_not_enforced: self.policies_not_enforced(),
            problems: self.problems(&cluster),
            notices: self.notices(&cluster),
        }
    }

    /// How many policies nobody enforces, once somebody has counted them.
    pub fn policies_not_enforced(&self) -> Option<usize> {
        self.policies.borrow().as_ref().map(|policies| policies.count)
    }

    /// The cluster, as it is and as it changes.
    pub fn cluster(&self) -> watch::Receiver<Arc<Cluster>> {
        self.cluster.clone()
    }

    /// What is wrong now, to add to.
    pub fn standing(&self) -> Problems {
        self.problems.clone()
    }

    /// What is counted as it happens.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The page that Prometheus reads.
    pub async fn metrics_page(&self) -> String {
        let status = self.status().await;
        let cluster = Arc::clone(&self.cluster.borrow());
        let ipam = self.ipam.borrow().clone();
        let moment = Moment {
            status: &status,
            answers: cluster.lost.is_none(),
            routes: self.report.borrow().routes,
            nodes: cluster.nodes.values().filter(|node| node.address.is_some()).count(),
            ipam: ipam.as_deref(),
        };
        metrics::render(&self.metrics, moment)
    }

    /// The loops that should turn, and do not. One that has not been started yet is not stuck.
    pub async fn stuck(&self) -> Vec<&'static str> {
        let (node, route) = tokio::join!(is_stuck(&self.beats), is_stuck(&self.questions));
        [(node, NODE_LOOP), (route, ROUTE_LOOP)]
            .into_iter()
            .filter(|(stuck, _)| *stuck)
            .map(|(_, name)| name)
            .collect()
    }

    /// `None` while there is no speaker to ask: nobody would answer.
    async fn bgp(&self) -> Option<Bgp> {
        let speaker = self.questions.borrow().clone()?;
        let (question, answer) = oneshot::channel();
        speaker.try_send(question).ok()?;
        answer.await.ok()
    }

    fn pods(&self) -> Vec<Pod> {
        let pod = |(handle, endpoint): (String, crate::endpoints::Endpoint)| Pod {
            handle,
            device: endpoint.device,
            addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
        };
        self.endpoints.all().into_iter().map(pod).collect()
    }

    fn notices(&self, cluster: &Cluster) -> Vec<String> {
        let of_variables = self.config.notices.iter().map(ToString::to_string);
        of_variables.chain(cluster.without_effect.iter().map(ToString::to_string)).collect()
    }

    fn problems(&self, cluster: &Cluster) -> Vec<String> {
        let lost = cluster.lost.iter().map(|reason| format!("datastore: {reason}"));
        let invalid = cluster.invalid.iter().map(|invalid| format!("object: {invalid}"));
        lost.chain(invalid).chain(self.problems.list()).collect()
    }
}

/// Whether a loop leaves a question without an answer for too long.
async fn is_stuck<T>(ask: &watch::Receiver<Option<mpsc::Sender<oneshot::Sender<T>>>>) -> bool {
    let Some(ask) = ask.borrow().clone() else { return false };
    let answered = async {
        let (question, answer) = oneshot::channel();
        ask.send(question).await.is_ok() && answer.await.is_ok()
    };
    !timeout(BEAT, answered).await.unwrap_or(false)
}

fn pool(pool: &manx_model::IpPool) -> Pool {
    Pool {
        name: pool.name.clone(),
        cidr: pool.cidr.to_string(),
        block_size: pool.block_size,
        ipip_mode: pool.ipip.to_string(),
        disabled: pool.disabled,
    }
}

fn remote_path(prefix: IpNet, path: &Path) -> RemotePath {
    let route = path.route().unwrap_or_else(|| "no route".to_owned());
    RemotePath { prefix: prefix.to_string(), route, reason: path.reason().to_owned() }
}
