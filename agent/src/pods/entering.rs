//! Where a pod's addresses come from, and that nobody else on this node has them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use manx_cni::protocol::Pod;
use manx_cni::settings::Source;
use manx_cni::{CniError, Code, Container};
use manx_felix::{Begun, KernelError, PodLink};
use manx_ipam::{AssignRequest, Wanted};
use manx_model::AllowedUse;

use super::{Pods, no_address};
use crate::addresses::Granted;
use crate::demand::Demand;
use crate::endpoints::{Endpoint, Origin};
use crate::pod_objects::Found;

/// Who is to be entered.
pub(super) struct Newcomer<'a> {
    pub(super) network: &'a str,
    pub(super) container: &'a Container,
    pub(super) handle: &'a str,
    pub(super) host_device: &'a str,
    pub(super) source: Source,
    pub(super) known: Option<&'a Endpoint>,
}

/// Who was entered.
pub(super) struct Entered {
    pub(super) endpoint: Endpoint,
    /// The datastore is away, and does not know of it yet.
    pub(super) away: bool,
}

impl Pods {
    /// Enters the pod, and has the kernel begin with `link` meanwhile, which waits for nothing but the addresses.
    pub(super) async fn enter_and_begin(
        &self,
        newcomer: &Newcomer<'_>,
        demand: Demand,
        found: &Found,
        netns: OwnedFd,
        link: &PodLink,
    ) -> Result<(Entered, Result<Begun, KernelError>), CniError> {
        let ipv6 = newcomer.known.map_or(demand.ipv6, |known| known.addresses.iter().any(IpAddr::is_ipv6));
        let begin = async {
            match newcomer.source() {
                Source::Blocks => self.kernel.begin(netns, link, ipv6).await,
                // The link tells the addresses as well.
                Source::PodCidr => Ok(Begun::from(netns)),
            }
        };
        match tokio::join!(self.enter(newcomer, demand, found), begin) {
            (Ok(entered), begun) => Ok((entered, begun)),
            (Err(error), Ok(Begun { ends: Some(_), .. })) => {
                // The link of a pod without an address.
                if let Err(error) = self.kernel.detach(&link.host_device, &link.handle).await {
                    tracing::warn!(handle = newcomer.handle, "after a failed ADD: {error}");
                }
                Err(error)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Takes addresses for a pod, and enters it with them.
    async fn enter(
        &self,
        newcomer: &Newcomer<'_>,
        demand: Demand,
        found: &Found,
    ) -> Result<Entered, CniError> {
        let handle = newcomer.handle;
        match newcomer.source() {
            Source::PodCidr => {
                if newcomer.known.is_none() {
                    self.pod_cidrs.ready().await?;
                }
                let entered = self.endpoints.enter(handle, |taken| {
                    let addresses = match newcomer.known {
                        Some(known) => known.addresses.clone(),
                        None => self.pod_cidrs.choose(&demand, taken)?,
                    };
                    Ok(newcomer.endpoint(addresses, Source::PodCidr))
                });
                entered.map(|endpoint| Entered { endpoint, away: false })
            }
            Source::Blocks => {
                let assigned = self.addresses.assign(self.request(newcomer, demand, found)).await;
                let Granted { assigned, away } = assigned.map_err(no_address)?;
                let addresses: Vec<IpAddr> = assigned.into_iter().map(|assigned| assigned.address).collect();
                let endpoint = newcomer.endpoint(addresses, Source::Blocks);
                let entered = self.endpoints.enter(handle, |taken| free(endpoint, taken));
                if entered.is_err() {
                    // Kept, it would come again; what cannot be given back now is owed, or swept at the next start.
                    drop(self.addresses.release(handle.to_owned()).await);
                }
                entered.map(|endpoint| Entered { endpoint, away })
            }
        }
    }

    fn request(&self, newcomer: &Newcomer<'_>, demand: Demand, found: &Found) -> AssignRequest {
        AssignRequest {
            handle: newcomer.handle.to_owned(),
            attributes: self.attributes(newcomer.container),
            ipv4: Wanted { count: usize::from(demand.ipv4), pools: demand.ipv4_pools },
            ipv6: Wanted { count: usize::from(demand.ipv6), pools: demand.ipv6_pools },
            fixed: demand.addresses,
            usage: AllowedUse::Workload,
            namespace_labels: found.namespace.as_ref().map(|namespace| namespace.labels.clone()),
        }
    }
}

impl Newcomer<'_> {
    /// A repeated ADD gives what the first gave, whatever the network says since.
    fn source(&self) -> Source {
        self.known.map_or(self.source, |known| known.source)
    }

    fn endpoint(&self, addresses: Vec<IpAddr>, source: Source) -> Endpoint {
        let pod_device = self.container.pod_device.clone();
        let key = |pod: &Pod| format!("{}/{}", pod.namespace, pod.name);
        Endpoint {
            device: self.host_device.to_owned(),
            addresses,
            pod: self.container.pod.as_ref().map(key),
            origin: Some(Origin { network: self.network.to_owned(), pod_device }),
            source,
        }
    }
}

/// IPAM gives no address twice; but while a node goes over from blocks to its podCIDR, or back, it does not know of all.
fn free(endpoint: Endpoint, taken: &BTreeSet<IpAddr>) -> Result<Endpoint, CniError> {
    match endpoint.addresses.iter().find(|address| taken.contains(address)) {
        None => Ok(endpoint),
        Some(address) => {
            let details = format!("a pod of this node has {address} from the Node's podCIDR");
            Err(CniError::new(Code::TRY_AGAIN_LATER, "no address could be assigned", details))
        }
    }
}
