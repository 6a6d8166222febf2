//! The start of an agent: it waits for everything that it needs, in any order of arrival, and says what for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use manx_felix::{Snapshot, Target};
use manx_ipam::Allocator;
use manx_model::{InterfaceAddress, tunnel_handle};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Doors, Feeds, assembly, unwritten};
use crate::addresses::by_handle;
use crate::cni_server::NotReady;
use crate::config::Config;
use crate::default_pool;
use crate::detect;
use crate::felix_parameters::FelixParameters;
use crate::pod_cidrs;
use crate::pods::Pods;
use crate::route_loop::Stop;

/// While something that a start needs is missing, it is looked for this often.
const RETRY: Duration = Duration::from_secs(1);

/// The start of an agent, step by step.
pub(super) struct BringUp {
    pub(super) config: Arc<Config>,
    pub(super) doors: Doors,
    pub(super) feeds: Feeds,
    pub(super) pods: watch::Sender<Option<Arc<Pods>>>,
    pub(super) not_ready: watch::Sender<NotReady>,
}

/// What outlived the last agent.
pub(super) struct Found {
    pub(super) allocator: Allocator,
    pub(super) tunnel: Option<Ipv4Addr>,
    pub(super) kernel: Snapshot,
    pub(super) felix: FelixParameters,
}

impl BringUp {
    pub(super) async fn run(self, mut stopped: mpsc::Receiver<Stop>) {
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
            assembly::run(self, address, found, tasks, stopped).await;
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
            self.config.default_pool6.clone(),
            cluster.clone(),
            self.feeds.problems.clone(),
        ));
        let (felix, _) = FelixParameters::effective(&self.config.felix, &self.feeds.cluster.borrow());
        self.wait_for("this node's address");
        let address = detect::address(&self.config, self.witnesses(), &self.feeds.problems).await;
        detect::alone(&self.config, cluster, address, &self.feeds.problems).await;
        self.feeds.address.send_replace(Some(address));
        detect::prepare(&*self.doors.kernel, address, felix.ip_forwarding, &self.feeds.problems).await;
        self.wait_for("this node's blocks to be read");
        let found = self.find(felix).await;
        self.wait_for("pods that are gone to be given up");
        Some((address, found))
    }

    fn witnesses(&self) -> detect::Witnesses<'_> {
        let (kernel, store) = (&*self.doors.kernel, &*self.doors.store);
        detect::Witnesses { kernel, store, node: &self.config.node }
    }

    fn wait_for(&self, what: &str) {
        tracing::info!("waiting for {what}");
        self.not_ready.send_replace(Some(format!("waiting for {what}")));
    }

    /// Reads what IPAM and the kernel have of this node, until both answer.
    async fn find(&self, felix: FelixParameters) -> Found {
        loop {
            let mut allocator = Allocator::new(self.config.node.clone());
            let kernel = self.doors.kernel.read().await;
            let handles = kernel.as_ref().map(handles_of).unwrap_or_default();
            let loaded = allocator.load(&*self.doors.store, (self.doors.wall_clock)(), &handles).await;
            match (loaded, kernel) {
                (Ok(_), Ok(kernel)) => {
                    self.feeds.problems.set("start", None);
                    let cluster = Arc::clone(&self.feeds.cluster.borrow());
                    let now = (self.doors.wall_clock)();
                    let pods = Arc::clone(&self.feeds.pods.borrow());
                    unwritten::promise(&mut allocator, &handles, &kernel, &cluster, &pods, now);
                    let held = by_handle(&allocator);
                    let tunnel = held
                        .get(tunnel_handle(&self.config.node).as_str())
                        .and_then(|held| first_ipv4(&held.addresses));
                    return Found { allocator, tunnel, kernel, felix };
                }
                (loaded, kernel) => {
                    let errors = [loaded.err().map(|e| e.to_string()), kernel.err().map(|e| e.to_string())];
                    self.feeds.problems.set("start", errors.into_iter().flatten());
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// The handles that the kernel's links carry, with the addresses that are routed to them.
fn handles_of(kernel: &Snapshot) -> BTreeMap<String, Vec<IpAddr>> {
    let mut handles: BTreeMap<String, Vec<IpAddr>> = kernel
        .links
        .values()
        .filter_map(|link| link.alias.clone())
        .filter(|alias| pod_cidrs::read_alias(alias).is_none())
        .map(|it| (it, vec![]))
        .collect();
    for route in kernel.ours() {
        let Target::Hops(hops) = &route.target else { continue };
        let [hop] = &hops[..] else { continue };
        let alias = kernel.links.get(&hop.device).and_then(|link| link.alias.as_ref());
        if let Some(addresses) = alias.and_then(|alias| handles.get_mut(alias)) {
            addresses.push(route.key.destination.addr());
        }
    }
    handles
}

fn first_ipv4(addresses: &[IpAddr]) -> Option<Ipv4Addr> {
    addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}
