//! The loop that owns Felix: it gathers facts and keeps the kernel as they say.
//!
//! Every turn is the same: read the kernel, compute what should be there, write the difference, of nftables and then of
//! routes. Start, repair and change are one code path. What wakes the loop says nothing about what to do.

mod ruleset;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use manx_felix::{
    AddressWish, Decision, Facts, Held, Kernel, KernelError, Lifecycle, Mtu, Operation, Path, Publish,
    RemoteNode, Snapshot, Sweep, TunnelFacts, desired, plan,
};
use manx_model::{InterfaceAddress, NodeName};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::coalesce::Coalesce;
use crate::endpoints::Endpoints;
use crate::latest;
use crate::metrics::Metrics;
use crate::no_ipip;
use crate::problems::Problems;
use crate::publish::Publication;
use crate::remote::Remote;
use crate::services;

use ruleset::Kept;
pub use ruleset::RulesetKeeper;

/// After a refusal of the kernel the next turn comes this late, if nothing wakes the loop before.
const RETRY: Duration = Duration::from_secs(1);
/// One turn may change the kernel so that the next decides differently (a tunnel that came up). More turns in a row
/// than this, with something to do in each, mean a fight with another program: the rest waits for [`RETRY`].
const TURNS: usize = 8;

/// What a node loop is made of.
pub struct NodeLoop {
    /// This node.
    pub node: NodeName,
    /// Its address.
    pub address: InterfaceAddress,
    /// How MTUs follow from the link's.
    pub mtu: Mtu,
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// Who keeps our table of nftables.
    pub ruleset: RulesetKeeper,
    /// The cluster, from the datastore.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// Our confirmed blocks.
    pub blocks: watch::Receiver<BTreeSet<IpNet>>,
    /// Our pods.
    pub endpoints: Endpoints,
    /// Best paths, as the route loop finds them.
    pub paths: Coalesce<IpNet, Option<IpAddr>>,
    /// Whether BGP has converged: what no peer has announced by now is gone.
    pub converged: watch::Receiver<bool>,
    /// The address that IPAM gave to our tunnel.
    pub tunnel_address: watch::Receiver<Option<Ipv4Addr>>,
    /// BGP peers that are reached over a gateway of their own.
    pub gateways: watch::Receiver<BTreeMap<IpAddr, IpAddr>>,
    /// Whether the tunnel needs an address.
    pub tunnel_wanted: watch::Sender<bool>,
    /// The MTU that new pods get.
    pub pod_mtu: watch::Sender<Result<u32, String>>,
    /// What the Node object shall say.
    pub publication: watch::Sender<Publication>,
    /// What the last turn saw and did.
    pub report: watch::Sender<NodeReport>,
    /// What is counted.
    pub metrics: Metrics,
    /// Somebody wants to know whether the loop still turns.
    pub beats: mpsc::Receiver<Beat>,
    /// What is wrong.
    pub problems: Problems,
}

/// Answered by a loop that has not come to a stop.
pub type Beat = oneshot::Sender<()>;

/// What the last turn of the loop saw and did; for `manx status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// How each remote prefix is reached, or why not.
    pub paths: BTreeMap<IpNet, Path>,
    /// The kernel has every route of ours, and our table of nftables, as they should be.
    pub in_desired_state: bool,
    /// A pool asks for the tunnel, and this kernel has none to give.
    pub no_ipip: bool,
    /// The address of our tunnel, while it takes packets.
    pub tunnel: Option<Ipv4Addr>,
    /// Routes that were written or deleted since the start.
    pub written: u64,
    /// Routes of ours in the kernel, as the last turn found them.
    pub routes: usize,
}

/// What one turn came to.
struct Turn {
    changed: bool,
    failed: bool,
    deadline: Option<Instant>,
}

/// What the loop remembers from turn to turn.
#[derive(Default)]
struct Known {
    lifecycle: Lifecycle,
    remote: Remote,
    /// The cluster of the last turn.
    cluster: Arc<Cluster>,
    /// The kernel said that it has no tunnel.
    no_ipip: bool,
}

/// Whether a turn has something new to go by. Pods, namespaces and more come and go, and every read of the kernel for
/// nothing takes as long as attaching a pod.
fn concerns_routes(before: &Cluster, after: &Cluster) -> bool {
    let same = Arc::ptr_eq(&before.nodes, &after.nodes)
        && (&before.pools, &before.bgp) == (&after.pools, &after.bgp)
        && (&before.felix, &before.felix_of_node) == (&after.felix, &after.felix_of_node)
        && (before.in_sync, &before.lost) == (after.in_sync, &after.lost);
    !same
}

impl NodeLoop {
    /// Runs until the senders are gone.
    pub async fn run(mut self) {
        let mut known = Known::default();
        loop {
            let deadline = self.settle(&mut known).await;
            if !self.wait(deadline, &known.cluster).await {
                return;
            }
        }
    }

    /// Turns until there is nothing to do. Returns when to come back unasked.
    async fn settle(&mut self, known: &mut Known) -> Option<Instant> {
        for _ in 0..TURNS {
            let turn = match self.kernel.read().await {
                Ok(snapshot) => self.turn(known, &snapshot).await,
                Err(error) => {
                    self.problems.set("kernel", [error.to_string()]);
                    Turn { changed: false, failed: true, deadline: None }
                }
            };
            if turn.failed {
                return Some(Instant::now() + RETRY);
            }
            if !turn.changed {
                return turn.deadline;
            }
        }
        Some(Instant::now() + RETRY)
    }

    async fn turn(&mut self, known: &mut Known, snapshot: &Snapshot) -> Turn {
        let Known { lifecycle, remote, cluster, no_ipip } = known;
        // In this order: the route loop sends the paths before it says that these are all, so whoever has heard that
        // they are all has them all.
        let converged = *self.converged.borrow_and_update();
        remote.take(self.paths.take());
        cluster.clone_from(&self.cluster.borrow_and_update());
        // Before routes: a node is let in before it can be led here, and a tunnel is guarded before it is up.
        let ruleset = self.keep_ruleset(cluster).await;
        let tunnel_address = *self.tunnel_address.borrow_and_update();
        drop(self.pod_mtu.send_replace(self.mtu.pod(snapshot, self.address.address())));
        let tunnel = self.tunnel(lifecycle, cluster, tunnel_address, snapshot);
        let paths = if converged { remote.next_hops().clone() } else { remote.beside(snapshot.tunneled()) };
        let facts = self.facts(cluster, paths, tunnel_address, snapshot);
        let wanted = desired(&facts, snapshot);
        let sweep = Sweep { local: cluster.in_sync, remote: cluster.in_sync && converged };
        let routes = plan(&wanted, snapshot, sweep);
        let written = routes.len();
        let operations: Vec<Operation> = tunnel.operation.clone().into_iter().chain(routes).collect();
        let began = Instant::now();
        let answers = self.kernel.apply(operations.clone()).await;
        if !operations.is_empty() {
            self.metrics.applied(began.elapsed(), answers.iter().filter(|answer| answer.is_err()).count());
        }
        let (of_tunnel, of_routes) = answers.split_at(usize::from(tunnel.operation.is_some()));
        match of_tunnel {
            [Err(error)] => {
                *no_ipip = no_ipip::is_why(error);
                lifecycle.failed(Instant::now().into_std(), error.clone());
            }
            _ => *no_ipip &= tunnel.problem.is_some(),
        }
        let failures: Vec<KernelError> = of_routes.iter().filter_map(|answer| answer.clone().err()).collect();
        self.complain(&tunnel, &wanted, &failures);
        self.report.send_modify(|report| {
            report.in_desired_state =
                ruleset && failures.is_empty() && wanted.held.values().all(Held::agrees);
            report.no_ipip = *no_ipip;
            report.paths = wanted.paths;
            report.tunnel = self.publication.borrow().tunnel;
            report.written += written as u64;
            report.routes = snapshot.ours().count();
        });
        Turn {
            changed: !operations.is_empty(),
            failed: answers.iter().any(Result::is_err),
            deadline: tunnel.deadline.map(Instant::from_std).into_iter().chain(self.ruleset.retry()).min(),
        }
    }

    /// Whether our table is as it should be.
    async fn keep_ruleset(&mut self, cluster: &Cluster) -> bool {
        let kept = self.ruleset.keep(&*self.kernel, cluster, self.address).await;
        match &kept {
            Kept::Right => self.problems.set("nftables", None),
            Kept::Refused(error) => self.problems.set("nftables", [error.to_string()]),
            Kept::Waiting => {}
        }
        matches!(kept, Kept::Right)
    }

    fn facts(
        &mut self,
        cluster: &Cluster,
        mut remote: BTreeMap<IpNet, IpAddr>,
        tunnel: Option<Ipv4Addr>,
        snapshot: &Snapshot,
    ) -> Facts {
        // Addresses of services are led to nodes by routers, and on a node by its proxy.
        let services = services::ranges(&cluster.bgp);
        if !services.is_empty() {
            remote.retain(|prefix, _| !services.iter().any(|range| range.contains(prefix)));
        }
        let others = cluster.nodes.values().filter(|node| node.name != self.node);
        let by_address = others.filter_map(|node| {
            let address = node.address?.address();
            Some((address, RemoteNode { name: node.name.clone(), tunnel: node.tunnel_address }))
        });
        Facts {
            address: self.address,
            complete: cluster.in_sync,
            pools: cluster.pools.to_vec(),
            nodes: by_address.collect(),
            blocks: self.blocks.borrow_and_update().clone(),
            endpoints: self.endpoints.routable(snapshot),
            remote,
            tunnel,
            gateways: self.gateways.borrow_and_update().clone(),
        }
    }

    /// Asks the tunnel's machine, and passes on what it wishes of IPAM and of the Node object.
    fn tunnel(
        &self,
        lifecycle: &mut Lifecycle,
        cluster: &Cluster,
        assigned: Option<Ipv4Addr>,
        snapshot: &Snapshot,
    ) -> Decision {
        let facts = TunnelFacts {
            pools: &cluster.pools,
            in_sync: cluster.in_sync && cluster.lost.is_none(),
            node: self.address.address(),
            assigned,
            mtu: self.mtu,
        };
        let decision = lifecycle.step(Instant::now().into_std(), &facts, snapshot);
        match decision.address {
            AddressWish::Keep => {}
            AddressWish::Assign => latest::set(&self.tunnel_wanted, true),
            AddressWish::Release => latest::set(&self.tunnel_wanted, false),
        }
        match decision.publish {
            Publish::Keep => {}
            Publish::Set(address) => self.publish(Some(address)),
            Publish::Clear => self.publish(None),
        }
        decision
    }

    fn publish(&self, tunnel: Option<Ipv4Addr>) {
        let publish =
            |publication: &mut Publication| std::mem::replace(&mut publication.tunnel, tunnel) != tunnel;
        self.publication.send_if_modified(publish);
    }

    fn complain(&self, tunnel: &Decision, wanted: &manx_felix::Desired, failures: &[KernelError]) {
        self.problems.set("tunnel", tunnel.problem.clone());
        self.problems.set("kernel", failures.iter().map(ToString::to_string));
        let held = wanted.held.iter().filter(|(_, held)| !held.agrees());
        let held = held.map(|(key, held)| {
            format!(
                "route {key} is held back: another program (protocol {}) has one",
                held.foreign.protocol.0
            )
        });
        let unresolved = wanted.paths.iter().filter_map(|(prefix, path)| match path {
            Path::Unresolved { reason } => Some(format!("{prefix}: {reason}")),
            _ => None,
        });
        let peers = wanted.unreachable.iter().map(|(peer, reason)| format!("BGP peer {peer}: {reason}"));
        self.problems.set("routes", held.chain(unresolved).chain(peers));
        let missing = wanted.missing.iter().map(|(address, reason)| format!("pod {address}: {reason}"));
        self.problems.set("pods", missing);
    }

    /// Waits for anything that a turn depends on; `false` when the agent is stopping. `seen` is the cluster of the last turn.
    async fn wait(&mut self, deadline: Option<Instant>, seen: &Cluster) -> bool {
        let alarm = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(alarm);
        loop {
            tokio::select! {
                biased;
                Some(beat) = self.beats.recv() => drop(beat.send(())),
                changed = self.cluster.wait_for(|cluster| concerns_routes(seen, cluster)) => return changed.is_ok(),
                changed = self.blocks.changed() => return changed.is_ok(),
                changed = self.tunnel_address.changed() => return changed.is_ok(),
                changed = self.gateways.changed() => return changed.is_ok(),
                changed = self.converged.changed() => return changed.is_ok(),
                () = self.paths.ready() => return true,
                () = self.kernel.changed() => return true,
                () = &mut alarm => return true,
            }
        }
    }
}
