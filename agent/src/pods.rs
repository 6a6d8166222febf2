//! What a CNI request does: addresses from IPAM, a link from the kernel, and the reverse.
//!
//! ADD takes the address, enters the pod in [`Endpoints`], then makes the link and its route: in this order the node
//! loop never meets a route of ours that it cannot explain. DEL takes the link away first, then gives the address back:
//! in this order no two links ever have one address. Both may be repeated, and cut off anywhere: a repeated ADD finds
//! what the first one made, a repeated DEL finds nothing to do, and what a crash left is swept at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use manx_cni::config::Ipam;
use manx_cni::handle::handle_id;
use manx_cni::protocol::{Attachment, Command, Pod};
use manx_cni::{Attached, CniError, Code, Conf, Container, Mac, Reply, Request};
use manx_felix::{Kernel, PodLink};
use manx_ipam::AssignRequest;
use manx_model::{NodeName, veth_name};
use tokio::sync::watch;

use crate::addresses::{Addresses, Refused};
use crate::endpoints::{Endpoint, Endpoints};

/// Carries out CNI requests.
pub struct Pods {
    /// This node.
    pub node: NodeName,
    /// The beginning of the names of host ends.
    pub interface_prefix: String,
    /// The MTU of pods, unless the network configuration gives one.
    pub mtu: watch::Receiver<Result<u32, String>>,
    /// IPAM.
    pub addresses: Addresses,
    /// The pods of this node.
    pub endpoints: Endpoints,
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// The time of day.
    pub wall_clock: fn() -> SystemTime,
}

impl Pods {
    /// Answers one request; `netns` is the pod's namespace, where it still has one.
    pub async fn serve(&self, request: Request, netns: Option<OwnedFd>) -> Reply {
        let answer = match &request.command {
            Command::Add(container) => self.add(&request, container, netns).await.map(Reply::Attached),
            Command::Check(container) => self.check(&request, container, netns).await.map(|()| Reply::Done),
            Command::Del(container) => self.del(&request.network, container).await.map(|()| Reply::Done),
            Command::Gc { valid } => self.gc(&request.network, valid).await.map(|()| Reply::Done),
            Command::Status => Ok(Reply::Done),
        };
        answer.unwrap_or_else(Reply::Error)
    }

    async fn add(
        &self,
        request: &Request,
        container: &Container,
        netns: Option<OwnedFd>,
    ) -> Result<Attached, CniError> {
        let netns = netns.ok_or_else(no_namespace)?;
        let conf = request.conf()?;
        only_ipv4(&conf.ipam)?;
        let mtu = self.mtu(&conf)?;
        let handle = handle_id(&request.network, &container.container_id);
        let host_device = self.host_device(container);
        let _alone = self.endpoints.lock(&host_device).await;
        let known = self.endpoints.get(&handle);
        let mut assign = AssignRequest::ipv4(handle.clone(), self.attributes(container));
        assign.ipv4.pools = conf.ipam.ipv4_pools;
        let assigned = self.addresses.assign(assign).await.map_err(no_address)?;
        let pod = PodLink {
            host_device,
            pod_device: container.pod_device.clone(),
            handle: handle.clone(),
            addresses: assigned.into_iter().map(|assigned| assigned.address).collect(),
            mtu,
            allow_ip_forwarding: conf.allow_ip_forwarding,
        };
        let endpoint = Endpoint { device: pod.host_device.clone(), addresses: pod.addresses.clone() };
        self.endpoints.insert(handle, endpoint);
        match self.kernel.attach(netns, &pod).await {
            Ok(macs) => Ok(attached(pod, &macs)),
            Err(error) => {
                // A repeated ADD that fails must not take the address from under the pod of the first.
                if known.is_none() {
                    self.undo(&pod).await;
                }
                Err(CniError::new(Code::DATAPLANE, "the kernel refused the pod's link", error.to_string()))
            }
        }
    }

    /// What cannot be undone is swept later; the error that led here is the one to report.
    async fn undo(&self, pod: &PodLink) {
        if let Err(error) = self.detach(&pod.host_device, &pod.handle).await {
            tracing::warn!(handle = pod.handle, "after a failed ADD: {error}");
        }
    }

    async fn check(
        &self,
        request: &Request,
        container: &Container,
        netns: Option<OwnedFd>,
    ) -> Result<(), CniError> {
        const MSG: &str = "the pod's network is not what ADD made it";
        let netns = netns.ok_or_else(no_namespace)?;
        let handle = handle_id(&request.network, &container.container_id);
        let _alone = self.endpoints.lock(&self.host_device(container)).await;
        let Some(endpoint) = self.endpoints.get(&handle) else {
            let details = format!("no address is held by {handle}");
            return Err(CniError::new(Code::UNKNOWN_CONTAINER, MSG, details));
        };
        let conf = request.conf()?;
        let pod = PodLink {
            host_device: endpoint.device,
            pod_device: container.pod_device.clone(),
            handle,
            addresses: endpoint.addresses,
            mtu: self.mtu(&conf)?,
            allow_ip_forwarding: conf.allow_ip_forwarding,
        };
        match self.kernel.check(netns, &pod).await {
            Ok(differences) if differences.is_empty() => Ok(()),
            Ok(differences) => Err(CniError::new(Code::CHECK_FAILED, MSG, differences.join("; "))),
            Err(error) => Err(CniError::new(Code::DATAPLANE, MSG, error.to_string())),
        }
    }

    async fn del(&self, network: &str, container: &Container) -> Result<(), CniError> {
        let handle = handle_id(network, &container.container_id);
        let host_device = self.host_device(container);
        let _alone = self.endpoints.lock(&host_device).await;
        self.detach(&host_device, &handle).await
    }

    /// Releases every container of `network` that the runtime no longer knows.
    async fn gc(&self, network: &str, valid: &[Attachment]) -> Result<(), CniError> {
        let valid: BTreeSet<String> =
            valid.iter().map(|known| handle_id(network, &known.container_id)).collect();
        let ours = format!("{}.", network.to_lowercase());
        let stale = self
            .endpoints
            .all()
            .into_iter()
            .filter(|(handle, _)| handle.starts_with(&ours) && !valid.contains(handle));
        for (handle, endpoint) in stale {
            let _alone = self.endpoints.lock(&endpoint.device).await;
            self.detach(&endpoint.device, &handle).await?;
            tracing::info!(handle, "released: the runtime no longer knows this container");
        }
        Ok(())
    }

    async fn detach(&self, device: &str, handle: &str) -> Result<(), CniError> {
        const MSG: &str = "the pod's network could not be removed";
        let refused = |error: String| CniError::new(Code::DATAPLANE, MSG, error);
        self.kernel.detach(device, handle).await.map_err(|error| refused(error.to_string()))?;
        let kept = |error: Refused| {
            CniError::new(
                Code::TRY_AGAIN_LATER,
                "the pod's address could not be given back",
                error.to_string(),
            )
        };
        self.addresses.release(handle.to_owned()).await.map_err(kept)?;
        self.endpoints.remove(handle);
        Ok(())
    }

    /// The pod's MTU: by the network configuration, else by the node.
    fn mtu(&self, conf: &Conf) -> Result<u32, CniError> {
        let unknown = |reason| CniError::new(Code::TRY_AGAIN_LATER, "the pod's MTU is not known yet", reason);
        conf.mtu.map_or_else(|| self.mtu.borrow().clone().map_err(unknown), Ok)
    }

    fn host_device(&self, container: &Container) -> String {
        match &container.pod {
            Some(Pod { namespace, name, .. }) => veth_name(&self.interface_prefix, namespace, name),
            None => {
                let id: String = container.container_id.chars().take(11).collect();
                format!("{}{id}", self.interface_prefix)
            }
        }
    }

    /// What IPAM records about the holder: Calico's attributes of a pod.
    fn attributes(&self, container: &Container) -> BTreeMap<String, String> {
        let mut attributes = BTreeMap::from([
            ("node".to_owned(), self.node.to_string()),
            ("timestamp".to_owned(), manx_ipam::rfc3339((self.wall_clock)())),
        ]);
        if let Some(pod) = &container.pod {
            attributes.insert("namespace".into(), pod.namespace.clone());
            attributes.insert("pod".into(), pod.name.clone());
        }
        attributes
    }
}

fn attached(pod: PodLink, macs: &manx_felix::Attached) -> Attached {
    Attached {
        host_device: pod.host_device,
        host_mac: Mac(macs.host_mac.0),
        pod_device: pod.pod_device,
        pod_mac: Mac(macs.pod_mac.0),
        mtu: pod.mtu,
        addresses: pod.addresses,
    }
}

fn only_ipv4(ipam: &Ipam) -> Result<(), CniError> {
    let wrong = match ipam {
        Ipam { assign_ipv6: true, .. } => "ipam.assign_ipv6 is \"true\"",
        Ipam { assign_ipv4: false, .. } => "ipam.assign_ipv4 is \"false\"",
        Ipam { ipv6_pools, .. } if !ipv6_pools.is_empty() => "ipam.ipv6_pools names pools",
        _ => return Ok(()),
    };
    let details = format!("{wrong}, and IPv6 is not supported yet: remove it, and pods get an IPv4 address");
    Err(CniError::new(Code::CONFIG, "the network configuration cannot be carried out", details))
}

fn no_namespace() -> CniError {
    let details = "the request came without the pod's network namespace; CNI_NETNS must name it";
    CniError::new(Code::ENVIRONMENT, "no network namespace", details)
}

fn no_address(reason: Refused) -> CniError {
    let code = if reason.is_passing() { Code::TRY_AGAIN_LATER } else { Code::NO_ADDRESS };
    CniError::new(code, "no address could be assigned", reason.to_string())
}
