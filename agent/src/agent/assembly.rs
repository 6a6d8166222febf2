//! The parts of an agent, wired: one function for each task, and the channels between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use manx_felix::Snapshot;
use manx_ipam::Allocator;
use manx_model::InterfaceAddress;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::bring_up::{BringUp, Found};
use super::opening::Opening;
use super::{Doors, Feeds, duties};
use crate::addresses::{Addresses, Owner, Told};
use crate::cluster::Cluster;
use crate::coalesce::Coalesce;
use crate::config::{Backend, Config};
use crate::detect;
use crate::endpoints;
use crate::felix_parameters::{FelixParameters, tell_changes};
use crate::node_loop::{NodeLoop, RulesetKeeper};
use crate::passwords::{Keeper, Passwords};
use crate::pod_cidrs::{Own, PodCidrs};
use crate::pod_objects::{PodObjects, keep_annotated};
use crate::pods::Pods;
use crate::publish::{NodeMaker, Publication, keep_published};
use crate::route_loop::{RouteLoop, Stop};
use crate::territory::Territory;
use crate::tunnel_address::{self, OfIpam};

/// Questions to a loop that may wait for it; more are answered without it.
const QUESTIONS: usize = 8;

/// Paths from the route loop to the node loop.
type Paths = Coalesce<IpNet, Option<IpAddr>>;

/// Starts every part and runs until one ends, which none should.
pub(super) async fn run(
    start: BringUp,
    address: InterfaceAddress,
    found: Found,
    tasks: JoinSet<()>,
    stopped: mpsc::Receiver<Stop>,
) {
    let BringUp { config, doors, feeds, pods: open, not_ready } = start;
    let cluster = feeds.cluster.subscribe();
    let mut tasks = tasks;
    duties::spawn(&config, &doors, &feeds, &mut tasks);
    let felix = found.felix.clone();
    let own_cidrs = Own::new(config.node.clone(), Arc::clone(&doors.store), &cluster.borrow());
    let gateways = watch::Sender::default();
    let mut parts = Assembly { config, doors, feeds, cluster, address, felix, own_cidrs, gateways, tasks };
    parts.spawn_felix_parameters();
    parts.spawn_address_watch();
    let stale = parts.adopt_pods(&found);
    let (addresses, of_ipam) = parts.spawn_addresses(found.allocator, &stale);
    let tunnel = parts.spawn_tunnel_address(found.tunnel, addresses.clone(), of_ipam.clone());
    let publication = parts.spawn_publisher();
    parts.spawn_territory(of_ipam, publication.clone());
    let paths = Paths::default();
    let pod_mtu = parts.spawn_node_loop(&found.kernel, tunnel, publication, paths.clone());
    let objects = parts.spawn_pod_objects();
    let opening = Opening {
        pods: parts.pods(objects, addresses, pod_mtu),
        stale,
        spool: parts.config.spool(),
        open,
        not_ready,
    };
    parts.spawn_opening(opening);
    parts.spawn_speaker(&found.kernel, paths, stopped);
    parts.join().await;
}

/// What all parts are made from.
struct Assembly {
    config: Arc<Config>,
    doors: Doors,
    feeds: Feeds,
    cluster: watch::Receiver<Arc<Cluster>>,
    address: InterfaceAddress,
    felix: FelixParameters,
    own_cidrs: Own,
    /// BGP peers that are reached over a gateway of their own.
    gateways: watch::Sender<BTreeMap<IpAddr, IpAddr>>,
    tasks: JoinSet<()>,
}

/// The node loop's ends of the channels about the tunnel's address.
struct TunnelEnds {
    wanted: watch::Sender<bool>,
    address: watch::Receiver<Option<Ipv4Addr>>,
}

impl Assembly {
    fn spawn_felix_parameters(&mut self) {
        let (environment, problems) = (self.config.felix.clone(), self.feeds.problems.clone());
        self.tasks.spawn(tell_changes(environment, self.felix.clone(), self.cluster.clone(), problems));
    }

    /// All parts are made for one address.
    fn spawn_address_watch(&mut self) {
        let (config, doors, address) = (Arc::clone(&self.config), self.doors.clone(), self.address);
        self.tasks.spawn(async move {
            let witnesses =
                detect::Witnesses { kernel: &*doors.kernel, store: &*doors.store, node: &config.node };
            detect::until_moved(witnesses, &config, address).await;
        });
    }

    /// Enters the pods that outlived the last agent; returns what gone ones hold.
    fn adopt_pods(&self, found: &Found) -> BTreeMap<String, String> {
        let prefix = &found.felix.interface_prefix;
        let pods = Arc::clone(&self.feeds.pods.borrow());
        endpoints::adopt_pod_cidrs(&self.feeds.endpoints, &found.kernel, &pods);
        endpoints::adopt(&self.feeds.endpoints, &found.allocator, &found.kernel, prefix)
    }

    fn spawn_addresses(
        &mut self,
        allocator: Allocator,
        stale: &BTreeMap<String, String>,
    ) -> (Addresses, OfIpam) {
        let told = Told::default();
        told.tell(&allocator);
        let of_ipam = (told.blocks.subscribe(), told.borrowed.subscribe());
        let store = Arc::clone(&self.doors.store);
        let (mut owner, addresses) = Owner::new(
            allocator,
            store,
            self.cluster.clone(),
            told,
            self.doors.wall_clock,
            self.feeds.problems.clone(),
        );
        owner.reserve = self.config.reserve;
        if owner.waits() {
            // Pods that IPAM does not know of may have what these held.
            owner.owe_all(stale.keys().cloned());
        }
        self.tasks.spawn(owner.run());
        (addresses, of_ipam)
    }

    fn spawn_territory(&mut self, (blocks, borrowed): OfIpam, publication: watch::Sender<Publication>) {
        let mut territory = Territory {
            always: self.config.use_pod_cidr,
            blocks,
            borrowed,
            cidrs: self.own_cidrs.known.subscribe(),
            pods: self.feeds.endpoints.from_pod_cidrs(),
            told: Told { blocks: self.feeds.blocks.clone(), borrowed: self.feeds.borrowed.clone() },
            publication,
        };
        // Before anybody asks: a speaker that said End-of-RIB without them would make peers forget our blocks.
        territory.tell();
        self.tasks.spawn(territory.run());
        let (needed, problems) = (self.config.use_pod_cidr, self.feeds.problems.clone());
        self.tasks.spawn(self.own_cidrs.clone().keep(needed, self.cluster.clone(), problems));
    }

    /// A tunnel that takes packets keeps its address.
    fn spawn_tunnel_address(
        &mut self,
        held_by_ipam: Option<Ipv4Addr>,
        addresses: Addresses,
        of_ipam: OfIpam,
    ) -> TunnelEnds {
        let held = match self.config.use_pod_cidr {
            true => self.published_tunnel().filter(|published| {
                tunnel_address::of_pod_cidrs(&self.own_cidrs.known.borrow()) == Some(*published)
            }),
            false => held_by_ipam,
        };
        let (wanted, wish) = watch::channel(held.is_some());
        let (sender, address) = watch::channel(held);
        let keeper = tunnel_address::Keeper {
            node: self.config.node.clone(),
            addresses,
            pod_cidrs: self.config.use_pod_cidr.then(|| self.own_cidrs.known.subscribe()),
            held_by_ipam: held_by_ipam.is_some(),
            of_ipam,
            problems: self.feeds.problems.clone(),
        };
        self.tasks.spawn(keeper.run(wish, sender));
        TunnelEnds { wanted, address }
    }

    fn published_tunnel(&self) -> Option<Ipv4Addr> {
        self.cluster.borrow().nodes.get(self.config.node.as_str())?.tunnel_address
    }

    /// What was published stays published until the node loop knows better: others must not change their routes because
    /// an agent restarts.
    fn spawn_publisher(&mut self) -> watch::Sender<Publication> {
        let node = self.config.node.clone();
        let tunnel = self.published_tunnel();
        let pod_cidrs =
            self.cluster.borrow().nodes.get(node.as_str()).map(|own| own.pod_cidrs_in_use.clone());
        let pod_cidrs = pod_cidrs.unwrap_or_default();
        let publication = Publication { address: self.address, tunnel, asn: self.config.asn, pod_cidrs };
        let (sender, wanted) = watch::channel(publication);
        let store = Arc::clone(&self.doors.store);
        let (cluster, problems) = (self.cluster.clone(), self.feeds.problems.clone());
        let maker = match self.config.datastore.is_kubernetes() {
            true => NodeMaker::Kubelet,
            false => NodeMaker::Agent,
        };
        self.tasks.spawn(keep_published(store, node, maker, wanted, cluster, problems));
        sender
    }

    /// Returns where the MTU of new pods is to be read.
    fn spawn_node_loop(
        &mut self,
        kernel: &Snapshot,
        tunnel: TunnelEnds,
        publication: watch::Sender<Publication>,
        paths: Paths,
    ) -> watch::Receiver<Result<u32, String>> {
        let mtu = self.felix.mtu;
        let (ask, beats) = mpsc::channel(QUESTIONS);
        self.feeds.beats.send_replace(Some(ask));
        let (pod_mtu, known) = watch::channel(mtu.pod(kernel, self.address.address()));
        let ruleset = RulesetKeeper {
            environment: self.config.felix.clone(),
            interface_prefix: self.felix.interface_prefix.clone(),
            refused: None,
        };
        let node_loop = NodeLoop {
            ruleset,
            node: self.config.node.clone(),
            address: self.address,
            mtu,
            kernel: Arc::clone(&self.doors.kernel),
            cluster: self.cluster.clone(),
            blocks: self.feeds.blocks.subscribe(),
            endpoints: self.feeds.endpoints.clone(),
            paths,
            converged: self.feeds.converged.subscribe(),
            tunnel_address: tunnel.address,
            gateways: self.gateways.subscribe(),
            tunnel_wanted: tunnel.wanted,
            pod_mtu,
            publication,
            report: self.feeds.report.clone(),
            metrics: self.feeds.metrics.clone(),
            beats,
            problems: self.feeds.problems.clone(),
        };
        self.tasks.spawn(node_loop.run());
        known
    }

    fn spawn_pod_objects(&mut self) -> PodObjects {
        let objects = PodObjects {
            store: Arc::clone(&self.doors.store),
            cluster: self.cluster.clone(),
            pods: self.feeds.pods.subscribe(),
            required: self.config.datastore.is_kubernetes(),
            late: Arc::default(),
            turn: Arc::default(),
        };
        let (endpoints, problems) = (self.feeds.endpoints.clone(), self.feeds.problems.clone());
        self.tasks.spawn(keep_annotated(objects.clone(), endpoints, problems));
        objects
    }

    fn pods(
        &self,
        objects: PodObjects,
        addresses: Addresses,
        mtu: watch::Receiver<Result<u32, String>>,
    ) -> Arc<Pods> {
        Arc::new(Pods {
            node: self.config.node.clone(),
            interface_prefix: self.felix.interface_prefix.clone(),
            mtu,
            addresses,
            pod_cidrs: PodCidrs {
                own: self.own_cidrs.clone(),
                report: self.feeds.report.subscribe(),
                last: Mutex::default(),
            },
            endpoints: self.feeds.endpoints.clone(),
            kernel: Arc::clone(&self.doors.kernel),
            problems: self.feeds.problems.clone(),
            objects,
            wall_clock: self.doors.wall_clock,
        })
    }

    fn spawn_opening(&mut self, opening: Opening) {
        let pool = self.config.default_pool.cidr.is_some().then(|| self.cluster.clone());
        self.tasks.spawn(opening.run(pool));
    }

    fn spawn_speaker(&mut self, kernel: &Snapshot, paths: Paths, stopped: mpsc::Receiver<Stop>) {
        if self.config.backend == Backend::None {
            self.feeds.converged.send_replace(true);
            self.tasks.spawn(answer_stop(stopped));
            return;
        }
        let (ask, questions) = mpsc::channel(QUESTIONS);
        self.feeds.questions.send_replace(Some(ask));
        let (passwords_wanted, wanted) = watch::channel(BTreeSet::new());
        let (sender, passwords) = watch::channel(Passwords::new());
        let keeper = Keeper {
            store: Arc::clone(&self.doors.store),
            namespace: self.config.namespace.clone(),
            wanted,
            passwords: sender,
        };
        self.tasks.spawn(keeper.run());
        let route_loop = RouteLoop {
            node: self.config.node.clone(),
            address: self.address.address(),
            router_id: self.config.router_id.of(&self.config.node, self.address.address()),
            own_asn: self.config.asn,
            forwarding_preserved: kernel.ours().next().is_some(),
            cluster: self.cluster.clone(),
            blocks: self.feeds.blocks.subscribe(),
            borrowed: self.feeds.borrowed.subscribe(),
            passwords,
            passwords_wanted,
            gateways: self.gateways.clone(),
            complaints: self.feeds.complaints.clone(),
            paths,
            converged: self.feeds.converged.clone(),
            questions,
            stopped,
            problems: self.feeds.problems.clone(),
        };
        self.tasks.spawn(route_loop.run(Arc::clone(&self.doors.transport), self.doors.seed));
    }

    /// The parts run for ever; one that ends or panics ends the agent, and whoever runs it starts it again.
    async fn join(mut self) {
        if let Some(Err(error)) = self.tasks.join_next().await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Without a speaker there is nobody to take leave of.
async fn answer_stop(mut stopped: mpsc::Receiver<Stop>) {
    while let Some(done) = stopped.recv().await {
        let _ = done.send(());
    }
    std::future::pending::<()>().await;
}
