//! A control plane, and nodes whose agents are started one by one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::future::{join_all, ready};
use ipnet::Ipv4Net;
use manx_datastore::{Datastore as _, Event, Only};
use manx_datastore_kube::{KubeStore, Options as StoreOptions, install_crds};
use manx_ground::eventually;
use manx_kubernetes::{ControlPlane, Mark, Options, Requests};
use manx_lab::kubernetes::{GROUP, RIGHTS, pods, register, user};
use manx_model::Kind;
use manx_sim::machine::{Machine, Segment};
use manx_sim::network::Network;
use manx_sim::world::Net;
use tokio::runtime::{Builder, Runtime};

use crate::node::{NAMESPACE, Node, Place, await_quiet};

/// For what must happen, but for which no promise of time is made.
pub const SOON: Duration = Duration::from_secs(120);

/// Whether the agents speak BGP, each with all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bgp {
    /// A mesh of all nodes.
    Mesh,
    /// No BGP (`CALICO_NETWORKING_BACKEND=none`): a mesh of a thousand is a matter of its own.
    None,
}

/// A cluster of simulated nodes on a real API server.
pub struct Fleet {
    // In the order in which they are to end: who asks before who is asked.
    nodes: BTreeMap<usize, Node>,
    near: Runtime,
    far: Runtime,
    control_plane: ControlPlane,
    net: Net,
    network: Network,
    bgp: Bgp,
}

impl Fleet {
    /// `size` nodes `n1`, `n2`, …, registered by their kubelets, on which no agent runs yet.
    ///
    /// # Errors
    /// The API server does not start, or refuses something.
    pub fn start(size: usize, bgp: Bgp) -> Result<Self> {
        let names = (1..=size).map(name);
        let options = names.fold(Options::new(), |options, name| options.user(&user(&name), &[GROUP]));
        let (near, far) = (runtime(Place::Near)?, runtime(Place::Far)?);
        let control_plane = ControlPlane::start(options)?;
        near.block_on(install_kinds(&control_plane))?;
        control_plane.apply(RIGHTS)?;
        let net = Net::new(1);
        let network = Network::new(net.clone());
        let fleet = Self { nodes: BTreeMap::new(), near, far, control_plane, net, network, bgp };
        (1..=size).try_for_each(|number| fleet.register(number))?;
        Ok(fleet)
    }

    /// The machine of a node, and its Node object.
    fn register(&self, number: usize) -> Result<()> {
        let address = address(number)?;
        let mut machine = Machine::new();
        machine.add_wire("eth0", Segment(1), address);
        self.net.world().machines.insert(name(number), machine);
        register(&self.control_plane.client(), &name(number), address.addr())
    }

    /// Starts the agents of nodes at the same time, and waits until they serve pods, have said on their Nodes who they
    /// are, and ask for nothing more.
    ///
    /// # Errors
    /// One of them never gets there.
    pub fn run(&mut self, numbers: impl IntoIterator<Item = usize>, place: Place) -> Result<()> {
        let runtime = match place {
            Place::Near => &self.near,
            Place::Far => &self.far,
        };
        let mut started = Vec::new();
        for number in numbers {
            let name = name(number);
            let kubeconfig = self.control_plane.kubeconfig(&user(&name))?;
            let store = runtime.block_on(store(&self.control_plane, &user(&name)))?;
            let (net, transport) = (self.net.clone(), self.network.of(&name));
            let _inside = runtime.enter();
            let node = Node::start(&name, &kubeconfig, store, net, transport, self.bgp, number as u64)?;
            self.nodes.insert(number, node);
            started.push(number);
        }
        let started = started.into_iter().map(|number| self.node(number)).collect::<Result<Vec<_>>>()?;
        started.iter().try_for_each(|node| node.await_started())?;
        await_quiet(&started)
    }

    /// Lets time pass.
    pub fn pass(&self, duration: Duration) {
        self.near.block_on(async { tokio::time::sleep(duration).await });
    }

    /// A node whose agent runs.
    ///
    /// # Errors
    /// It does not.
    pub fn node(&self, number: usize) -> Result<&Node> {
        self.nodes.get(&number).with_context(|| format!("no agent runs on {}", name(number)))
    }

    /// Waits until no agent asks for anything more, nor is told anything more.
    ///
    /// # Errors
    /// It never ends.
    pub fn await_quiet(&self) -> Result<()> {
        await_quiet(&self.nodes.values().collect::<Vec<_>>())
    }

    /// All nodes whose agents run, by number.
    pub fn nodes(&self) -> &BTreeMap<usize, Node> {
        &self.nodes
    }

    /// The API server.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// What the agent of a node has asked for since `mark`.
    ///
    /// # Errors
    /// The audit log cannot be read.
    pub fn asked(&self, number: usize, mark: Mark) -> Result<Requests> {
        Ok(self.control_plane.audit().since(mark)?.by_user(&user(&name(number))))
    }

    /// Makes Pods on a node that is near, and waits until its agent has heard of them, as long before a runtime would ask
    /// for their network.
    ///
    /// # Errors
    /// The API server refuses them.
    pub fn schedule(&self, number: usize, pod_names: &[String]) -> Result<()> {
        let (client, node) = (self.control_plane.client(), self.node(number)?);
        for pod in pod_names {
            pods::create(&client, &name(number), pod, NAMESPACE)?;
        }
        eventually(SOON, "the agent to know its Pods", || {
            let unknown = pod_names.iter().find(|pod| !node.knows(pod));
            ensure!(unknown.is_none(), "it does not know {unknown:?}");
            Ok(())
        })
    }

    /// ADDs, all at once.
    ///
    /// # Errors
    /// What the agent answers to one of them.
    pub fn add(&self, number: usize, pod_names: &[String]) -> Result<()> {
        let kubelet = &self.node(number)?.kubelet;
        let all = pod_names.iter().map(|pod| async move { kubelet.add(pod, &container(pod)).await });
        for (pod, answer) in pod_names.iter().zip(self.near.block_on(join_all(all))) {
            answer.map_err(|error| anyhow::anyhow!("ADD of {pod}: {error}"))?;
        }
        Ok(())
    }

    /// DELs, all at once.
    ///
    /// # Errors
    /// What the agent answers to one of them.
    pub fn del(&self, number: usize, pod_names: &[String]) -> Result<()> {
        let kubelet = &self.node(number)?.kubelet;
        let all = pod_names.iter().map(|pod| async move { kubelet.del(pod, &container(pod)).await });
        for (pod, answer) in pod_names.iter().zip(self.near.block_on(join_all(all))) {
            answer.map_err(|error| anyhow::anyhow!("DEL of {pod}: {error}"))?;
        }
        Ok(())
    }

    /// Removes Pods whose network is gone, as kubelet does.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn forget(&self, pod_names: &[String]) -> Result<()> {
        let client = self.control_plane.client();
        pod_names.iter().try_for_each(|pod| pods::delete(&client, pod, NAMESPACE))
    }

    /// The kubelet of a node says once more that it lives.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn heartbeat(&self, number: usize, beat: usize) -> Result<()> {
        let time = format!("2026-01-01T{:02}:{:02}:00Z", beat / 60 % 24, beat % 60);
        let ready = serde_json::json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": time,
        });
        let patch = serde_json::json!({"status": {"conditions": [ready]}}).to_string();
        let path = format!("/api/v1/nodes/{}/status", name(number));
        let answer = self.control_plane.client().ask("PATCH", &path, &patch)?;
        ensure!(answer.status == 200, "the heartbeat of {}: {}", name(number), answer.body);
        Ok(())
    }
}

/// Our kinds, served and warm: of one that is new the API server turns watches away (429) until its cache has begun,
/// which a node that comes to a cluster does not meet.
async fn install_kinds(control_plane: &ControlPlane) -> Result<()> {
    let admin = store(control_plane, "admin").await?;
    install_crds(&admin).await.context("installing our kinds")?;
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_calicos());
    let warmed = kinds.map(|kind| {
        let events = admin.watch(kind, Only::All).skip_while(|event| ready(*event != Event::InSync));
        async move { pin!(events).next().await }
    });
    tokio::time::timeout(SOON, join_all(warmed)).await.context("our kinds cannot be watched")?;
    Ok(())
}

/// The name of a node.
fn name(number: usize) -> String {
    format!("n{number}")
}

fn container(pod: &str) -> String {
    format!("{pod}-container")
}

/// 10.128.0.0 plus `number`, on one link with all others.
fn address(number: usize) -> Result<Ipv4Net> {
    let offset = u32::try_from(number).ok().filter(|number| *number < 1 << 23).context("too many nodes")?;
    Ok(Ipv4Net::new(Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + offset), 9)?)
}

fn runtime(place: Place) -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).thread_name(place.threads()).enable_all().build()?)
}

async fn store(control_plane: &ControlPlane, user: &str) -> Result<KubeStore> {
    let kubeconfig = Some(control_plane.kubeconfig(user)?);
    let options = StoreOptions { kubeconfig, reporter: user.to_owned(), ..StoreOptions::default() };
    Ok(KubeStore::connect(options).await?)
}
