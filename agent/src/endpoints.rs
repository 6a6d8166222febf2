//! The pods of this node, and who may work on which of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use manx_cni::settings::Source;
use manx_felix::Snapshot;
use manx_ipam::Allocator;
use manx_model::{Pod, veth_name};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use crate::addresses::by_handle;
use crate::latest;
use crate::pod_cidrs;

/// A pod's end of the wire on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host's device.
    pub device: String,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The key of its Pod object, `namespace/name`, where it has one.
    pub pod: Option<String>,
    /// How the pod was attached. `None`: by an agent before this one.
    pub origin: Option<Origin>,
    /// Where its addresses come from.
    pub source: Source,
}

/// What only the ADD says of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The network's name.
    pub network: String,
    /// The pod's own device.
    pub pod_device: String,
}

impl Endpoint {
    /// The alias of its link: it tells whose the link is, and of what nobody else remembers, the addresses.
    pub fn alias(&self, handle: &str) -> String {
        match self.source {
            Source::Blocks => handle.to_owned(),
            Source::PodCidr => pod_cidrs::alias(handle, &self.addresses),
        }
    }

    /// The pod's device in this network, if it is known and is not `pod_device`.
    pub fn other_device(&self, pod_device: &str) -> Option<&str> {
        let known = self.origin.as_ref().map(|origin| origin.pod_device.as_str());
        known.filter(|known| *known != pod_device)
    }

    /// Whether the pod of `handle` is certainly in `network`. Handles are `network.container`, and both may contain dots:
    /// of a pod whose ADD we have not seen, the shortest container's id counts.
    pub fn is_in(&self, network: &str, handle: &str) -> bool {
        match &self.origin {
            Some(origin) => origin.network == network,
            None => handle.rsplit_once('.').is_some_and(|(name, _)| name == network.to_lowercase()),
        }
    }
}

/// The pods of this node by IPAM handle. Cheap to clone; all clones are one table.
#[derive(Clone, Debug, Default)]
pub struct Endpoints(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    by_handle: BTreeMap<String, Endpoint>,
    locks: BTreeMap<String, Weak<AsyncMutex<()>>>,
    /// The addresses of pods that have them from podCIDRs.
    from_pod_cidrs: watch::Sender<BTreeSet<IpAddr>>,
}

impl Table {
    fn tell_pod_cidrs(&self) {
        let of_pod_cidrs = self.by_handle.values().filter(|pod| pod.source == Source::PodCidr);
        latest::set(&self.from_pod_cidrs, of_pod_cidrs.flat_map(|pod| pod.addresses.clone()).collect());
    }
}

impl Endpoints {
    /// Waits until nobody else works on the pod behind `device`, and keeps others out until the guard is dropped. While
    /// a sandbox is replaced, two containers of one pod have one device.
    pub async fn lock(&self, device: &str) -> OwnedMutexGuard<()> {
        let lock = self.with(|table| {
            table.locks.retain(|_, lock| lock.strong_count() > 0);
            match table.locks.get(device).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(AsyncMutex::new(()));
                    table.locks.insert(device.to_owned(), Arc::downgrade(&lock));
                    lock
                }
            }
        });
        lock.lock_owned().await
    }

    /// The pod of `handle`.
    pub fn get(&self, handle: &str) -> Option<Endpoint> {
        self.with(|table| table.by_handle.get(handle).cloned())
    }

    /// Adds or replaces a pod. It must be here before its route is in the kernel, or the route would be taken for stale.
    pub fn insert(&self, handle: String, endpoint: Endpoint) {
        self.with(|table| {
            table.by_handle.insert(handle, endpoint);
            table.tell_pod_cidrs();
        });
    }

    /// Enters the pod of `handle` as `make` says, which is told the addresses that other pods have; nobody comes between.
    ///
    /// # Errors
    /// Those of `make`: nothing is changed.
    pub fn enter<E>(
        &self,
        handle: &str,
        make: impl FnOnce(&BTreeSet<IpAddr>) -> Result<Endpoint, E>,
    ) -> Result<Endpoint, E> {
        self.with(|table| {
            let others = table.by_handle.iter().filter(|(other, _)| *other != handle);
            let endpoint = make(&others.flat_map(|(_, pod)| pod.addresses.iter().copied()).collect())?;
            table.by_handle.insert(handle.to_owned(), endpoint.clone());
            table.tell_pod_cidrs();
            Ok(endpoint)
        })
    }

    /// Forgets a pod.
    pub fn remove(&self, handle: &str) {
        self.with(|table| {
            table.by_handle.remove(handle);
            table.tell_pod_cidrs();
        });
    }

    /// The addresses of pods that have them from podCIDRs, as they change.
    pub fn from_pod_cidrs(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.with(|table| table.from_pod_cidrs.subscribe())
    }

    /// Every pod.
    pub fn all(&self) -> BTreeMap<String, Endpoint> {
        self.with(|table| table.by_handle.clone())
    }

    /// Which addresses belong behind which device: of the pods whose link the kernel has, under their own handle. While
    /// a sandbox is replaced two handles share a device's name; the link's alias says whose it is.
    pub fn routable(&self, kernel: &Snapshot) -> BTreeMap<IpAddr, String> {
        let owner = |device: &str| kernel.link(device).and_then(|link| link.alias.clone());
        self.with(|table| {
            let linked =
                table.by_handle.iter().filter(|(handle, pod)| owner(&pod.device) == Some(pod.alias(handle)));
            linked
                .flat_map(|(_, pod)| pod.addresses.iter().map(|address| (*address, pod.device.clone())))
                .collect()
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Enters the pods that outlived the last agent: what IPAM holds, where the kernel has the link. Returns the handles
/// of pods that are gone, each with how that is known.
pub fn adopt(
    endpoints: &Endpoints,
    allocator: &Allocator,
    kernel: &Snapshot,
    prefix: &str,
) -> BTreeMap<String, String> {
    let by_alias: BTreeMap<&str, &str> =
        kernel.links.values().filter_map(|link| Some((link.alias.as_deref()?, link.name.as_str()))).collect();
    let mut stale = BTreeMap::new();
    for (handle, held) in by_handle(allocator) {
        let survival = match by_alias.get(handle) {
            Some(device) => Survival::Device((*device).to_owned()),
            None => without_alias(handle, held.attributes, kernel, prefix),
        };
        match survival {
            Survival::Device(device) => {
                let (pod, source) = (pod_key(held.attributes), Source::Blocks);
                let endpoint = Endpoint { device, addresses: held.addresses, pod, origin: None, source };
                endpoints.insert(handle.to_owned(), endpoint);
            }
            Survival::Gone(reason) => drop(stale.insert(handle.to_owned(), reason)),
            Survival::NoPod => {}
        }
    }
    // What IPAM does not know of yet, the kernel does.
    for (handle, attributes, addresses) in allocator.promises() {
        let Some(device) = by_alias.get(handle) else { continue };
        let (device, addresses) = ((*device).to_owned(), addresses.to_vec());
        let (pod, source) = (pod_key(attributes), Source::Blocks);
        let endpoint = Endpoint { device, addresses, pod, origin: None, source };
        endpoints.insert(handle.to_owned(), endpoint);
        stale.remove(handle);
    }
    stale
}

/// The key of the Pod that attributes name.
fn pod_key(attributes: &BTreeMap<String, String>) -> Option<String> {
    Some(format!("{}/{}", attributes.get("namespace")?, attributes.get("pod")?))
}

/// Enters the pods of podCIDRs that outlived the last agent: those of which the link alone tells that they are there. Whose
/// it is, the device's name says of the `pods` of this node.
pub fn adopt_pod_cidrs(endpoints: &Endpoints, kernel: &Snapshot, pods: &BTreeMap<String, Arc<Pod>>) {
    for link in kernel.links.values() {
        let Some((handle, addresses)) = link.alias.as_deref().and_then(pod_cidrs::read_alias) else {
            continue;
        };
        let pod = pod_behind(&link.name, pods);
        let pod = pod.map(|pod| format!("{}/{}", pod.namespace, pod.name));
        let (device, source) = (link.name.clone(), Source::PodCidr);
        endpoints.insert(handle.to_owned(), Endpoint { device, addresses, pod, origin: None, source });
    }
}

/// The Pod of this node whose host end has this name, whatever names of links begin with by now; one that is gone cannot be
/// found.
pub fn pod_behind<'a>(device: &str, pods: &'a BTreeMap<String, Arc<Pod>>) -> Option<&'a Arc<Pod>> {
    pods.values().find(|pod| device.ends_with(&veth_name("", &pod.namespace, &pod.name)))
}

enum Survival {
    Device(String),
    Gone(String),
    NoPod,
}

fn without_alias(
    handle: &str,
    attributes: &BTreeMap<String, String>,
    kernel: &Snapshot,
    prefix: &str,
) -> Survival {
    if attributes.contains_key("type") {
        return Survival::NoPod;
    }
    let (Some(namespace), Some(pod)) = (attributes.get("namespace"), attributes.get("pod")) else {
        return Survival::Gone(format!("no link has the alias {handle}"));
    };
    let device = veth_name(prefix, namespace, pod);
    match kernel.link(&device) {
        // Another program attached this pod (an alias is ours to give): its address stays its own.
        Some(link) if link.alias.is_none() => Survival::Device(device),
        Some(_) => Survival::Gone(format!("{device} belongs to another container of {namespace}/{pod}")),
        None => Survival::Gone(format!("{device} of {namespace}/{pod} is not there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_felix::{IfIndex, Link};
    use manx_model::{Kind, Object};

    fn kernel_with(device: &str, alias: &str) -> Snapshot {
        let index = IfIndex(7);
        let alias = Some(alias.to_owned());
        let link = Link { index, name: device.into(), up: true, mtu: 1480, alias, addresses: Vec::new() };
        Snapshot { links: [(index, link)].into(), ..Snapshot::default() }
    }

    fn endpoint(address: &str) -> Endpoint {
        Endpoint {
            device: "cali1".into(),
            addresses: vec![address.parse().unwrap()],
            pod: None,
            origin: None,
            source: Source::Blocks,
        }
    }

    #[test]
    fn no_two_pods_have_one_address_and_who_is_refused_changes_nothing() {
        let endpoints = Endpoints::default();
        let enter = |handle: &str, address: &str| {
            let pod = endpoint(address);
            endpoints.enter(handle, |taken| if taken.contains(&pod.addresses[0]) { Err(()) } else { Ok(pod) })
        };
        assert!(enter("net.a", "10.0.0.1").is_ok());
        assert!(enter("net.b", "10.0.0.1").is_err() && endpoints.all().len() == 1);
        assert!(enter("net.a", "10.0.0.1").is_ok(), "its own");
    }

    #[test]
    fn pods_of_pod_cidrs_are_known_by_their_links_and_told_to_who_announces_them() {
        let endpoints = Endpoints::default();
        let told = endpoints.from_pod_cidrs();
        let kernel = kernel_with("calic440f455693", "net.a 10.1.0.2");
        let pod = Object::new_in(Kind::Pod, "default", "nginx", &serde_json::json!({}));
        let pods = [(pod.key(), Arc::new(Pod::from_object(&pod)))].into();
        adopt_pod_cidrs(&endpoints, &kernel, &pods);
        assert_eq!(endpoints.get("net.a").unwrap().pod.as_deref(), Some("default/nginx"));
        let address: IpAddr = "10.1.0.2".parse().unwrap();
        assert_eq!(endpoints.routable(&kernel), BTreeMap::from([(address, "calic440f455693".to_owned())]));
        assert_eq!(*told.borrow(), BTreeSet::from([address]));
        endpoints.remove("net.a");
        assert!(told.borrow().is_empty());
    }

    #[test]
    fn a_network_whose_name_begins_with_anothers_keeps_its_pods() {
        let unknown = endpoint("10.0.0.1");
        let origin = Origin { network: "Net".into(), pod_device: "eth0".into() };
        let known = Endpoint { origin: Some(origin), ..unknown.clone() };
        for (handle, unknown_is_in, known_is_in) in [("net.a", true, true), ("net.2.a", false, true)] {
            assert_eq!(unknown.is_in("Net", handle), unknown_is_in, "{handle}");
            assert_eq!(known.is_in("Net", handle), known_is_in, "{handle}");
        }
        assert!(unknown.is_in("net.2", "net.2.a") && !known.is_in("net.2", "net.2.a"));
    }

    #[test]
    fn while_a_sandbox_is_replaced_only_the_links_owner_is_routed() {
        let endpoints = Endpoints::default();
        endpoints.insert("net.old".into(), endpoint("10.0.0.1"));
        endpoints.insert("net.new".into(), endpoint("10.0.0.2"));
        let routable = endpoints.routable(&kernel_with("cali1", "net.new"));
        assert_eq!(routable, BTreeMap::from([("10.0.0.2".parse().unwrap(), "cali1".to_owned())]));
    }

    #[tokio::test]
    async fn two_calls_for_one_pod_wait_for_each_other_and_others_do_not() {
        let endpoints = Endpoints::default();
        let guard = endpoints.lock("a").await;
        let _other = endpoints.lock("b").await;
        let waiting = tokio::spawn({
            let endpoints = endpoints.clone();
            async move { drop(endpoints.lock("a").await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(guard);
        waiting.await.unwrap();
    }
}
