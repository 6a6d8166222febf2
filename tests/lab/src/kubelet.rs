//! Who brings pods to nodes and takes them away: the lab alone, or, in a cluster on Kubernetes, as its kubelets, with a
//! Pod object for every pod and its uid in `CNI_ARGS`.

use anyhow::{Context as _, Result};
use manx_kubernetes::Client;

use crate::kubernetes::pods;
use crate::{Lab, Pod, netns};

/// The kubelets of all nodes. May be used from many threads.
#[derive(Debug)]
pub struct Kubelet {
    lab: Lab,
    api: Option<Client>,
}

impl Kubelet {
    pub(crate) fn new(lab: Lab, api: Option<Client>) -> Kubelet {
        Kubelet { lab, api }
    }

    /// Brings a pod to a node, and tells Kubernetes its address. When the plugin fails, nothing of the pod is left, not
    /// even its object.
    pub fn add(&self, node: &str, pod: &str, namespace: &str) -> Result<Pod> {
        self.create(node, pod, namespace)?;
        self.lab.pod_namespace(pod)?;
        let started = self.start(node, pod, namespace);
        if started.is_err() {
            let _ = self.lab.cni_call("DEL", node, pod, namespace).and_then(|call| self.lab.cni(&call));
            netns::remove(&[self.lab.netns(pod)])?;
            self.forget(pod, namespace)?;
        }
        started.with_context(|| format!("attaching pod {namespace}/{pod} on {node}"))
    }

    /// Makes the Pod object alone.
    pub fn create(&self, node: &str, pod: &str, namespace: &str) -> Result<()> {
        match &self.api {
            Some(api) => self.lab.set_pod_uid(pod, &pods::create(api, node, pod, namespace)?),
            None => Ok(()),
        }
    }

    /// Attaches a pod whose namespace and object are there: the plugin's ADD, once, and then the Pod's status.
    pub fn start(&self, node: &str, pod: &str, namespace: &str) -> Result<Pod> {
        let attached = self.lab.pod_attach(node, pod, namespace)?;
        if let Some(api) = &self.api {
            pods::started(api, pod, namespace, &attached.address.to_string())?;
        }
        Ok(attached)
    }

    /// Detaches a pod, removes its namespace, and then its object.
    pub fn delete(&self, pod: &str) -> Result<()> {
        let namespace = self.lab.pod(pod)?.namespace;
        self.lab.pod_del(pod)?;
        self.forget(pod, &namespace)
    }

    /// Removes the Pod object alone.
    pub fn forget(&self, pod: &str, namespace: &str) -> Result<()> {
        self.api.as_ref().map_or(Ok(()), |api| pods::delete(api, pod, namespace))
    }
}
