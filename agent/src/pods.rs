//! What a CNI request does: addresses from IPAM, a link from the kernel, and the reverse.
//!
//! ADD takes the address and enters the pod in [`Endpoints`], while the kernel makes the two ends of its link; then the
//! link is finished, its route last: in this order the node loop never meets a route of ours that it cannot explain. DEL
//! takes the link away first, then gives the address back: in this order no two links ever have one address. Both may be
//! repeated, and cut off anywhere: a repeated ADD finds what the first one made, a repeated DEL finds nothing to do, and
//! what a crash left is swept at the next start.

mod entering;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use manx_cni::handle::handle_id;
use manx_cni::previous::Previous;
use manx_cni::protocol::{Attachment, Command, Pod};
use manx_cni::settings::{Source, Wishes};
use manx_cni::{Attached, CniError, Code, Container, Mac, Reply, Request, Settings};
use manx_felix::{Kernel, MacAddress, PodLink};
use manx_model::{NodeName, veth_name};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::addresses::{Addresses, Refused, Release};
use crate::demand::{About, demand};
use crate::endpoints::{Endpoint, Endpoints};
use crate::network;
use crate::pod_cidrs::PodCidrs;
use crate::pod_objects::PodObjects;
use crate::problems::Problems;
use crate::readiness;
use entering::{Entered, Newcomer};

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
    /// The other source of addresses.
    pub pod_cidrs: PodCidrs,
    /// The pods of this node.
    pub endpoints: Endpoints,
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// Told of what a network configuration asks for in vain.
    pub problems: Problems,
    /// The objects behind the pods.
    pub objects: PodObjects,
    /// The time of day.
    pub wall_clock: fn() -> SystemTime,
}

impl Pods {
    /// Answers one request; `netns` is the pod's namespace, where it still has one.
    pub async fn serve(&self, request: Request, netns: Option<OwnedFd>) -> Reply {
        let answer = match &request.command {
            Command::Add(container) => self.add(&request, container, netns).await.map(Reply::Attached),
            Command::Check { container, previous } => {
                self.check(&request, container, previous, netns).await.map(|()| Reply::Done)
            }
            Command::Del(container) => self.del(&request.network, container).await.map(|()| Reply::Done),
            Command::Gc { valid } => self.gc(&request.network, valid).await.map(|()| Reply::Done),
            Command::Status => self.status(&request).await.map(|()| Reply::Done),
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
        let settings = &request.settings;
        self.tell_in_vain(&request.network, settings, &container.wishes);
        let mtu = self.mtu(settings)?;
        readiness::wait(&readiness::gates(settings)?).await?;
        let source = settings.ipam.source;
        let found = match source {
            Source::Blocks => self.objects.find(container.pod.as_ref()).await?,
            Source::PodCidr => self.objects.find_if_it_answers(container.pod.as_ref()).await?,
        };
        let demand = demand(&settings.ipam, &container.wishes, found.about())?;
        network::refuse(&demand)?;
        let handle = handle_id(&request.network, &container.container_id);
        let host_device = self.host_device(container);
        let alone = self.endpoints.lock(&host_device).await;
        let known = self.endpoints.get(&handle);
        if let Some(has) = known.as_ref().and_then(|known| known.other_device(&container.pod_device)) {
            return Err(second_device(has, &container.pod_device));
        }
        let pod_mac = demand.mac.map(|mac| MacAddress(mac.0));
        let newcomer = Newcomer {
            network: &request.network,
            container,
            handle: &handle,
            host_device: &host_device,
            source,
            known: known.as_ref(),
        };
        let mut pod = PodLink {
            handle: handle.clone(),
            host_device: host_device.clone(),
            pod_device: container.pod_device.clone(),
            addresses: Vec::new(),
            mtu,
            pod_mac,
            destinations: network::destinations(settings),
            queues: settings.queues,
            allow_ip_forwarding: settings.allow_ip_forwarding,
        };
        let (Entered { endpoint, away }, begun) =
            self.enter_and_begin(&newcomer, demand, &found, netns, &pod).await?;
        pod.handle = endpoint.alias(&handle);
        pod.addresses = endpoint.addresses;
        let made = match begun {
            Ok(begun) => self.kernel.attach(begun, &pod).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(macs) => {
                self.say_attached(found.pod, container, &pod.addresses, away, alone);
                Ok(attached(pod, &macs))
            }
            Err(error) => {
                // A repeated ADD that fails must not take the address from under the pod of the first.
                if known.is_none() {
                    self.undo(&pod.host_device, &handle).await;
                }
                let reason = error.to_string();
                Err(CniError::new(Code::DATAPLANE, "the kernel refused the pod's link", reason))
            }
        }
    }

    /// Says on the Pod what it has. The pod need not wait for that, but whoever works on it next does: `alone` keeps them
    /// out meanwhile.
    fn say_attached(
        &self,
        pod: Option<Arc<manx_model::Pod>>,
        container: &Container,
        addresses: &[IpAddr],
        away: bool,
        alone: OwnedMutexGuard<()>,
    ) {
        let Some(pod) = pod else { return };
        let objects = self.objects.clone();
        if away {
            // While nobody listens it is said later.
            return objects.attached_unsaid();
        }
        let (container_id, addresses) = (container.container_id.clone(), addresses.to_vec());
        tokio::spawn(async move {
            objects.attached(&pod, &container_id, &addresses).await;
            drop(alone);
        });
    }

    /// What cannot be undone is swept later; the error that led here is the one to report.
    async fn undo(&self, host_device: &str, handle: &str) {
        if let Err(error) = self.detach(host_device, handle).await {
            tracing::warn!(handle, "after a failed ADD: {error}");
        }
    }

    async fn check(
        &self,
        request: &Request,
        container: &Container,
        previous: &Previous,
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
        let mut differences = unlike(previous, &endpoint);
        let pod = PodLink {
            handle: endpoint.alias(&handle),
            host_device: endpoint.device,
            pod_device: container.pod_device.clone(),
            addresses: endpoint.addresses,
            mtu: self.mtu(&request.settings)?,
            pod_mac: self.demanded_mac(request, container).await,
            destinations: network::destinations(&request.settings),
            queues: request.settings.queues,
            allow_ip_forwarding: request.settings.allow_ip_forwarding,
        };
        match self.kernel.check(netns, &pod).await {
            Ok(found) => differences.extend(found),
            Err(error) => return Err(CniError::new(Code::DATAPLANE, MSG, error.to_string())),
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(CniError::new(Code::CHECK_FAILED, MSG, differences.join("; ")))
    }

    /// The MAC that an ADD would give now. Where the pod's wishes cannot be had, any is right.
    async fn demanded_mac(&self, request: &Request, container: &Container) -> Option<MacAddress> {
        let found = self.objects.find(container.pod.as_ref()).await.ok()?;
        let demand = demand(&request.settings.ipam, &container.wishes, found.about()).ok()?;
        demand.mac.map(|mac| MacAddress(mac.0))
    }

    /// Whether an ADD with this configuration would be served.
    async fn status(&self, request: &Request) -> Result<(), CniError> {
        let (settings, wishes) = (&request.settings, Wishes::default());
        self.tell_in_vain(&request.network, settings, &wishes);
        let demand = demand(&settings.ipam, &wishes, About::default())?;
        network::refuse(&demand)?;
        readiness::gates(settings)?;
        let unavailable = |error: CniError| CniError { code: Code::NOT_AVAILABLE, ..error };
        if settings.ipam.source == Source::PodCidr {
            self.pod_cidrs.ready().await.map_err(unavailable)?;
        }
        let cluster = Arc::clone(&self.objects.cluster.borrow());
        if let Some(reason) = network::unserved(&cluster, &self.pod_cidrs.own, settings.ipam.source, &demand)
        {
            return Err(CniError::new(Code::NOT_AVAILABLE, "no pod can be attached", reason));
        }
        self.mtu(&request.settings).map(drop).map_err(unavailable)
    }

    fn tell_in_vain(&self, network: &str, settings: &Settings, wishes: &Wishes) {
        let in_vain = network::without_effect(network, settings, wishes, &self.node);
        self.problems.set("CNI configuration", in_vain);
    }

    async fn del(&self, network: &str, container: &Container) -> Result<(), CniError> {
        let handle = handle_id(network, &container.container_id);
        let host_device = self.host_device(container);
        let alone = self.endpoints.lock(&host_device).await;
        if self
            .endpoints
            .get(&handle)
            .is_some_and(|known| known.other_device(&container.pod_device).is_some())
        {
            // The runtime cleans up after an ADD that was refused: the pod keeps the device that it has.
            return Ok(());
        }
        let released = self.detach(&host_device, &handle).await?;
        // What is still held in IPAM the Pod still has: the collector must not take it for released, since the pod's next
        // container may be given it before the datastore is back.
        if let (Some(pod), Release::Done(_)) = (&container.pod, released) {
            let (objects, container_id) = (self.objects.clone(), container.container_id.clone());
            let key = format!("{}/{}", pod.namespace, pod.name);
            // As after an ADD: nobody waits for it but who works on the pod next.
            tokio::spawn(async move {
                objects.detached(&key, &container_id).await;
                drop(alone);
            });
        }
        Ok(())
    }

    /// Releases every container of `network` that the runtime no longer knows.
    async fn gc(&self, network: &str, valid: &[Attachment]) -> Result<(), CniError> {
        let valid: BTreeSet<String> =
            valid.iter().map(|known| handle_id(network, &known.container_id)).collect();
        let stale = self
            .endpoints
            .all()
            .into_iter()
            .filter(|(handle, endpoint)| endpoint.is_in(network, handle) && !valid.contains(handle));
        for (handle, endpoint) in stale {
            let _alone = self.endpoints.lock(&endpoint.device).await;
            self.detach(&endpoint.device, &handle).await?;
            tracing::info!(handle, "released: the runtime no longer knows this container");
        }
        Ok(())
    }

    async fn detach(&self, device: &str, handle: &str) -> Result<Release, CniError> {
        const MSG: &str = "the pod's network could not be removed";
        let refused = |error: String| CniError::new(Code::DATAPLANE, MSG, error);
        let known = self.endpoints.get(handle);
        let alias = known.as_ref().map_or_else(|| handle.to_owned(), |known| known.alias(handle));
        self.kernel.detach(device, &alias).await.map_err(|error| refused(error.to_string()))?;
        if known.is_some_and(|known| known.source == Source::PodCidr) {
            self.endpoints.remove(handle);
            return Ok(Release::Done(Vec::new()));
        }
        let kept = |error: Refused| {
            CniError::new(
                Code::TRY_AGAIN_LATER,
                "the pod's address could not be given back",
                error.to_string(),
            )
        };
        let released = self.addresses.release(handle.to_owned()).await.map_err(kept)?;
        self.endpoints.remove(handle);
        Ok(released)
    }

    /// The pod's MTU: by the network configuration, else by the node.
    fn mtu(&self, settings: &Settings) -> Result<u32, CniError> {
        let unknown = |reason| CniError::new(Code::TRY_AGAIN_LATER, "the pod's MTU is not known yet", reason);
        settings.mtu.map_or_else(|| self.mtu.borrow().clone().map_err(unknown), Ok)
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
        mtu: macs.mtu,
        addresses: pod.addresses,
    }
}

/// What ADD reported to the runtime, and is not so: the runtime and the pod's neighbours may rely on it.
fn unlike(previous: &Previous, endpoint: &Endpoint) -> Vec<String> {
    let device = (!previous.host_devices.contains(&endpoint.device)).then(|| {
        format!("prevResult does not have {}, which is the pod's device on the host", endpoint.device)
    });
    let missing = endpoint.addresses.iter().filter(|address| !previous.addresses.contains(address));
    let missing =
        missing.map(|address| format!("prevResult does not have {address}, which is the pod's address"));
    device.into_iter().chain(missing).collect()
}

/// The handle of a pod's addresses does not name the device, as Calico's does not: a network gives a container one.
fn second_device(has: &str, wanted: &str) -> CniError {
    let details = format!(
        "CNI_IFNAME is {wanted:?}, and the container has {has:?} in this network already; a second device needs a \
         network of another name"
    );
    CniError::new(Code::CONFIG, "a container has one device in a network", details)
}

fn no_namespace() -> CniError {
    let details = "the request came without the pod's network namespace; CNI_NETNS must name it";
    CniError::new(Code::ENVIRONMENT, "no network namespace", details)
}

fn no_address(reason: Refused) -> CniError {
    let code = if reason.is_passing() { Code::TRY_AGAIN_LATER } else { Code::NO_ADDRESS };
    CniError::new(code, "no address could be assigned", reason.to_string())
}
