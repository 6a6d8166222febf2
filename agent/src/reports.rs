//! What is wrong with objects, told where whoever wrote them looks: in Kubernetes, an Event on the object.
//!
//! Every agent sees the same objects, so one of them speaks: the one that leads. What the leader may not see, since it
//! concerns other nodes only, is told by the first of these. A complaint is told when it appears and again when it has
//! lasted for most of an hour (Events are forgotten), and never more often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manx_datastore::{Datastore, Error, Report};
use manx_model::{Complaint, Kind, NodeName, Object, PeeringNodes};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;

/// Events are forgotten after an hour by default.
const REPEAT: Duration = Duration::from_secs(45 * 60);
/// After a failed call the next try waits this long.
const RETRY: Duration = Duration::from_secs(30);

/// Why, for programs that read Events.
const INVALID: &str = "Invalid";
const NOT_SUPPORTED: &str = "NotSupported";

/// Tells authors what is wrong with their objects.
pub struct Reporter {
    /// This node.
    pub node: NodeName,
    /// Where they are told.
    pub store: Arc<dyn Datastore>,
    /// What is wrong.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// What the objects about BGP ask for in vain, or wrongly, as far as this node is concerned.
    pub of_bgp: watch::Receiver<Vec<Complaint>>,
    /// Whether this node is the one that speaks.
    pub leads: watch::Receiver<bool>,
}

/// One thing to be said.
type Said = (Complaint, &'static str);

impl Reporter {
    /// Tells what is wrong, for ever.
    pub async fn run(mut self) {
        let mut told: BTreeMap<Said, Instant> = BTreeMap::new();
        loop {
            let leads = *self.leads.borrow_and_update();
            let cluster = Arc::clone(&self.cluster.borrow_and_update());
            let now = Instant::now();
            let of_bgp = self.of_bgp.borrow_and_update().clone();
            let mut current = complaints(&cluster);
            current.retain(|(complaint, _)| leads || is_of_one_node(complaint.kind));
            let of_bgp = of_bgp.into_iter().filter(|said| leads || is_ours(&self.node, &cluster, said));
            current.extend(of_bgp.map(|complaint| (complaint, NOT_SUPPORTED)));
            told.retain(|said, _| current.contains(said));
            let mut next = now + REPEAT;
            for said in current {
                let due = told.get(&said).map_or(now, |at| *at + REPEAT);
                if due > now {
                    next = next.min(due);
                    continue;
                }
                match self.tell(&said).await {
                    Ok(()) => drop(told.insert(said, now)),
                    Err(error) => {
                        tracing::debug!("{}: not told: {error}", said.0);
                        next = next.min(now + RETRY);
                    }
                }
            }
            tokio::select! {
                changed = self.cluster.changed() => if changed.is_err() { return },
                Ok(()) = self.of_bgp.changed() => {}
                changed = self.leads.changed() => if changed.is_err() { return },
                () = sleep_until(next) => {}
            }
        }
    }

    async fn tell(&self, (complaint, reason): &Said) -> Result<(), Error> {
        let object = match self.store.get(complaint.kind, &complaint.key).await {
            Ok(Some(object)) => object,
            // Its author has taken it away meanwhile.
            Ok(None) => return Ok(()),
            Err(Error::Invalid(_)) => by_key(complaint),
            Err(error) => return Err(error),
        };
        let message = complaint.message.clone();
        self.store.report(&object, &Report { warning: true, reason: (*reason).to_owned(), message }).await
    }
}

fn complaints(cluster: &Cluster) -> Vec<Said> {
    let invalid = cluster.invalid.iter().cloned().map(|invalid| (Complaint::from(invalid), INVALID));
    let in_vain = cluster.without_effect.iter().cloned().map(|complaint| (complaint, NOT_SUPPORTED));
    invalid.chain(in_vain).collect()
}

/// Only the node that such an object belongs to sees it.
fn is_of_one_node(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::CalicoNodeStatus)
}

/// Whether this node tells what it has noticed about an object of BGP, though it does not lead: it is the node of that
/// object, or the first of its nodes.
fn is_ours(node: &NodeName, cluster: &Cluster, complaint: &Complaint) -> bool {
    match complaint.kind {
        // Somebody else has our address.
        Kind::Node => true,
        Kind::BGPConfiguration => complaint.key.strip_prefix("node.") == Some(node.as_str()),
        Kind::BGPPeer => match cluster.peers.get(&complaint.key).map(|peer| &peer.nodes) {
            Some(PeeringNodes::One(only)) => only == node,
            Some(PeeringNodes::Selected(selector)) => {
                let mut nodes = cluster.nodes.values().filter(|one| selector.matches(&one.labels));
                nodes.next().is_some_and(|first| first.name == *node)
            }
            Some(PeeringNodes::All) | None => false,
        },
        _ => false,
    }
}

/// The object, where nothing but its key can be read.
fn by_key(complaint: &Complaint) -> Object {
    match complaint.key.split_once('/') {
        Some((namespace, name)) => Object::new_in(complaint.kind, namespace, name, &Value::Null),
        None => Object::new(complaint.kind, &complaint.key, &Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_datastore::Memory;
    use manx_datastore::testing::{Faults, Faulty};
    use manx_model::Node;
    use serde_json::json;

    struct Fixture {
        memory: Memory,
        store: Faulty<Memory>,
        leads: watch::Sender<bool>,
        cluster: watch::Sender<Arc<Cluster>>,
        complaints: watch::Sender<Vec<Complaint>>,
    }

    async fn fixture(leads: bool) -> Fixture {
        let memory = Memory::new();
        let store = Faulty::new(memory.clone(), 1, Faults::default());
        let pool = memory.create(Object::new(Kind::IPPool, "p", &json!({"cidr": "x"}))).await.unwrap();
        let invalid = vec![pool.invalid("spec.cidr", "is no CIDR")];
        let (cluster, receiver) = watch::channel(Arc::new(Cluster { invalid, ..Cluster::default() }));
        let (leads, leading) = watch::channel(leads);
        let (complaints, of_bgp) = watch::channel(Vec::new());
        let door = Arc::new(store.clone());
        let node = "n2".parse().unwrap();
        tokio::spawn(Reporter { node, store: door, cluster: receiver, of_bgp, leads: leading }.run());
        Fixture { memory, store, leads, cluster, complaints }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_wrote_an_object_is_told_on_it_what_is_wrong_once_and_again_while_it_lasts() {
        let fixture = fixture(true).await;
        tokio::time::sleep(REPEAT / 2).await;
        let [(object, report)] = &fixture.memory.reports()[..] else {
            panic!("{:?}", fixture.memory.reports())
        };
        assert!(object.key() == "p" && object.metadata.uid.is_some());
        assert_eq!((report.reason.as_str(), report.message.as_str()), ("Invalid", "spec.cidr: is no CIDR"));
        tokio::time::sleep(REPEAT).await;
        assert_eq!(fixture.memory.reports().len(), 2);
        fixture.cluster.send_replace(Arc::default());
        tokio::time::sleep(REPEAT * 2).await;
        assert_eq!(fixture.memory.reports().len(), 2, "it was mended");
    }

    #[tokio::test(start_paused = true)]
    async fn what_concerns_no_leader_is_told_by_the_first_node_that_it_concerns() {
        let fixture = fixture(false).await;
        let peer = |name: &str, spec: serde_json::Value| Object::new(Kind::BGPPeer, name, &spec);
        let objects = [
            peer("ours", json!({"node": "n2", "peerIP": "10.0.0.1", "asNumber": 1})),
            peer("first", json!({"nodeSelector": "rack == '2'", "peerIP": "10.0.0.1", "asNumber": 1})),
            peer("second", json!({"nodeSelector": "all()", "peerIP": "10.0.0.1", "asNumber": 1})),
            peer("everybodys", json!({"peerIP": "10.0.0.1", "asNumber": 1})),
        ];
        let node = |name: &str, rack: &str| {
            let mut node = Node::new(name.parse().unwrap());
            node.labels.insert("rack".into(), rack.into());
            (name.to_owned(), Arc::new(node))
        };
        let mut cluster =
            Cluster { nodes: Arc::new([node("n1", "1"), node("n2", "2")].into()), ..Cluster::default() };
        let mut complaints = Vec::new();
        for object in objects {
            let read = manx_model::BgpPeer::from_object(&object).unwrap();
            Arc::make_mut(&mut cluster.peers).insert(object.key(), Arc::new(read));
            complaints.push(Complaint::new(Kind::BGPPeer, object.key(), "is wrong"));
            fixture.memory.create(object).await.unwrap();
        }
        fixture.cluster.send_replace(Arc::new(cluster));
        fixture.complaints.send_replace(complaints);
        tokio::time::sleep(REPEAT / 2).await;
        let told: Vec<String> = fixture.memory.reports().iter().map(|(object, _)| object.key()).collect();
        assert_eq!(told, ["ours", "first"]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_node_that_leads_speaks_and_it_does_when_the_datastore_is_back() {
        let fixture = fixture(false).await;
        tokio::time::sleep(REPEAT).await;
        assert_eq!(fixture.memory.reports().len(), 0);
        fixture.store.down();
        fixture.leads.send_replace(true);
        tokio::time::sleep(RETRY * 3).await;
        fixture.store.up();
        tokio::time::sleep(RETRY * 2).await;
        assert_eq!(fixture.memory.reports().len(), 1);
    }
}
