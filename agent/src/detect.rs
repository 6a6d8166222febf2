//! What an agent finds out about its node: the address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use manx_datastore::Datastore;
use manx_felix::{Detection, Kernel, Snapshot};
use manx_model::{InterfaceAddress, Kind, Node, NodeName};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::config::{AddressSource, Config};
use crate::problems::Problems;

/// While no address is found, the kernel is looked at this often, and whenever it changes.
const RETRY: Duration = Duration::from_secs(1);

/// Who knows what of this node's address.
#[derive(Clone, Copy)]
pub struct Witnesses<'a> {
    /// The kernel.
    pub kernel: &'a dyn Kernel,
    /// The Node object.
    pub store: &'a dyn Datastore,
    /// This node.
    pub node: &'a NodeName,
}

impl Witnesses<'_> {
    async fn look(self, source: &AddressSource) -> Result<InterfaceAddress, String> {
        let snapshot = self.kernel.read().await.map_err(|error| error.to_string())?;
        let told = match source {
            AddressSource::Autodetect(detection) => told(self.store, self.node, detection).await?,
            _ => None,
        };
        find(source, &snapshot, told)
    }

    /// Whether a node that found out its address has to find it out anew. What cannot be asked changes nothing.
    async fn has_lost(self, detection: &Detection, address: InterfaceAddress) -> bool {
        match (self.kernel.read().await, told(self.store, self.node, detection).await) {
            (Ok(snapshot), Ok(told)) => {
                !detection.keeps(&snapshot, told, address) && detection.find(&snapshot, told).is_ok()
            }
            _ => false,
        }
    }
}

/// What a method wants to know that is in no snapshot of the kernel.
async fn told(
    store: &dyn Datastore,
    node: &NodeName,
    detection: &Detection,
) -> Result<Option<Ipv4Addr>, String> {
    match detection {
        Detection::InternalIp => internal_ip(store, node).await.map(Some),
        Detection::CanReach(destination) => source_towards(destination).await.map(Some),
        _ => Ok(None),
    }
}

async fn internal_ip(store: &dyn Datastore, name: &NodeName) -> Result<Ipv4Addr, String> {
    let node = store.get(Kind::Node, name.as_str()).await.map_err(|error| error.to_string())?;
    let node = node.ok_or_else(|| format!("there is no Node {name}"))?;
    let addresses = node.rest.get("status").and_then(|status| status["addresses"].as_array());
    let mut internal = addresses.into_iter().flatten().filter(|entry| entry["type"] == "InternalIP");
    internal
        .find_map(|entry| entry["address"].as_str()?.parse().ok())
        .ok_or_else(|| format!("Node {name} has no InternalIP of IPv4 in status.addresses"))
}

/// The address from which the kernel would send to a destination; nothing is sent.
async fn source_towards(destination: &str) -> Result<Ipv4Addr, String> {
    let failed = |error: std::io::Error| format!("can-reach={destination}: {error}");
    let mut resolved = tokio::net::lookup_host((destination, 80)).await.map_err(failed)?;
    let to = resolved.find(SocketAddr::is_ipv4);
    let to = to.ok_or_else(|| format!("can-reach={destination}: it has no IPv4 address"))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.map_err(failed)?;
    socket.connect(to).await.map_err(failed)?;
    match socket.local_addr().map_err(failed)?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => Err(format!("can-reach={destination}: {address} is no IPv4 address")),
    }
}

/// Returns when this node has another address than `address`, which it found out: whoever runs the agent starts it again.
pub async fn until_moved(witnesses: Witnesses<'_>, config: &Config, address: InterfaceAddress) {
    let AddressSource::Autodetect(detection) = &config.address else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(config.address_poll).await;
        if witnesses.has_lost(detection, address).await {
            tracing::error!(
                "this node's address is no longer {address}; the agent ends, to start with the new one"
            );
            return;
        }
    }
}

/// This node's address; waits until there is one.
pub async fn address(config: &Config, witnesses: Witnesses<'_>, problems: &Problems) -> InterfaceAddress {
    let kernel = witnesses.kernel;
    loop {
        let found = witnesses.look(&config.address).await;
        match found {
            Ok(address) => {
                problems.set("address", None);
                return address;
            }
            Err(reason) => problems.set("address", [reason]),
        }
        tokio::select! {
            biased;
            () = kernel.changed() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Waits while another node has the address: two would take each other's packets.
pub async fn alone(
    config: &Config,
    mut cluster: watch::Receiver<Arc<Cluster>>,
    address: InterfaceAddress,
    problems: &Problems,
) {
    loop {
        let other = other_with(&cluster.borrow_and_update(), &config.node, address.address());
        let other = other.filter(|_| !config.shared_address_allowed);
        let is_alone = other.is_none();
        problems.set("address", other);
        if is_alone || cluster.changed().await.is_err() {
            return;
        }
    }
}

fn other_with(cluster: &Cluster, node: &NodeName, address: Ipv4Addr) -> Option<String> {
    let has = |other: &&Arc<Node>| other.address.is_some_and(|theirs| theirs.address() == address);
    let other = cluster.nodes.values().find(|other| other.name != *node && has(other))?;
    Some(format!(
        "Node {} has the address {address}, too: give this node another (IP), delete that Node if it is no more, or allow \
         it (DISABLE_NODE_IP_CHECK=true)",
        other.name
    ))
}

/// Prepares the node behind `address`; waits until that has succeeded. What it warns of is shown, and stops nothing.
pub async fn prepare(kernel: &dyn Kernel, address: InterfaceAddress, forwarding: bool, problems: &Problems) {
    loop {
        match prepare_once(kernel, address, forwarding).await {
            Ok(warnings) => return problems.set("node", warnings),
            Err(error) => problems.set("node", [error]),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn prepare_once(
    kernel: &dyn Kernel,
    address: InterfaceAddress,
    forwarding: bool,
) -> Result<Vec<String>, String> {
    let snapshot = kernel.read().await.map_err(|error| error.to_string())?;
    let link = snapshot.link_with(address.address());
    let link = link.ok_or_else(|| format!("no link carries the node's address {}", address.address()))?;
    kernel.prepare(&link.name, forwarding).await.map_err(|error| error.to_string())
}

/// The address that `source` means in this kernel. One that is given must be there: a typing error would otherwise
/// become a route to nowhere on every other node.
fn find(
    source: &AddressSource,
    kernel: &Snapshot,
    told: Option<Ipv4Addr>,
) -> Result<InterfaceAddress, String> {
    let carried = |address: Ipv4Addr| {
        let link = kernel.link_with(address);
        let net = link.and_then(|link| link.addresses.iter().find(|net| net.addr() == address));
        net.and_then(|net| InterfaceAddress::new(net.addr(), net.prefix_len()))
            .ok_or_else(|| format!("IP={address}: no interface of this node has this address"))
    };
    match source {
        AddressSource::Autodetect(detection) => detection
            .find(kernel, told)
            .map_err(|reason| format!("IP=autodetect: {reason}; set IP or IP_AUTODETECTION_METHOD")),
        AddressSource::Address(address) => carried(*address),
        AddressSource::Interface(interface) => carried(interface.address()).map(|_| *interface),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_datastore::Memory;
    use manx_felix::{IfIndex, Link};
    use manx_model::Object;
    use serde_json::json;

    fn kernel() -> Snapshot {
        let link = Link {
            index: IfIndex(2),
            name: "eth0".into(),
            up: true,
            mtu: 1500,
            alias: None,
            addresses: vec!["10.0.0.5/24".parse().unwrap()],
        };
        Snapshot { links: [(link.index, link)].into(), ..Snapshot::default() }
    }

    #[test]
    fn a_given_address_takes_its_subnet_from_the_interface_that_has_it() {
        let given = AddressSource::Address(Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(find(&given, &kernel(), None), Ok("10.0.0.5/24".parse().unwrap()));
        assert_eq!(
            find(&AddressSource::Autodetect(Detection::default()), &kernel(), None),
            Ok("10.0.0.5/24".parse().unwrap())
        );
        let with_subnet = AddressSource::Interface("10.0.0.5/16".parse().unwrap());
        assert_eq!(find(&with_subnet, &kernel(), None), Ok("10.0.0.5/16".parse().unwrap()));
    }

    #[test]
    fn an_address_that_no_interface_has_is_waited_for_and_named() {
        let given = AddressSource::Address(Ipv4Addr::new(10, 0, 0, 6));
        assert!(find(&given, &kernel(), None).unwrap_err().contains("10.0.0.6"));
    }

    #[tokio::test]
    async fn the_nodes_own_word_and_the_kernels_way_to_a_destination_are_asked_for() {
        let node: NodeName = "n1".parse().unwrap();
        let store = Memory::new();
        let told = async |detection: &Detection| told(&store, &node, detection).await;
        assert!(told(&Detection::InternalIp).await.unwrap_err().contains("no Node n1"));
        let mut object = Object::new(Kind::Node, "n1", &json!({}));
        let addresses = json!({"addresses": [{"type": "Hostname", "address": "n1"},
            {"type": "InternalIP", "address": "fd00::1"}, {"type": "InternalIP", "address": "10.0.0.5"}]});
        object.rest.insert("status".into(), addresses);
        store.create(object).await.unwrap();
        assert_eq!(told(&Detection::InternalIp).await, Ok(Some(Ipv4Addr::new(10, 0, 0, 5))));
        let near = Detection::CanReach("127.0.0.9".into());
        assert_eq!(told(&near).await, Ok(Some(Ipv4Addr::LOCALHOST)));
        let nowhere = Detection::CanReach("host.invalid".into());
        assert!(told(&nowhere).await.unwrap_err().contains("can-reach=host.invalid"));
    }

    #[test]
    fn a_node_that_has_anothers_address_is_told_whose() {
        let node = |name: &str, address: &str| {
            let name: NodeName = name.parse().unwrap();
            let node = Node { address: Some(address.parse().unwrap()), ..Node::new(name.clone()) };
            (name.to_string(), Arc::new(node))
        };
        let nodes = Arc::new([node("n1", "10.0.0.5/24"), node("n2", "10.0.0.5/16")].into());
        let cluster = Cluster { nodes, ..Cluster::default() };
        let other =
            |name: &str, address: [u8; 4]| other_with(&cluster, &name.parse().unwrap(), address.into());
        assert!(
            other("n1", [10, 0, 0, 5])
                .is_some_and(|text| text.contains("Node n2") && text.contains("10.0.0.5"))
        );
        assert_eq!(other("n1", [10, 0, 0, 6]), None);
    }
}
