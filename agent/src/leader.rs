//! Who does what is to be done once for the whole cluster: the holder of a Lease (coordination.k8s.io/v1).
//!
//! What a leader does (collecting addresses that leaked, saying what is wrong with objects) is never urgent, and each
//! of its writes is a compare-and-swap that two leaders at once could do without harm. So the Lease is long, and a thousand
//! nodes that look at it every few minutes are no load.
//!
//! What the leader has counted of policies it writes beside, for all others to read when they look.
//!
//! No clock of another machine is believed: a Lease has run out when this node has seen the same version of it for as
//! long as it lasts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use manx_datastore::{Datastore, Error};
use manx_model::{Kind, NodeName, Object};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::latest;
use crate::policies::{NOT_ENFORCED, Unenforced};

/// The Lease, in the namespace of the cluster's own parts.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "manx-leader";

/// How long a leader is one after its last word.
const LASTS: Duration = Duration::from_secs(300);
/// How often a leader says that it still is.
const RENEW: Duration = Duration::from_secs(100);
/// After a failed call the next try waits this long.
const RETRY: Duration = Duration::from_secs(10);

/// Spec of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaseSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder_identity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_duration_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acquire_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renew_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_transitions: Option<u64>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// A node that would lead.
pub struct Candidate {
    /// Its name, under which it holds the Lease.
    pub node: NodeName,
    /// Where the Lease is.
    pub store: Arc<dyn Datastore>,
    /// Told whether this node leads.
    pub leads: watch::Sender<bool>,
    /// The policies that are not enforced: known to the leader, told to the others.
    pub policies: watch::Sender<Option<Unenforced>>,
    /// The time of day, for people who read the Lease.
    pub wall_clock: fn() -> SystemTime,
    /// Spreads the looks of many nodes: 0 to 999.
    pub spread: u32,
    /// The version that was seen, and since when.
    seen: Option<(String, Instant)>,
    /// When this node last said that it leads.
    renewed: Option<Instant>,
}

/// What one look at the Lease came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Leads,
    Follows,
    /// The datastore did not answer, or somebody wrote first.
    Unknown,
}

impl Candidate {
    /// A node that does not lead yet.
    pub fn new(
        node: NodeName,
        store: Arc<dyn Datastore>,
        leads: watch::Sender<bool>,
        policies: watch::Sender<Option<Unenforced>>,
        wall_clock: fn() -> SystemTime,
        seed: u64,
    ) -> Self {
        let spread = u32::try_from(seed % 1000).unwrap_or_default();
        Self { node, store, leads, policies, wall_clock, spread, seen: None, renewed: None }
    }

    /// Leads whenever it can, for ever.
    pub async fn run(mut self) {
        loop {
            let began = Instant::now();
            let outcome = match self.look(began).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    tracing::debug!("the lease {NAMESPACE}/{NAME}: {error}");
                    Outcome::Unknown
                }
            };
            if outcome == Outcome::Leads {
                self.renewed = Some(began);
            }
            let wait = match outcome {
                Outcome::Leads => RENEW,
                Outcome::Follows => LASTS + LASTS * self.spread / 5000,
                Outcome::Unknown => RETRY,
            };
            self.tell(outcome, began);
            sleep_until(began + wait).await;
        }
    }

    /// A leader that cannot say so stops being one before anybody else may begin.
    fn tell(&mut self, outcome: Outcome, now: Instant) {
        let fresh = self.renewed.is_some_and(|renewed| now < renewed + LASTS * 2 / 3);
        let leads = match outcome {
            Outcome::Leads => true,
            Outcome::Follows => false,
            Outcome::Unknown => *self.leads.borrow() && fresh,
        };
        if leads != *self.leads.borrow() {
            tracing::info!(
                leads,
                "this node {} for the cluster",
                if leads { "acts" } else { "no longer acts" }
            );
        }
        latest::set(&self.leads, leads);
    }

    async fn look(&mut self, now: Instant) -> Result<Outcome, Error> {
        let key = format!("{NAMESPACE}/{NAME}");
        let Some(lease) = self.store.get(Kind::Lease, &key).await? else {
            let lease = Object::new_in(Kind::Lease, NAMESPACE, NAME, &self.held(LeaseSpec::default(), true));
            return Ok(match self.store.create(lease).await {
                Err(Error::Exists { .. }) => Outcome::Unknown,
                created => created.map(|_| Outcome::Leads)?,
            });
        };
        let spec: LeaseSpec = lease.spec()?;
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.node.as_str();
        if !ours && !holder.is_empty() && !self.has_run_out(&lease, &spec, now) {
            let told = lease.metadata.annotations.get(NOT_ENFORCED).and_then(|text| Unenforced::read(text));
            latest::set(&self.policies, told);
            return Ok(Outcome::Follows);
        }
        let mut lease = lease.with_spec(&self.held(spec, !ours));
        if let Some(policies) = &*self.policies.borrow() {
            lease.metadata.annotations.insert(NOT_ENFORCED.to_owned(), policies.to_string());
        }
        Ok(match self.store.update(lease).await {
            Err(Error::Conflict { .. } | Error::Gone { .. }) => Outcome::Unknown,
            updated => updated.map(|_| Outcome::Leads)?,
        })
    }

    /// Whether nobody has renewed it for as long as it lasts, by this node's own observation.
    fn has_run_out(&mut self, lease: &Object, spec: &LeaseSpec, now: Instant) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let lasts = spec.lease_duration_seconds.map_or(LASTS, Duration::from_secs);
        match &self.seen {
            Some((seen, since)) if *seen == version => now >= *since + lasts,
            _ => {
                self.seen = Some((version, now));
                false
            }
        }
    }

    /// The Lease as it is when this node holds it from now on.
    fn held(&self, before: LeaseSpec, taken: bool) -> LeaseSpec {
        let now = micro_time((self.wall_clock)());
        let acquired = if taken { Some(now.clone()) } else { before.acquire_time };
        LeaseSpec {
            holder_identity: Some(self.node.to_string()),
            lease_duration_seconds: Some(LASTS.as_secs()),
            acquire_time: acquired,
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or_default() + u64::from(taken)),
            rest: before.rest,
        }
    }
}

/// Kubernetes' MicroTime: RFC 3339 with six digits of a second.
fn micro_time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = manx_ipam::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()));
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), since.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_datastore::Memory;
    use manx_datastore::testing::{Faults, Faulty};

    fn candidate(store: &Faulty<Memory>, name: &str) -> watch::Receiver<bool> {
        knowing(store, name, watch::Sender::default())
    }

    fn knowing(
        store: &Faulty<Memory>,
        name: &str,
        policies: watch::Sender<Option<Unenforced>>,
    ) -> watch::Receiver<bool> {
        let (leads, receiver) = watch::channel(false);
        let store = Arc::new(store.clone());
        let node = name.parse().unwrap();
        let candidate = Candidate::new(node, store, leads, policies, || SystemTime::UNIX_EPOCH, 7);
        tokio::spawn(candidate.run());
        receiver
    }

    fn store() -> Faulty<Memory> {
        Faulty::new(Memory::new(), 1, Faults::default())
    }

    async fn holder(store: &Faulty<Memory>) -> String {
        let lease = store.get(Kind::Lease, "kube-system/manx-leader").await.unwrap().unwrap();
        lease.spec::<LeaseSpec>().unwrap().holder_identity.unwrap()
    }

    #[test]
    fn a_lease_has_the_times_that_kubernetes_takes() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_793_487_600_012_345);
        assert_eq!(micro_time(time), "2026-10-31T23:00:00.012345Z");
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_nodes_one_leads_and_it_stays_the_same_one() {
        let store = store();
        let mut all: Vec<_> = ["a", "b", "c"].iter().map(|name| candidate(&store, name)).collect();
        for _ in 0..5 {
            tokio::time::sleep(LASTS).await;
            assert_eq!(holder(&store).await, "a");
            let leading: Vec<bool> = all.iter_mut().map(|leads| *leads.borrow_and_update()).collect();
            assert_eq!(leading, [true, false, false]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_gone_is_followed_by_another() {
        let store = store();
        let (leads, _) = watch::channel(false);
        let door = Arc::new(store.clone());
        let policies = watch::Sender::default();
        let gone = Candidate::new("a".parse().unwrap(), door, leads, policies, SystemTime::now, 0);
        let task = tokio::spawn(gone.run());
        let mut next = candidate(&store, "b");
        tokio::time::sleep(RENEW).await;
        task.abort();
        tokio::time::timeout(LASTS * 4, next.wait_for(|leads| *leads)).await.unwrap().unwrap();
        assert_eq!(holder(&store).await, "b");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_leader_knows_of_policies_the_others_hear_when_they_look_and_forget_when_it_does() {
        let store = store();
        let (known, heard) = (watch::Sender::default(), watch::Sender::default());
        knowing(&store, "a", known.clone()).wait_for(|leads| *leads).await.unwrap();
        let _follows = knowing(&store, "b", heard.clone());
        let mut heard = heard.subscribe();
        for count in [2, 0] {
            let told = Some(Unenforced { count, first: vec!["NetworkPolicy default/a".into(); count] });
            known.send_replace(told.clone());
            let soon = RENEW + LASTS * 2;
            tokio::time::timeout(soon, heard.wait_for(|heard| *heard == told)).await.unwrap().unwrap();
        }
        assert!(!known.borrow().is_none(), "the leader goes by its own count");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_cut_off_stops_leading_before_another_may_begin() {
        let store = store();
        let mut leads = candidate(&store, "a");
        leads.wait_for(|leads| *leads).await.unwrap();
        store.down();
        tokio::time::timeout(LASTS, leads.wait_for(|leads| !*leads)).await.unwrap().unwrap();
        store.up();
        tokio::time::timeout(LASTS, leads.wait_for(|leads| *leads)).await.unwrap().unwrap();
    }
}
