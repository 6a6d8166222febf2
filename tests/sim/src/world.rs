//! Everything that is not an agent: the machines, the record of what happened to them, and who watches over it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use manx_datastore::testing::Random;
use manx_felix::Operation;
use tokio::time::Instant;

use crate::machine::Machine;
use crate::trace::trace;

/// The world of one simulation. Its clones are the same world.
#[derive(Clone, Debug)]
pub struct Net(Arc<Mutex<World>>);

/// What [`Net`] guards.
#[derive(Debug)]
pub struct World {
    /// Nodes and routers by name.
    pub machines: BTreeMap<String, Machine>,
    /// What happened, in order.
    pub records: Vec<Record>,
    /// Pods, as node and address, that must reach each other after every single event.
    pub guarded: BTreeSet<(String, Ipv4Addr)>,
    /// What must not happen, and did.
    pub violations: Vec<String>,
    /// Chance.
    pub random: Random,
    start: Instant,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Since the start.
    pub at: Duration,
    /// The machine.
    pub machine: String,
    /// What.
    pub act: Act,
}

/// What can happen to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// The agent wrote to the kernel.
    Wrote(Operation),
    /// The kernel refused, with this reason.
    Refused(Operation, String),
    /// The agent wrote our table of nftables.
    WroteRuleset,
    /// The kernel refused it, with this reason.
    RefusedRuleset(String),
    /// Something was done to the pod's link of this name.
    Pod(String, &'static str),
    /// Somebody else did something.
    Foreign(String),
}

impl Net {
    /// An empty world whose chance comes from `seed`. Its time starts now.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            machines: BTreeMap::new(),
            records: Vec::new(),
            guarded: BTreeSet::new(),
            violations: Vec::new(),
            random: Random::new(seed),
            start: Instant::now(),
        })))
    }

    /// A look at the world, which stands still meanwhile.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody who is no agent changes a machine; its agent is told.
    pub fn foreign(&self, machine: &str, what: impl Into<String>, change: impl FnOnce(&mut Machine)) {
        let mut world = self.world();
        let Some(found) = world.machines.get_mut(machine) else { return };
        change(found);
        found.changed.notify_one();
        world.record(machine, Act::Foreign(what.into()));
    }

    /// A small pause in which others get their turn: now and then some virtual time passes.
    pub async fn pause(&self) {
        let (turns, micros) = {
            let random = &mut self.world().random;
            (random.below(3), if random.chance(30) { 1 + random.below(900) } else { 0 })
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if micros > 0 {
            tokio::time::sleep(Duration::from_micros(micros as u64)).await;
        }
    }
}

impl World {
    /// Takes down what happened, and looks whether every guarded pod still reaches every other.
    pub fn record(&mut self, machine: &str, act: Act) {
        self.records.push(Record { at: self.start.elapsed(), machine: machine.to_owned(), act });
        self.check_guarded();
    }

    /// How often a machine was changed; what was refused, again and again, changed nothing.
    pub fn changes(&self) -> usize {
        let refused = |act: &Act| matches!(act, Act::Refused(..) | Act::RefusedRuleset(_));
        self.records.iter().filter(|record| !refused(&record.act)).count()
    }

    fn check_guarded(&mut self) {
        let mut found = Vec::new();
        for (from, source) in &self.guarded {
            for (_, to) in self.guarded.iter().filter(|(_, to)| to != source) {
                if let Err(dropped) = trace(self, from, *to) {
                    found.push(format!("{source} does not reach {to}: {dropped}"));
                }
            }
        }
        if let (Some(first), Some(last)) = (found.first(), self.records.last()) {
            let text = format!("after {last:?}: {first}");
            self.violations.push(text);
        }
    }
}
