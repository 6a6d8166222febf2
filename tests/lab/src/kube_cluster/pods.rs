//! The pods of a cluster, and a way into their network for the lab's own tools.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::get;
use super::install::NAMESPACE;
use super::{KubeCluster, PATIENCE};
use crate::{Ping, Stream, eventually, netns};

/// A pod that runs, as the API server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubePod {
    /// Its name.
    pub name: String,
    /// Its namespace in Kubernetes.
    pub namespace: String,
    /// The node on which it runs.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its uid, which no other pod has, not even a later one of the same name.
    pub uid: String,
}

impl KubeCluster {
    /// The pods that match a selector of labels (`app=web`), once all of them are ready and none is about to go.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<KubePod>> {
        let query = selector.replace('=', "%3D").replace(',', "%2C").replace('/', "%2F");
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={query}");
        eventually(PATIENCE, &format!("the pods {selector} of {namespace} to be ready"), || {
            let list = self.object(&path)?;
            let items = list["items"].as_array().context("the list has no items")?;
            ensure!(!items.is_empty(), "there is none");
            items.iter().map(pod).collect()
        })
    }

    /// The pod of a node's agent.
    pub fn agent(&self, node: &str) -> Result<KubePod> {
        let pods = self.pods(NAMESPACE, "app.kubernetes.io/name=manx")?;
        pods.into_iter().find(|pod| pod.node == node).with_context(|| format!("no agent runs on {node}"))
    }

    /// Gives the network namespace of a pod its name in the lab: from here on it is one of the lab's namespaces, under the
    /// pod's name. It goes with the lab, or by [`Self::detach`].
    pub fn attach(&self, pod: &KubePod) -> Result<()> {
        let machine = self.machine(&pod.node)?;
        let name = self.lab.netns(&pod.name);
        if netns::exists(&name) {
            return Ok(());
        }
        let pids = machine.pod_processes(&pod.uid);
        let pid = pids.first().with_context(|| format!("pod {} has no process on {}", pod.name, pod.node))?;
        netns::attach(&name, *pid)
    }

    /// Takes the name away again.
    pub fn detach(&self, pod: &KubePod) -> Result<()> {
        netns::detach(&self.lab.netns(&pod.name))
    }

    /// The body of the answer of a web server, asked from an attached pod, a node, `tor` or `outside`.
    pub fn get(&self, from: &str, server: SocketAddr) -> Result<String> {
        get::get(&self.lab.netns(from), server, "/")
    }

    /// A ping from one attached pod to another, every 10 ms.
    pub fn ping(&self, from: &KubePod, to: &KubePod, interval: Duration) -> Result<Ping> {
        self.lab.ping(&from.name, to.address, interval)
    }

    /// A stream from one attached pod to another.
    pub fn stream(&self, from: &KubePod, to: &KubePod, interval: Duration) -> Result<Stream> {
        Stream::start(&self.lab.netns(&from.name), &self.lab.netns(&to.name), to.address, interval)
    }
}

fn pod(object: &Value) -> Result<KubePod> {
    let text = |value: &Value, what: &str| {
        value.as_str().map(str::to_owned).with_context(|| format!("a pod has no {what} yet"))
    };
    let (metadata, status) = (&object["metadata"], &object["status"]);
    let name = text(&metadata["name"], "name")?;
    ensure!(metadata["deletionTimestamp"].is_null(), "{name} is about to go");
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    if !conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True") {
        bail!("{name} is {} and not ready: {}", status["phase"], status["containerStatuses"]);
    }
    let address = text(&status["podIP"], "address")?;
    Ok(KubePod {
        namespace: text(&metadata["namespace"], "namespace")?,
        node: text(&object["spec"]["nodeName"], "node")?,
        uid: text(&metadata["uid"], "uid")?,
        address: address.parse().with_context(|| format!("the address {address} of {name}"))?,
        name,
    })
}
