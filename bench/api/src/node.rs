//! One node: the agent, its way to the API server, and its kubelet.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow, bail, ensure};
use manx::agent::{Agent, Doors};
use manx::config::{Config, Settings};
use manx_datastore_kube::{KubeStore, Traffic};
use manx_ground::eventually;
use manx_model::Kind;
use manx_sim::kernel::FakeKernel;
use manx_sim::kubelet::Kubelet;
use manx_sim::world::Net;

use crate::fleet::{Bgp, SOON};

/// The namespace of all pods: that of the simulation's kubelet.
pub(crate) const NAMESPACE: &str = manx_sim::kubelet::NAMESPACE;

/// Who asks for nothing and is told nothing for so long has done what it had to do.
const QUIET: Duration = Duration::from_secs(1);

/// On which of the two runtimes an agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With those on which pods come and go.
    Near,
    /// With those on which nothing happens.
    Far,
}

impl Place {
    /// The name of the runtime's threads.
    pub(crate) fn threads(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// A node whose agent runs.
pub struct Node {
    pub(crate) kubelet: Kubelet,
    store: KubeStore,
    agent: Agent,
}

impl Node {
    /// Starts the agent. Must be called within the runtime on which it is to run.
    pub(crate) fn start(
        name: &str,
        kubeconfig: &Path,
        store: KubeStore,
        net: Net,
        transport: Arc<dyn manx_bgp_driver::Transport>,
        bgp: Bgp,
        seed: u64,
    ) -> Result<Self> {
        let backend = match bgp {
            Bgp::Mesh => "bird",
            Bgp::None => "none",
        };
        let variables = [
            ("NODENAME", name),
            ("MANX_DATASTORE", "kubernetes"),
            ("KUBECONFIG", kubeconfig.to_str().ok_or_else(|| anyhow!("{kubeconfig:?} is not UTF-8"))?),
            ("CALICO_NETWORKING_BACKEND", backend),
            ("MANX_STATE_DIR", "/nonexistent"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::read(&Settings::from_environment(variables))?;
        let kernel = Arc::new(FakeKernel::new(net, name));
        let door = Arc::new(store.clone());
        let doors = Doors { store: door, kernel, transport, wall_clock: SystemTime::now, seed };
        let agent = Agent::start(Arc::new(config), doors);
        let kubelet = Kubelet::default();
        kubelet.connect(agent.pods.clone());
        Ok(Self { kubelet, store, agent })
    }

    /// What it has asked of the API server since its start, and what it was told.
    pub fn traffic(&self) -> Traffic {
        self.store.traffic()
    }

    /// How many events its watches were told that were no bookmarks.
    pub fn news(&self) -> u64 {
        let told = self.traffic().told();
        told.events - told.bookmarks
    }

    /// How many policies it says that nobody enforces.
    pub fn policies_not_enforced(&self) -> Option<usize> {
        self.agent.view.policies_not_enforced()
    }

    /// Waits until it asks for nothing more and is told nothing more.
    ///
    /// # Errors
    /// It never ends.
    pub fn await_quiet(&self) -> Result<()> {
        await_quiet(&[self])
    }

    pub(crate) fn await_started(&self) -> Result<()> {
        eventually(SOON, "an agent to start", || {
            let reason = self.agent.not_ready.borrow().clone();
            ensure!(self.agent.pods.borrow().is_some(), "{reason:?}");
            let calls = self.traffic().calls;
            // What it does beside: its addresses on its Node, and a look at who leads.
            for call in [("patch", Kind::Node), ("get", Kind::Lease)] {
                ensure!(calls.contains_key(&call), "there was no {call:?} yet");
            }
            Ok(())
        })
    }

    /// Whether the agent knows this Pod.
    pub(crate) fn knows(&self, pod: &str) -> bool {
        let pods = self.agent.pods.borrow();
        let key = format!("{NAMESPACE}/{pod}");
        pods.as_ref().is_some_and(|pods| pods.objects.pods.borrow().contains_key(&key))
    }
}

/// Waits until none of these asks for anything more or is told anything more: for all of them at the same time, or a
/// thousand would take a thousand seconds.
pub(crate) fn await_quiet(nodes: &[&Node]) -> Result<()> {
    let now = || -> Vec<(u64, u64)> {
        let both = |node: &&Node| (node.traffic().total(), node.news());
        nodes.iter().map(both).collect()
    };
    let (mut last, mut since) = (now(), Instant::now());
    eventually(SOON, "agents to be quiet", || {
        let now = now();
        if now != last {
            let loud = now.iter().zip(&last).filter(|(now, last)| now != last).count();
            (last, since) = (now, Instant::now());
            bail!("{loud} of {} asked or heard something", nodes.len());
        }
        ensure!(since.elapsed() >= QUIET, "they have been for {:?}", since.elapsed());
        Ok(())
    })
}
