//! A cluster in a lab: an agent on every node, all over one directory of manifests (`target/lab/NAME/datastore`), or on
//! a real API server behind the ToR.
//!
//! Nothing here knows the agent from inside: it is configured by environment and manifests, and asked on its status
//! socket, as an operator does it. Asking costs no process, which matters in an emulated guest.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use manx_kubernetes::ControlPlane;
use serde_json::Value;

use crate::store::Store;
use crate::topology::{TOR_AS, gateway};
use crate::{Fabric, Kubelet, Lab, Node, Pod, Process, Program, eventually, manx_binary, slowness};

/// How long an agent may take to serve, and a cluster to agree on its routes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an agent may take to answer a question.
const ANSWER: Duration = Duration::from_secs(2);
/// The pool that the agents make when there is none, as Calico names it.
const DEFAULT_POOL: &str = "default-ipv4-ippool";

/// What every agent says about itself, by node: the documents of `manx status -o json`.
pub type Statuses = BTreeMap<String, Value>;

/// A lab with agents on its nodes. The agents are killed and the lab is removed with the value, unless it is
/// [kept](Cluster::keep).
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they are to end.
    agents: BTreeMap<String, Process>,
    store: Store,
    lab: Lab,
}

impl Cluster {
    /// Starts an agent on every node, over a directory, with `env` beside what it needs, and waits until all serve pods.
    pub fn start(lab: Lab, env: &[(&str, &str)]) -> Result<Cluster> {
        let mut cluster = Cluster { agents: BTreeMap::new(), store: Store::directory(&lab), lab };
        cluster.start_agents(&cluster.node_names(), env)?;
        Ok(cluster)
    }

    /// A cluster on Kubernetes, as an administrator finds it before anything runs on its nodes: a control plane on the
    /// host outside, our kinds, the agents' rights, and every node registered. No agent runs yet.
    pub fn on_kubernetes(lab: Lab) -> Result<Cluster> {
        Self::on_control_plane(lab, manx_kubernetes::Options::new())
    }

    /// The same, with what `options` say beside where the control plane runs and who may use it.
    pub fn on_control_plane(lab: Lab, options: manx_kubernetes::Options) -> Result<Cluster> {
        Ok(Cluster { agents: BTreeMap::new(), store: Store::kubernetes(&lab, options)?, lab })
    }

    /// Starts an agent on each of these nodes, with `env` beside what it needs, and waits until all serve pods.
    pub fn start_agents<S: AsRef<str>>(&mut self, nodes: &[S], env: &[(&str, &str)]) -> Result<()> {
        for node in nodes.iter().map(AsRef::as_ref) {
            let program = self.agent_program(node, env)?;
            let agent = self.lab.node(node)?.start("agent", program)?;
            self.agents.insert(node.to_owned(), agent);
        }
        nodes.iter().try_for_each(|node| self.wait_ready(node.as_ref()))
    }

    /// The command line and environment of a node's agent. Later variables win, so that `env` may replace any.
    pub fn agent_program(&self, node: &str, env: &[(&str, &str)]) -> Result<Program> {
        let node = self.lab.node(node)?;
        let program = Program::new(manx_binary()?)
            .arg("agent")
            .env("NODENAME", node.name())
            .env("IP", node.address().to_string())
            .env("MANX_RUN_DIR", node.dir())
            .env("MANX_STATE_DIR", node.dir());
        let datastore = self.store.agent_env(&node)?;
        let program = datastore.iter().fold(program, |program, (name, value)| program.env(name, value));
        Ok(env.iter().fold(program, |program, (name, value)| program.env(name, value)))
    }

    /// The lab below.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The lab below, for what is to be done to its ToR.
    pub fn lab_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// The names of all nodes.
    pub fn node_names(&self) -> Vec<String> {
        self.lab.nodes().map(|node| node.name().to_owned()).collect()
    }

    /// The agent of a node: kill, stop and start it by [`Process`]'s methods.
    pub fn agent(&mut self, node: &str) -> Result<&mut Process> {
        self.agents.get_mut(node).with_context(|| format!("there is no agent on {node}"))
    }

    /// Leaves lab and agents up after this process has ended.
    pub fn keep(self) -> Result<()> {
        self.agents.into_values().for_each(Process::leave);
        self.store.leave()?;
        self.lab.keep()
    }

    /// Asks the agent of a node for its status.
    pub fn status(&self, node: &str) -> Result<Value> {
        let socket = self.lab.node(node)?.dir().join("status.sock");
        let mut document = Vec::new();
        UnixStream::connect(&socket)
            .and_then(|mut stream| {
                stream.set_read_timeout(Some(ANSWER * slowness()))?;
                stream.read_to_end(&mut document)
            })
            .with_context(|| format!("the agent of {node} does not answer on {}", socket.display()))?;
        serde_json::from_slice(&document).with_context(|| format!("the status of {node} is damaged"))
    }

    /// Asks all agents.
    pub fn statuses(&self) -> Result<Statuses> {
        self.agents.keys().map(|node| Ok((node.clone(), self.status(node)?))).collect()
    }

    /// Waits until the agent of a node serves pods; one that has ended is an error that shows its last words.
    pub fn wait_ready(&mut self, node: &str) -> Result<()> {
        let ended = |agent: &mut Process| (!agent.is_running()).then(|| agent.log());
        eventually(PATIENCE, &format!("the agent of {node} to be ready"), || {
            if let Some(log) = self.agents.get_mut(node).and_then(ended) {
                return Ok(Err(anyhow::anyhow!("the agent of {node} has ended: {}", log.trim())));
            }
            let status = self.status(node)?;
            ensure!(status["ready"] == true, "it says {}", status["notReady"]);
            Ok(Ok(()))
        })?
    }

    /// Waits until `wanted` holds of what all agents say.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Statuses) -> Result<()>) -> Result<()> {
        eventually(PATIENCE, what, || wanted(&self.statuses()?))
    }

    /// Waits until every kernel is as its agent wants it, every BGP session is up, every node has a route to every
    /// block, and, where nodes [peer with the ToR](Cluster::peer_with_tor), BIRD has every block.
    pub fn wait_converged(&self) -> Result<()> {
        self.wait("the cluster to converge", |statuses| {
            statuses.iter().try_for_each(|(node, status)| settled(statuses, node, status))
        })?;
        let peering = |node: &String| self.store.has("bgppeers", &format!("tor-{node}"));
        if !self.node_names().iter().any(peering) {
            return Ok(());
        }
        eventually(PATIENCE, "BIRD to know every block", || {
            let known = self.lab.bird("show route")?;
            let blocks = self.blocks()?;
            let missing = blocks.keys().find(|block| !known.contains(*block));
            missing.map_or(Ok(()), |block| bail!("{block} is not among {known}"))
        })
    }

    /// Which node has which block.
    pub fn blocks(&self) -> Result<BTreeMap<String, String>> {
        Ok(blocks(&self.statuses()?).map(|(node, block)| (block.to_owned(), node.to_owned())).collect())
    }

    /// The directory of manifests, of a cluster that has one.
    pub fn datastore(&self) -> PathBuf {
        self.lab.dir().join("datastore")
    }

    /// Writes a manifest of one object as a person does it, with an editor in one step, or with `kubectl apply`: `kind` is
    /// the folder, for instance `bgppeers`.
    pub fn write_manifest(&self, kind: &str, name: &str, text: &str) -> Result<()> {
        self.store.apply(kind, name, text)
    }

    /// Changes `spec.ipipMode` of the default pool: in its manifest, or with `kubectl patch`.
    pub fn set_mode(&self, mode: &str) -> Result<()> {
        self.store.set_mode(DEFAULT_POOL, mode)
    }

    /// The control plane of a cluster on Kubernetes.
    pub fn control_plane(&self) -> Result<&ControlPlane> {
        self.store.control_plane()
    }

    /// The control plane, for what is to be done to it.
    pub fn control_plane_mut(&mut self) -> Result<&mut ControlPlane> {
        self.store.control_plane_mut()
    }

    /// Who brings pods to the nodes; it needs the lab to be up, and nothing else of this value.
    pub fn kubelet(&self) -> Result<Kubelet> {
        let api = self.store.control_plane().ok().map(ControlPlane::client);
        Ok(Kubelet::new(Lab::open(self.lab.name())?, api))
    }

    /// Brings a pod to a node: [`Kubelet::add`].
    pub fn pod_add(&self, node: &str, pod: &str, namespace: &str) -> Result<Pod> {
        self.kubelet()?.add(node, pod, namespace)
    }

    /// Takes a pod away: [`Kubelet::delete`].
    pub fn pod_del(&self, pod: &str) -> Result<()> {
        self.kubelet()?.delete(pod)
    }

    /// Waits until every node sends packets as `mode` (`Always`, `CrossSubnet`, `Never`) says: to every block of
    /// another node through `tunl0` or not, and its kernel has the routes.
    pub fn wait_mode(&self, mode: &str) -> Result<()> {
        self.wait(&format!("routes of mode {mode}"), |statuses| {
            for (node, status) in statuses {
                settled(statuses, node, status)?;
                for (owner, block) in blocks(statuses).filter(|(owner, _)| *owner != node) {
                    let path = path(status, block)?;
                    let wanted = self.through_tunnel(mode, node, owner)?;
                    ensure!(path.contains("tunl0") == wanted, "{node} reaches {block} of {owner} {path}");
                }
            }
            Ok(())
        })
    }

    /// Whether packets between two nodes travel inside IPIP.
    pub fn through_tunnel(&self, mode: &str, node: &str, other: &str) -> Result<bool> {
        let topology = self.lab.topology();
        let subnet = |name: &str| topology.subnet_of(self.lab.node(name)?.spec());
        match mode {
            "Always" => Ok(true),
            "CrossSubnet" => Ok(subnet(node)? != subnet(other)?),
            "Never" => Ok(false),
            _ => bail!("{mode} is none of Always, CrossSubnet, Never"),
        }
    }

    /// The manifests with which [`Self::peer_with_tor`] does it, as one text.
    pub fn tor_peers(&self) -> Result<String> {
        Ok(self.tor_peer_manifests()?.join("---\n"))
    }

    fn tor_peer_manifests(&self) -> Result<Vec<String>> {
        let manifest = |node: Node<'_>| {
            let router = gateway(&self.lab.topology().subnet_of(node.spec())?);
            Ok(format!(
                "apiVersion: crd.projectcalico.org/v1\nkind: BGPPeer\nmetadata:\n  name: tor-{name}\n\
                 spec:\n  node: {name}\n  peerIP: {router}\n  asNumber: {TOR_AS}\n",
                name = node.name()
            ))
        };
        self.lab.nodes().map(manifest).collect()
    }

    /// Makes every node peer with the ToR's address in its subnet: a BGPPeer `tor-NODE` for each.
    pub fn peer_with_tor(&self) -> Result<()> {
        ensure!(
            self.lab.topology().fabric == Fabric::Bird,
            "the ToR of lab {} speaks no BGP",
            self.lab.name()
        );
        let node_and_text = self.node_names().into_iter().zip(self.tor_peer_manifests()?);
        for (node, text) in node_and_text {
            self.write_manifest("bgppeers", &format!("tor-{node}"), &text)?;
        }
        Ok(())
    }
}

/// Node and block, of all blocks.
fn blocks(statuses: &Statuses) -> impl Iterator<Item = (&str, &str)> {
    statuses.iter().flat_map(|(node, status)| {
        let blocks = status["blocks"].as_array().into_iter().flatten();
        blocks.filter_map(|block| Some((node.as_str(), block.as_str()?)))
    })
}

/// How a node reaches a prefix, for instance `via 172.171.5.96 dev tunl0 onlink`.
fn path<'a>(status: &'a Value, prefix: &str) -> Result<&'a str> {
    let paths = status["paths"].as_array().into_iter().flatten();
    let found = paths.filter(|path| path["prefix"] == prefix).find_map(|path| path["route"].as_str());
    found.with_context(|| format!("{} knows no path to {prefix}", status["node"]))
}

fn settled(statuses: &Statuses, node: &str, status: &Value) -> Result<()> {
    for flag in ["ready", "inSync", "inDesiredState"] {
        ensure!(status[flag] == true, "{node}: {flag} is {}, problems: {}", status[flag], status["problems"]);
    }
    if status["bgp"].is_null() {
        return Ok(());
    }
    let peers = status["bgp"]["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(peers.len() + 1 >= statuses.len(), "{node} has {} peers", peers.len());
    for peer in peers {
        ensure!(peer["state"] == "Established", "{node}: peer {peer}");
    }
    ensure!(status["bgp"]["converged"] == true, "{node}: BGP has not converged");
    for (owner, block) in blocks(statuses).filter(|(owner, _)| *owner != node) {
        let route = path(status, block)?;
        ensure!(route != "no route", "{node} has no route to {block} of {owner}");
    }
    Ok(())
}
