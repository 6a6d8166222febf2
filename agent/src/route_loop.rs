//! The loop that owns BGP: the cluster's objects become its configuration, our blocks what it announces, and its best
//! paths go to the node loop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use manx_bgp::session::Password;
use manx_bgp::speaker::{Change, PeerStatus, SpeakerConfig};
use manx_bgp_driver::{Bgp, ListenerStatus, Shutdown, Transport};
use manx_model::{Asn, Complaint, Kind, NodeName};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::Cluster;
use crate::coalesce::Coalesce;
use crate::latest;
use crate::passwords::{Passwords, SecretRef};
use crate::peering::{Facts, Peer, Peering, peering};
use crate::problems::Problems;
use crate::services;
use crate::status;

/// We offer to call a silent peer dead after this long (RFC 4271 section 10 suggests 90 s).
const HOLD_TIME: Duration = Duration::from_secs(90);
/// We ask peers to keep our routes this long while we restart (Calico's default).
const RESTART_TIME: Duration = Duration::from_secs(120);

/// Somebody who wants to know how the speaker is.
pub type Question = oneshot::Sender<status::Bgp>;
/// Somebody who wants the speaker to end, and to be told when it has.
pub type Stop = oneshot::Sender<()>;

/// What a route loop is made of.
pub struct RouteLoop {
    /// This node.
    pub node: NodeName,
    /// Its address: the source of its sessions.
    pub address: Ipv4Addr,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its AS from the environment.
    pub own_asn: Option<Asn>,
    /// The kernel still has the routes of the last agent.
    pub forwarding_preserved: bool,
    /// The cluster, from the datastore; in sync.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// The blocks that we announce.
    pub blocks: watch::Receiver<BTreeSet<IpNet>>,
    /// The addresses of our pods in blocks of others: each is announced by itself.
    pub borrowed: watch::Receiver<BTreeSet<IpNet>>,
    /// The passwords of our peers, as far as they can be read.
    pub passwords: watch::Receiver<Passwords>,
    /// Which passwords we need.
    pub passwords_wanted: watch::Sender<BTreeSet<SecretRef>>,
    /// Peers that are reached over a gateway of their own, for the node loop.
    pub gateways: watch::Sender<BTreeMap<IpAddr, IpAddr>>,
    /// What the objects about BGP ask for in vain, or wrongly.
    pub complaints: watch::Sender<Vec<Complaint>>,
    /// Best paths, for the node loop.
    pub paths: Coalesce<IpNet, Option<IpAddr>>,
    /// What no peer has announced by now is gone.
    pub converged: watch::Sender<bool>,
    /// Questions of `manx status`.
    pub questions: mpsc::Receiver<Question>,
    /// The end.
    pub stopped: mpsc::Receiver<Stop>,
    /// What is wrong.
    pub problems: Problems,
}

impl RouteLoop {
    /// Runs until it is stopped; then rests, so that nobody takes its end for a failure.
    pub async fn run(mut self, transport: Arc<dyn Transport>, seed: u64) {
        let mut seen = Arc::clone(&self.cluster.borrow_and_update());
        let mut current = self.peering(&seen);
        let listen = SocketAddr::new(self.address.into(), current.listen_port);
        self.complain(&current, listen.port());
        let mut bgp = Bgp::new(transport, self.speaker(&current), Some(listen), seed);
        bgp.originate(self.originations(&seen));
        loop {
            tokio::select! {
                biased;
                Some(done) = self.stopped.recv() => {
                    bgp.shutdown(Shutdown::Restart).await;
                    // Whoever asked may have gone.
                    let _ = done.send(());
                    return std::future::pending().await;
                }
                Some(question) = self.questions.recv() => {
                    let _ = question.send(describe(&bgp.status()));
                }
                Ok(()) = self.cluster.changed() => {
                    let cluster = Arc::clone(&self.cluster.borrow_and_update());
                    // A kind that is needed since just now is not known yet: what it will say must not count as absent.
                    if !cluster.in_sync {
                        continue;
                    }
                    let before = std::mem::replace(&mut seen, cluster);
                    if !same_for_peering(&before, &seen) {
                        let wanted = self.peering(&seen);
                        self.complain(&wanted, listen.port());
                        if wanted != current {
                            bgp.configure(self.speaker(&wanted));
                            current = wanted;
                        }
                    }
                    if !same_for_services(&before, &seen) {
                        bgp.originate(self.originations(&seen));
                    }
                }
                Ok(()) = self.passwords.changed() => {
                    bgp.configure(self.speaker(&current));
                    self.complain(&current, listen.port());
                }
                Ok(()) = self.blocks.changed() => {
                    bgp.configure(self.speaker(&current));
                    bgp.originate(self.originations(&seen));
                }
                Ok(()) = self.borrowed.changed() => bgp.originate(self.originations(&seen)),
                changes = bgp.next() => self.pass_on(changes),
            }
        }
    }

    fn peering(&self, cluster: &Cluster) -> Peering {
        let peering = peering(&Facts {
            node: &self.node,
            address: self.address,
            own_asn: self.own_asn,
            nodes: &cluster.nodes,
            configurations: &cluster.bgp_configurations,
            peers: &cluster.peers,
            filters: &cluster.filters,
            pools: &cluster.pools,
        });
        let passwords = peering.peers.values().filter_map(|peer| peer.password.clone());
        latest::set(&self.passwords_wanted, passwords.collect());
        let gateways = peering.peers.iter().filter_map(|(peer, it)| Some((*peer, it.gateway?)));
        latest::set(&self.gateways, gateways.collect());
        peering
    }

    /// Tells what is wrong with the objects, and what they ask for in vain.
    fn complain(&mut self, peering: &Peering, listening: u16) {
        let missing = missing_passwords(peering, &self.passwords.borrow_and_update());
        let complaints: Vec<Complaint> = peering.complaints.iter().cloned().chain(missing).collect();
        let port = peering.listen_port;
        let late = (listening != port).then(|| {
            format!("BGPConfiguration default: listenPort {port} waits for a restart of this agent, which is on {listening}")
        });
        self.problems.set("bgp", complaints.iter().map(ToString::to_string).chain(late));
        latest::set(&self.complaints, complaints);
    }

    /// What this node announces: its blocks, what it borrowed, and services.
    fn originations(&mut self, cluster: &Cluster) -> BTreeSet<IpNet> {
        let own = cluster.nodes.get(self.node.as_str());
        let services = services::announced(&services::Facts {
            node: &self.node,
            excluded: own.is_some_and(|own| own.is_excluded_from_load_balancers()),
            bgp: &cluster.bgp,
            services: &cluster.services,
            slices: &cluster.endpoint_slices,
        });
        // Of other families nothing is spoken yet.
        let services = services.into_keys().filter(|prefix| prefix.addr().is_ipv4());
        let blocks = self.blocks.borrow_and_update().clone();
        let borrowed = self.borrowed.borrow_and_update().clone();
        blocks.into_iter().chain(borrowed).chain(services).collect()
    }

    fn speaker(&mut self, peering: &Peering) -> SpeakerConfig {
        let passwords = self.passwords.borrow_and_update();
        let peer = |(address, peer): (&IpAddr, &Peer)| {
            let mut config = peer.config.clone();
            if let Some(secret) = &peer.password {
                let unread = || Password::Missing(format!("Secret {} is not read yet", secret.name));
                config.guard.password = passwords.get(secret).cloned().unwrap_or_else(unread);
            }
            (*address, config)
        };
        let mut export = peering.export.clone();
        export.blocks = self.blocks.borrow().clone();
        SpeakerConfig {
            hold_time: HOLD_TIME,
            restart_time: RESTART_TIME,
            peers: peering.peers.iter().map(peer).collect(),
            forwarding_preserved: self.forwarding_preserved,
            cluster_id: peering.cluster_id,
            export,
            ..SpeakerConfig::new(peering.asn, self.router_id)
        }
    }

    fn pass_on(&self, changes: Vec<Change>) {
        let mut best = BTreeMap::new();
        let mut converged = false;
        for change in changes {
            match change {
                Change::Best { prefix, path } => drop(best.insert(prefix, path.map(|path| path.next_hop))),
                Change::Converged => converged = true,
                Change::Peers => {}
            }
        }
        // Paths first: the node loop must not sweep before it knows them.
        self.paths.send(best);
        if converged {
            tracing::info!("BGP has converged");
            self.converged.send_replace(true);
        }
    }
}

/// Whether two clusters have the same peers: a pod that comes is nothing to a thousand of them.
fn same_for_peering(before: &Cluster, after: &Cluster) -> bool {
    Arc::ptr_eq(&before.nodes, &after.nodes)
        && Arc::ptr_eq(&before.bgp_configurations, &after.bgp_configurations)
        && Arc::ptr_eq(&before.peers, &after.peers)
        && Arc::ptr_eq(&before.filters, &after.filters)
        && Arc::ptr_eq(&before.pools, &after.pools)
}

/// Whether two clusters announce the same addresses of services.
fn same_for_services(before: &Cluster, after: &Cluster) -> bool {
    Arc::ptr_eq(&before.nodes, &after.nodes)
        && Arc::ptr_eq(&before.bgp_configurations, &after.bgp_configurations)
        && Arc::ptr_eq(&before.services, &after.services)
        && Arc::ptr_eq(&before.endpoint_slices, &after.endpoint_slices)
}

/// One for each object that asks for a password which cannot be had.
fn missing_passwords(peering: &Peering, passwords: &Passwords) -> BTreeSet<Complaint> {
    let missing = peering.peers.values().filter_map(|peer| {
        let Password::Missing(reason) = passwords.get(peer.password.as_ref()?)? else { return None };
        let reason = format!("{reason}; the sessions that need it are down");
        Some(match &peer.object {
            Some(name) => Complaint::new(Kind::BGPPeer, name, format!("spec.password: {reason}")),
            None => {
                Complaint::new(Kind::BGPConfiguration, "default", format!("spec.nodeMeshPassword: {reason}"))
            }
        })
    });
    missing.collect()
}

fn describe(status: &manx_bgp_driver::Status) -> status::Bgp {
    status::Bgp {
        asn: status.speaker.asn.get(),
        router_id: status.speaker.router_id.to_string(),
        listening: listening(&status.listener),
        converged: status.speaker.converged,
        peers: status.speaker.peers.iter().map(describe_peer).collect(),
    }
}

fn listening(listener: &ListenerStatus) -> String {
    match (&listener.address, &listener.error) {
        (_, Some(error)) => format!("NOT listening: {error}"),
        (Some(address), None) => format!("listening on {address}"),
        (None, None) => "not listening".to_owned(),
    }
}

fn describe_peer(peer: &PeerStatus) -> status::Peer {
    status::Peer {
        name: peer.name.clone(),
        address: peer.address.to_string(),
        asn: peer.asn.get(),
        state: peer.state.to_string(),
        seconds: peer.state_for.as_secs(),
        received: peer.received,
        stale: peer.stale,
        sent: peer.sent,
        last_error: peer.last_error.clone(),
    }
}
