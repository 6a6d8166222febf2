//! Answers CalicoNodeStatus: an object in which somebody asks this node about its speaker, peers and routes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use manx_datastore::{Datastore, Error};
use manx_ipam::rfc3339;
use manx_model::{
    AgentStatus, BgpStatus, Kind, LearnedFrom, NodeStatus, NodeStatusSpec, PeerStatus, RouteStatus,
    RoutesStatus, SpeakerStatus, StatusClass,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::status::{Peer, Status};
use crate::view::View;

/// Calico's word for what a route or speaker does not have.
const NONE: &str = "N/A";

/// Answers, for ever.
pub struct Answerer {
    /// Where the questions are.
    pub store: Arc<dyn Datastore>,
    /// The questions.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// The answers.
    pub view: View,
    /// The time of day.
    pub wall_clock: fn() -> SystemTime,
}

impl Answerer {
    /// Runs until nobody asks any more.
    pub async fn run(mut self) {
        let started = (self.wall_clock)();
        let mut answered: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            let questions = Arc::clone(&self.cluster.borrow_and_update().node_statuses);
            answered.retain(|name, _| questions.contains_key(name));
            let now = Instant::now();
            let mut next = None;
            for (name, question) in
                questions.iter().filter(|(_, question)| question.update_period_seconds > 0)
            {
                let period = Duration::from_secs(question.update_period_seconds.into());
                let due = answered.get(name).map_or(now, |at| *at + period);
                if due <= now {
                    if let Err(error) = self.answer(name, question, started).await {
                        tracing::debug!("CalicoNodeStatus {name}: {error}");
                    }
                    answered.insert(name.clone(), now);
                }
                let due = due.max(now + period);
                next = Some(next.map_or(due, |next: Instant| next.min(due)));
            }
            tokio::select! {
                changed = self.cluster.changed() => if changed.is_err() { return },
                () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            }
        }
    }

    async fn answer(&self, name: &str, question: &NodeStatusSpec, started: SystemTime) -> Result<(), Error> {
        let Some(mut object) = self.store.get(Kind::CalicoNodeStatus, name).await? else { return Ok(()) };
        let now = (self.wall_clock)();
        let status = describe(&self.view.status().await, question, started, now);
        let status = serde_json::to_value(status).expect("our types serialize to JSON");
        object.rest.insert("status".into(), status);
        self.store.update(object).await.map(drop)
    }
}

fn describe(status: &Status, question: &NodeStatusSpec, started: SystemTime, now: SystemTime) -> NodeStatus {
    let asked = |class| question.classes.contains(&class);
    let mut answer = NodeStatus { last_updated: rfc3339(now), ..NodeStatus::default() };
    if asked(StatusClass::Agent) {
        answer.agent = AgentStatus { ipv4: speaker(status, started), ipv6: SpeakerStatus::default() };
    }
    if asked(StatusClass::Bgp) {
        answer.bgp = peers(status, now);
    }
    if asked(StatusClass::Routes) {
        answer.routes = RoutesStatus { routes_v4: routes(status), routes_v6: Vec::new() };
    }
    answer
}

fn speaker(status: &Status, started: SystemTime) -> SpeakerStatus {
    let state = if status.bgp.is_some() && status.ready { "Ready" } else { "NotReady" };
    SpeakerStatus {
        state: state.to_owned(),
        version: format!("manx {}", status.version),
        router_id: status.bgp.as_ref().map(|bgp| bgp.router_id.clone()).unwrap_or_default(),
        last_boot_time: rfc3339(started),
        last_reconfiguration_time: String::new(),
    }
}

fn peers(status: &Status, now: SystemTime) -> BgpStatus {
    let all = status.bgp.iter().flat_map(|bgp| &bgp.peers);
    let peers: Vec<PeerStatus> = all.map(|one| peer(one, now)).collect();
    let established = peers.iter().filter(|peer| peer.state == "Established").count();
    BgpStatus {
        number_established_v4: established,
        number_not_established_v4: peers.len() - established,
        peers_v4: peers,
        ..BgpStatus::default()
    }
}

fn peer(peer: &Peer, now: SystemTime) -> PeerStatus {
    let kind = match peer.name.split('_').next() {
        Some("Mesh") => "NodeMesh",
        Some("Global") => "GlobalPeer",
        _ => "NodePeer",
    };
    let since = now.checked_sub(Duration::from_secs(peer.seconds)).unwrap_or(now);
    PeerStatus {
        peer_ip: peer.address.clone(),
        kind: kind.to_owned(),
        state: peer.state.clone(),
        since: rfc3339(since),
    }
}

/// What is in the kernel because of BGP, and the pods of this node.
fn routes(status: &Status) -> Vec<RouteStatus> {
    let learned = status.paths.iter().map(|path| {
        let word = |name: &str| {
            let mut words = path.route.split_whitespace().skip_while(|word| *word != name);
            words.nth(1).unwrap_or(NONE).to_owned()
        };
        let told = learned_from(status, &word("via"));
        let kind = if path.route.contains("dev") { "FIB" } else { "RIB" };
        route(kind, path.prefix.clone(), word("via"), word("dev"), told)
    });
    let local = status.pods.iter().flat_map(|pod| {
        pod.addresses.iter().filter(|address| !address.contains(':')).map(|address| {
            let told = LearnedFrom { source_type: "Kernel".to_owned(), peer_ip: None };
            route("FIB", format!("{address}/32"), NONE.to_owned(), pod.device.clone(), told)
        })
    });
    learned.chain(local).collect()
}

/// Who is at the next hop told it; else it came by way of some router.
fn learned_from(status: &Status, gateway: &str) -> LearnedFrom {
    let mut peers = status.bgp.iter().flat_map(|bgp| &bgp.peers);
    let peer = peers.find(|peer| peer.address == gateway);
    let in_mesh = peer.is_some_and(|peer| peer.name.starts_with("Mesh_"));
    let source_type = if in_mesh { "NodeMesh" } else { "BGPPeer" };
    LearnedFrom { source_type: source_type.to_owned(), peer_ip: peer.map(|peer| peer.address.clone()) }
}

fn route(
    kind: &str,
    destination: String,
    gateway: String,
    interface: String,
    told: LearnedFrom,
) -> RouteStatus {
    RouteStatus { kind: kind.to_owned(), destination, gateway, interface, learned_from: told }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Bgp, Pod, RemotePath};

    fn status() -> Status {
        let peer = |name: &str, state: &str| Peer {
            name: name.into(),
            address: "10.0.0.1".into(),
            asn: 64512,
            state: state.into(),
            seconds: 60,
            received: 1,
            stale: 0,
            sent: 1,
            last_error: None,
        };
        let bgp = Bgp {
            asn: 64512,
            router_id: "10.0.0.5".into(),
            listening: String::new(),
            converged: true,
            peers: vec![peer("Mesh_10_0_0_1", "Established"), peer("Global_10_0_0_1", "Active")],
        };
        let path = RemotePath {
            prefix: "10.1.0.0/26".into(),
            route: "via 10.0.0.9 dev tunl0 onlink".into(),
            reason: String::new(),
        };
        let pod = Pod { handle: "h".into(), device: "cali1".into(), addresses: vec!["10.1.1.2".into()] };
        Status { ready: true, bgp: Some(bgp), paths: vec![path], pods: vec![pod], ..Status::default() }
    }

    fn answer(classes: &[StatusClass]) -> NodeStatus {
        let question = NodeStatusSpec {
            node: "n1".parse().unwrap(),
            classes: classes.iter().copied().collect(),
            update_period_seconds: 10,
            rest: Default::default(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
        describe(&status(), &question, SystemTime::UNIX_EPOCH, now)
    }

    #[test]
    fn a_node_answers_what_it_is_asked_about_and_nothing_else() {
        let all = answer(&[StatusClass::Agent, StatusClass::Bgp, StatusClass::Routes]);
        assert_eq!((all.agent.ipv4.state.as_str(), all.agent.ipv4.router_id.as_str()), ("Ready", "10.0.0.5"));
        assert_eq!((all.bgp.number_established_v4, all.bgp.number_not_established_v4), (1, 1));
        let kinds: Vec<_> = all.bgp.peers_v4.iter().map(|peer| peer.kind.as_str()).collect();
        assert_eq!(kinds, ["NodeMesh", "GlobalPeer"]);
        assert_eq!(all.bgp.peers_v4[0].since, "1970-01-01T00:59:00Z");
        let routes: Vec<_> = all
            .routes
            .routes_v4
            .iter()
            .map(|r| (r.destination.as_str(), r.gateway.as_str(), r.interface.as_str()))
            .collect();
        assert_eq!(routes, [("10.1.0.0/26", "10.0.0.9", "tunl0"), ("10.1.1.2/32", "N/A", "cali1")]);
        let one = answer(&[StatusClass::Bgp]);
        assert_eq!((one.agent, one.routes), (AgentStatus::default(), RoutesStatus::default()));
    }
}
