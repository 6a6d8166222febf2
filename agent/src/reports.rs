//! What is wrong with objects, told where whoever wrote them looks: in Kubernetes, an Event on the object.
//!
//! Every agent sees the same objects, so one of them speaks: the one that leads. A complaint is told when it appears and
//! again when it has lasted for hours (Events are forgotten), and never more often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manx_datastore::{Datastore, Error, Report};
use manx_model::{Complaint, Object};
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
            let current = complaints(&cluster, &self.of_bgp.borrow_and_update());
            told.retain(|said, _| current.contains(said));
            let mut next = now + REPEAT;
            for said in current.into_iter().filter(|_| leads) {
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

fn complaints(cluster: &Cluster, of_bgp: &[Complaint]) -> Vec<Said> {
    let invalid = cluster.invalid.iter().cloned().map(|invalid| (Complaint::from(invalid), INVALID));
    let in_vain =
        cluster.without_effect.iter().chain(of_bgp).cloned().map(|complaint| (complaint, NOT_SUPPORTED));
    invalid.chain(in_vain).collect()
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
    use manx_model::Kind;
    use serde_json::json;

    struct Fixture {
        memory: Memory,
        store: Faulty<Memory>,
        leads: watch::Sender<bool>,
        cluster: watch::Sender<Arc<Cluster>>,
    }

    async fn fixture(leads: bool) -> Fixture {
        let memory = Memory::new();
        let store = Faulty::new(memory.clone(), 1, Faults::default());
        let pool = memory.create(Object::new(Kind::IPPool, "p", &json!({"cidr": "x"}))).await.unwrap();
        let invalid = vec![pool.invalid("spec.cidr", "is no CIDR")];
        let (cluster, receiver) = watch::channel(Arc::new(Cluster { invalid, ..Cluster::default() }));
        let (leads, leading) = watch::channel(leads);
        let (_, of_bgp) = watch::channel(Vec::new());
        let door = Arc::new(store.clone());
        tokio::spawn(Reporter { store: door, cluster: receiver, of_bgp, leads: leading }.run());
        Fixture { memory, store, leads, cluster }
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
