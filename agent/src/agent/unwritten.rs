//! Pods that the last agent attached while the datastore was away, and that IPAM does not know of: the kernel does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use manx_felix::Snapshot;
use manx_ipam::Allocator;

use crate::addresses::by_handle;
use crate::cluster::{Cluster, KnownPods};
use crate::endpoints::pod_behind;

/// Promises every pod that the kernel has what is routed to it, where IPAM does not say the same. `handles` is what links
/// carry as alias, with the addresses that are routed to them.
pub(super) fn promise(
    allocator: &mut Allocator,
    handles: &BTreeMap<String, Vec<IpAddr>>,
    kernel: &Snapshot,
    cluster: &Cluster,
    pods: &KnownPods,
    now: SystemTime,
) {
    let held = by_handle(allocator);
    let is_known = |handle: &String, addresses: &[IpAddr]| {
        let held = held.get(handle.as_str()).map_or(&[][..], |held| &held.addresses);
        addresses.iter().all(|address| held.contains(address))
    };
    let in_pool = |address: &IpAddr| cluster.pools.iter().any(|pool| pool.contains(*address));
    let unknown: Vec<_> = handles
        .iter()
        .filter(|(handle, addresses)| !is_known(handle, addresses) && addresses.iter().all(in_pool))
        .map(|(handle, addresses)| (handle.clone(), addresses.clone()))
        .collect();
    for (handle, addresses) in unknown {
        tracing::info!(handle, ?addresses, "a pod of which IPAM does not know");
        let mut attributes = BTreeMap::from([("timestamp".to_owned(), manx_ipam::rfc3339(now))]);
        let link = kernel.links.values().find(|link| link.alias.as_ref() == Some(&handle));
        // What a pod has that is gone is held by its handle alone.
        if let Some(pod) = link.and_then(|link| pod_behind(&link.name, pods)) {
            let names = [("namespace", &pod.namespace), ("pod", &pod.name)];
            attributes.extend(names.map(|(key, name)| (key.to_owned(), name.clone())));
        }
        allocator.promise(handle, attributes, addresses);
    }
}
