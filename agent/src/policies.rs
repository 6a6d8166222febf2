//! Policies that forbid traffic, while Manx enforces none: nobody shall believe in a wall that is not there.
//!
//! The node that leads watches them, and tells each of them so, in an Event on the object, once for each generation of it. How
//! many there are it writes on its Lease, at which every node looks every few minutes anyway: so all nodes say it, in
//! `manx status`, in the log and as a metric, and a thousand nodes have no watch more.
//!
//! Kubernetes' NetworkPolicy is always there; Calico's own kinds are watched from when somebody has defined them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use manx_datastore::{Datastore, Event, Only, Report};
use manx_model::{Kind, Metadata, Object};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cluster::table::Table;
use crate::latest;
use crate::problems::Problems;

/// The annotation of the Lease.
pub(crate) const NOT_ENFORCED: &str = "manx.projectcalico.org/policies-not-enforced";

/// So many are named; an operator lists the rest with kubectl.
const NAMED: usize = 3;
/// How often it is looked whether Calico's kinds are defined by now.
const LOOK: Duration = Duration::from_secs(300);
/// After an Event that could not be written the next try waits this long.
const RETRY: Duration = Duration::from_secs(30);
/// What is ready at once comes as one batch, of at most so many events.
const BATCH: usize = 1024;

/// Why, for programs that read Events.
const REASON: &str = "NotEnforced";

/// The policies that are not enforced. Its text is what stands on the Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unenforced {
    /// How many there are.
    pub count: usize,
    /// The first of them, by kind and name.
    pub first: Vec<String>,
}

impl fmt::Display for Unenforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).expect("our types serialize to JSON"))
    }
}

impl Unenforced {
    /// What stands on a Lease; `None` where it is nothing that we write.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// What an operator is to know, in a sentence; `None` where all is well.
    pub fn problem(&self) -> Option<String> {
        let Self { count, first } = self;
        let (they_are, they) = match count {
            0 => return None,
            1 => ("policy is", "it forbids"),
            _ => ("policies are", "they forbid"),
        };
        let more = match count.saturating_sub(first.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = first.join(", ");
        Some(format!("{count} {they_are} NOT enforced, and what {they} is let through: {named}{more}"))
    }
}

/// Names them among what is wrong with a node, for ever.
pub async fn name(mut found: watch::Receiver<Option<Unenforced>>, problems: Problems) {
    loop {
        let problem = found.borrow_and_update().as_ref().and_then(Unenforced::problem);
        problems.set("policies", problem);
        if found.changed().await.is_err() {
            return;
        }
    }
}

/// Watches policies while its node leads.
pub struct Keeper {
    /// Where they are.
    pub store: Arc<dyn Datastore>,
    /// Whether this node leads.
    pub leads: watch::Receiver<bool>,
    /// Told what was found.
    pub found: watch::Sender<Option<Unenforced>>,
}

impl Keeper {
    /// Runs for ever.
    pub async fn run(mut self) {
        loop {
            if self.leads.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            let mut leads = self.leads.clone();
            tokio::select! {
                _ = leads.wait_for(|leads| !*leads) => {}
                never = self.lead() => match never {},
            }
        }
    }

    async fn lead(&self) -> Infallible {
        let mut policies = Policies::default();
        let mut events: SelectAll<BoxStream<'static, Vec<(Kind, Event)>>> = SelectAll::new();
        events.push(self.watch(&mut policies, Kind::NetworkPolicy));
        let mut look = Instant::now();
        loop {
            let now = Instant::now();
            if now >= look {
                for kind in self.defined(&policies).await {
                    events.push(self.watch(&mut policies, kind));
                }
                look = now + LOOK;
            }
            let mut next = look;
            if policies.in_sync() {
                latest::set(&self.found, Some(policies.unenforced()));
                if !self.tell(&mut policies).await {
                    next = next.min(Instant::now() + RETRY);
                }
            }
            tokio::select! {
                Some(batch) = events.next() => batch.into_iter().for_each(|(kind, event)| policies.take(kind, event)),
                () = sleep_until(next) => {}
            }
        }
    }

    fn watch(&self, policies: &mut Policies, kind: Kind) -> BoxStream<'static, Vec<(Kind, Event)>> {
        policies.tables.entry(kind).or_default();
        self.store.watch(kind, Only::All).map(move |event| (kind, event)).ready_chunks(BATCH).boxed()
    }

    /// The kinds that are not watched yet and could be: of one that nobody has defined, nothing can be listed. Calico defines
    /// all of its kinds at once, so where the first is missing nobody asks for the other.
    async fn defined(&self, policies: &Policies) -> Vec<Kind> {
        let mut defined = Vec::new();
        for kind in Kind::POLICIES.into_iter().rev().filter(|kind| !policies.tables.contains_key(kind)) {
            // No more than that is to be known.
            let nobody = Only::Key(if kind.is_namespaced() { "default/manx" } else { "manx" }.to_owned());
            if self.store.list(kind, &nobody).await.is_err() {
                break;
            }
            defined.push(kind);
        }
        defined
    }

    /// Says it on each policy on which it was not said yet; whether that is done.
    async fn tell(&self, policies: &mut Policies) -> bool {
        for (kind, key, policy) in policies.untold() {
            if let Err(error) = self.store.report(&policy.object(kind), &policy.report()).await {
                tracing::debug!("{}: not told: {error}", title(kind, &key));
                return false;
            }
            policies.told.insert((kind, key), policy);
        }
        true
    }
}

/// What is known of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
    /// The version of what it forbids.
    generation: Option<i64>,
}

impl Policy {
    fn read(object: Object) -> Self {
        let Metadata { name, namespace, uid, rest, .. } = object.metadata;
        let generation = rest.get("generation").and_then(Value::as_i64);
        Self { namespace, name, uid, generation }
    }

    fn object(&self, kind: Kind) -> Object {
        let (name, namespace, uid) = (self.name.clone(), self.namespace.clone(), self.uid.clone());
        let metadata = Metadata { name, namespace, uid, ..Metadata::default() };
        Object { kind, metadata, spec: Value::Null, rest: Map::new() }
    }

    /// An Event is told apart by its words, so they name the generation.
    fn report(&self) -> Report {
        let generation = self.generation.map(|it| format!(" (generation {it})")).unwrap_or_default();
        let message = format!(
            "Manx does not enforce network policies yet: what this one forbids is let through{generation}"
        );
        Report { warning: true, reason: REASON.to_owned(), message }
    }
}

/// All of them.
#[derive(Default)]
struct Policies {
    tables: BTreeMap<Kind, Table<Policy>>,
    told: BTreeMap<(Kind, String), Arc<Policy>>,
}

impl Policies {
    fn take(&mut self, kind: Kind, event: Event) {
        if let Some(table) = self.tables.get_mut(&kind) {
            table.take(event, |object| (Some(Policy::read(object)), Vec::new()));
        }
    }

    fn in_sync(&self) -> bool {
        self.tables.values().all(Table::in_sync)
    }

    fn all(&self) -> impl Iterator<Item = (Kind, String, Arc<Policy>)> {
        self.tables.iter().flat_map(|(kind, table)| {
            let values = table.values();
            let rows: Vec<_> =
                values.iter().map(|(key, one)| (*kind, key.clone(), Arc::clone(one))).collect();
            rows
        })
    }

    fn unenforced(&self) -> Unenforced {
        let count = self.tables.values().map(|table| table.values().len()).sum();
        let first = self.all().take(NAMED).map(|(kind, key, _)| title(kind, &key)).collect();
        Unenforced { count, first }
    }

    /// Those that were not told what they are now; who is gone is forgotten.
    fn untold(&mut self) -> Vec<(Kind, String, Arc<Policy>)> {
        let tables = &self.tables;
        self.told.retain(|(kind, key), _| tables.get(kind).is_some_and(|table| table.get(key).is_some()));
        let told = |(kind, key, policy): &(Kind, String, Arc<Policy>)| {
            self.told.get(&(*kind, key.clone())) == Some(policy)
        };
        self.all().filter(|row| !told(row)).collect()
    }
}

/// Two kinds have one name.
fn title(kind: Kind, key: &str) -> String {
    match kind {
        Kind::CalicoNetworkPolicy => format!("Calico's NetworkPolicy {key}"),
        kind => format!("{kind} {key}"),
    }
}

#[cfg(test)]
mod tests;
