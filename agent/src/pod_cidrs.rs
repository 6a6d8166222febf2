//! `usePodCidr`: addresses straight from the Node's `spec.podCIDRs`, without IPAM.
//!
//! Who has which is written down in the kernel only: the host's end of such a pod's link has, as its alias, the handle and the
//! addresses. So pods come and go with no datastore to ask, and an agent that was killed reads from the links who has what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use manx_cni::{CniError, Code};
use manx_datastore::Datastore;
use manx_ipam::{is_for_pods, next_in_pod_cidr};
use manx_model::{Kind, Node, NodeName};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::demand::Demand;
use crate::latest;
use crate::node_loop::NodeReport;
use crate::problems::Problems;

/// What is known of the podCIDRs of this node. Cheap to clone.
///
/// Watches do not tell them: of Nodes, which kubelets write all the time, those bring the metadata alone. So the Node is asked
/// for once, by a node that needs it; an agent that starts while the datastore is away goes by what its Node published.
#[derive(Clone)]
pub struct Own {
    /// This node.
    pub node: NodeName,
    /// Where its Node object is.
    pub store: Arc<dyn Datastore>,
    /// The podCIDRs, of each family at most one; empty while they are not known.
    pub known: watch::Sender<Vec<IpNet>>,
}

impl Own {
    /// What the Node published, and says itself where it is told whole.
    pub fn new(node: NodeName, store: Arc<dyn Datastore>, cluster: &Cluster) -> Self {
        let own = cluster.nodes.get(node.as_str());
        let told =
            own.map(|own| if own.pod_cidrs.is_empty() { &own.pod_cidrs_in_use } else { &own.pod_cidrs });
        Self { known: watch::Sender::new(told.cloned().unwrap_or_default()), node, store }
    }

    /// The podCIDR of one family, if it is known.
    pub fn of_family(&self, ipv4: bool) -> Option<IpNet> {
        self.known.borrow().iter().find(|cidr| cidr.addr().is_ipv4() == ipv4).copied()
    }

    /// Asks for them, unless they are known.
    ///
    /// # Errors
    /// Why they are not known, in words for the operator.
    pub async fn learn(&self) -> Result<(), String> {
        if self.known.borrow().is_empty() { self.ask().await } else { Ok(()) }
    }

    async fn ask(&self) -> Result<(), String> {
        let stored = self.store.get(Kind::Node, self.node.as_str()).await;
        let stored =
            stored.map_err(|error| format!("the podCIDRs of Node {} are not known: {error}", self.node))?;
        let node = stored.and_then(|object| Node::from_object(&object).ok());
        match node.map(|(node, _)| node.pod_cidrs).filter(|cidrs| !cidrs.is_empty()) {
            Some(cidrs) => {
                latest::set(&self.known, cidrs);
                Ok(())
            }
            None => Err(missing(&self.node, true)),
        }
    }

    /// Follows the Node for ever: where it is told whole, what it says; else it is asked for again when it is another Node, or,
    /// if they are `needed` from the start, until it has any.
    pub async fn keep(self, needed: bool, mut cluster: watch::Receiver<Arc<Cluster>>, problems: Problems) {
        let mut asked_of = None;
        loop {
            let seen = Arc::clone(&cluster.borrow_and_update());
            let uid = seen.own_node.as_ref().map(|node| node.metadata.uid.clone());
            let told =
                seen.nodes.get(self.node.as_str()).map(|own| own.pod_cidrs.clone()).unwrap_or_default();
            let is_used = needed || !self.known.borrow().is_empty();
            let failed = match told.is_empty() {
                false => {
                    latest::set(&self.known, told);
                    None
                }
                true if is_used && uid.is_some() && uid != asked_of => self.ask().await.err(),
                true => None,
            };
            if failed.is_none() {
                asked_of = uid;
            }
            let retry = failed.is_some();
            problems.set("pod CIDRs", failed);
            tokio::select! {
                changed = cluster.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if retry => {}
            }
        }
    }
}

/// After a failure the Node is asked for again this late.
const RETRY: Duration = Duration::from_secs(5);

/// Chooses addresses from this node's podCIDRs.
pub struct PodCidrs {
    /// The podCIDRs.
    pub own: Own,
    /// What other nodes announce.
    pub report: watch::Receiver<NodeReport>,
    /// What was given last of each podCIDR, so that an address rests before it comes again.
    pub last: Mutex<BTreeMap<IpNet, IpAddr>>,
}

impl PodCidrs {
    /// Sees to it that addresses can be chosen.
    ///
    /// # Errors
    /// [`Code::TRY_AGAIN_LATER`]: the podCIDRs are not known.
    pub async fn ready(&self) -> Result<(), CniError> {
        self.own.learn().await.map_err(|reason| CniError::new(Code::TRY_AGAIN_LATER, MSG, reason))
    }

    /// Addresses as `demand` wants them, of those that are not `taken` by pods of this node.
    ///
    /// # Errors
    /// Why there is none, and what would help.
    pub fn choose(&self, demand: &Demand, taken: &BTreeSet<IpAddr>) -> Result<Vec<IpAddr>, CniError> {
        if let Some(key) = asks_for_pools(demand) {
            let details = format!(
                "annotation {key} is given, and this network takes addresses from the Node's podCIDR: pools are for \
                 \"calico-ipam\""
            );
            return Err(CniError::new(Code::CONFIG, MSG, details));
        }
        let families = [(true, demand.ipv4), (false, demand.ipv6)].into_iter().filter(|(_, wanted)| *wanted);
        families.map(|(ipv4, _)| self.choose_one(ipv4, demand, taken)).collect()
    }

    fn choose_one(&self, ipv4: bool, demand: &Demand, taken: &BTreeSet<IpAddr>) -> Result<IpAddr, CniError> {
        let cidr = self
            .own
            .of_family(ipv4)
            .ok_or_else(|| CniError::new(Code::TRY_AGAIN_LATER, MSG, missing(&self.own.node, ipv4)))?;
        // Where a node lives in blocks inside our podCIDR, those addresses are its pods'.
        let others: Vec<IpNet> = {
            let report = self.report.borrow();
            report.paths.keys().filter(|prefix| **prefix != cidr && cidr.contains(*prefix)).copied().collect()
        };
        let in_use = |address: &IpAddr| {
            taken.contains(address) || others.iter().any(|prefix| prefix.contains(address))
        };
        let no_address = |details: String| CniError::new(Code::NO_ADDRESS, MSG, details);
        if let Some(fixed) = demand.addresses.iter().find(|address| address.is_ipv4() == ipv4) {
            return match is_for_pods(cidr, *fixed) {
                true if in_use(fixed) => Err(no_address(format!("{fixed} is in use"))),
                true => Ok(*fixed),
                false => {
                    Err(no_address(format!("{fixed} is no address for a pod in podCIDR {cidr} of this node")))
                }
            };
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let found = next_in_pod_cidr(cidr, in_use, last.get(&cidr).copied());
        let found =
            found.ok_or_else(|| no_address(format!("podCIDR {cidr} of this node has no free address")))?;
        last.insert(cidr, found);
        Ok(found)
    }
}

const MSG: &str = "no address could be assigned";

fn asks_for_pools(demand: &Demand) -> Option<&'static str> {
    let asked = [(&demand.ipv4_pools, "ipv4pools"), (&demand.ipv6_pools, "ipv6pools")];
    asked.into_iter().find(|(pools, _)| !pools.is_empty()).map(|(_, key)| key)
}

/// What is said where there is none.
pub fn missing(node: &NodeName, ipv4: bool) -> String {
    let family = if ipv4 { "IPv4" } else { "IPv6" };
    format!(
        "Node {node} has no {family} network in spec.podCIDRs: let kube-controller-manager set it \
         (--allocate-node-cidrs), or take addresses from \"calico-ipam\""
    )
}

/// The alias of the link of a pod that has these addresses from a podCIDR.
pub fn alias(handle: &str, addresses: &[IpAddr]) -> String {
    let texts = addresses.iter().map(IpAddr::to_string);
    std::iter::once(handle.to_owned()).chain(texts).collect::<Vec<_>>().join(" ")
}

/// The handle and the addresses of an alias that [`alias`] made; `None` of any other: a handle alone has no space.
pub fn read_alias(alias: &str) -> Option<(&str, Vec<IpAddr>)> {
    let (handle, addresses) = alias.split_once(' ')?;
    let addresses: Vec<IpAddr> = addresses.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    (!handle.is_empty()).then_some((handle, addresses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_datastore::Memory;
    use manx_felix::Path;
    use manx_model::Object;
    use serde_json::json;

    fn pod_cidrs(cidrs: &[&str], others: &[&str]) -> PodCidrs {
        let own = own(&Memory::new());
        own.known.send_replace(cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect());
        let path = |prefix: &&str| (prefix.parse().unwrap(), Path::Withheld { reason: String::new() });
        let report = NodeReport { paths: others.iter().map(path).collect(), ..NodeReport::default() };
        PodCidrs { own, report: watch::channel(report).1, last: Mutex::default() }
    }

    fn own(store: &Memory) -> Own {
        Own::new("n1".parse().unwrap(), Arc::new(store.clone()), &Cluster::default())
    }

    fn known(own: &Own) -> Vec<String> {
        own.known.borrow().iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn the_node_is_asked_for_once_and_until_it_has_a_pod_cidr() {
        let store = Memory::new();
        let own = own(&store);
        store.create(Object::new(Kind::Node, "n1", &json!({}))).await.unwrap();
        assert!(own.learn().await.unwrap_err().contains("kube-controller-manager"));
        let mut node = store.get(Kind::Node, "n1").await.unwrap().unwrap();
        node.spec = json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]});
        let node = store.update(node).await.unwrap();
        own.learn().await.unwrap();
        store.delete(&node).await.unwrap();
        own.learn().await.unwrap();
        assert_eq!(known(&own), ["10.1.0.0/24", "fd00:1::/64"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_another_is_asked_for_again_and_what_it_published_counts_until_then() {
        let store = Memory::new();
        let metadata_of = |node: &Object| {
            let own_node = Some(Arc::new(Object { spec: json!(null), ..node.clone() }));
            Arc::new(Cluster { own_node, ..Cluster::default() })
        };
        let spec = json!({"podCIDR": "10.2.0.0/24"});
        let node = store.create(Object::new(Kind::Node, "n1", &spec)).await.unwrap();
        let own = own(&store);
        own.known.send_replace(vec!["10.1.0.0/24".parse().unwrap()]);
        let (sender, cluster) = watch::channel(Arc::default());
        tokio::spawn(own.clone().keep(false, cluster, Problems::default()));
        tokio::time::sleep(RETRY).await;
        assert_eq!(known(&own), ["10.1.0.0/24"]);
        sender.send_replace(metadata_of(&node));
        tokio::time::sleep(RETRY).await;
        assert_eq!(known(&own), ["10.2.0.0/24"]);
    }

    fn wanting(change: impl FnOnce(&mut Demand)) -> Demand {
        let mut demand = Demand { ipv4: true, ..Demand::default() };
        change(&mut demand);
        demand
    }

    fn chosen(from: &PodCidrs, demand: &Demand, taken: &[&str]) -> Result<Vec<String>, String> {
        let taken = taken.iter().map(|address| address.parse().unwrap()).collect();
        let chosen = from.choose(demand, &taken).map_err(|error| error.to_string())?;
        Ok(chosen.iter().map(IpAddr::to_string).collect())
    }

    #[test]
    fn a_pod_gets_an_address_of_each_family_that_it_wants_and_another_pod_another() {
        let from = pod_cidrs(&["10.1.0.0/24", "fd00:1::/64"], &[]);
        let both = wanting(|demand| demand.ipv6 = true);
        assert_eq!(chosen(&from, &both, &[]).unwrap(), ["10.1.0.2", "fd00:1::2"]);
        assert_eq!(chosen(&from, &both, &["10.1.0.3"]).unwrap(), ["10.1.0.4", "fd00:1::3"]);
    }

    #[test]
    fn what_another_node_announces_inside_our_pod_cidr_is_given_to_nobody() {
        let from = pod_cidrs(&["10.1.0.0/24"], &["10.1.0.0/26", "10.1.0.0/24", "10.0.0.0/8"]);
        assert_eq!(chosen(&from, &wanting(|_| {}), &[]).unwrap(), ["10.1.0.64"]);
    }

    #[test]
    fn a_wish_that_cannot_be_had_says_why() {
        let from = pod_cidrs(&["10.1.0.0/30"], &[]);
        let fixed = |address: &str| {
            let address = address.parse().unwrap();
            wanting(move |demand| demand.addresses = vec![address])
        };
        assert_eq!(chosen(&from, &fixed("10.1.0.2"), &[]).unwrap(), ["10.1.0.2"]);
        for (demand, said) in [
            (fixed("10.1.0.1"), "no address for a pod in podCIDR 10.1.0.0/30"),
            (fixed("10.1.0.2"), "in use"),
            (wanting(|_| {}), "no free address"),
            (wanting(|demand| demand.ipv6 = true), "no free address"),
            (
                wanting(|demand| (demand.ipv4, demand.ipv6) = (false, true)),
                "no IPv6 network in spec.podCIDRs",
            ),
            (wanting(|demand| demand.ipv4_pools = vec!["p".into()]), "ipv4pools"),
        ] {
            let error = chosen(&from, &demand, &["10.1.0.2"]).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn an_alias_tells_the_addresses_and_one_of_ipam_tells_none() {
        let addresses = vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let text = alias("net.a", &addresses);
        assert_eq!(read_alias(&text), Some(("net.a", addresses)));
        assert_eq!([read_alias("net.a"), read_alias("my link"), read_alias(" 10.1.0.2")], [None, None, None]);
    }
}
