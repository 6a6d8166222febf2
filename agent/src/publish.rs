//! What this node says about itself: the annotations of its Node object, kept as they should be.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use manx_datastore::{Datastore, Error};
use manx_model::{Asn, InterfaceAddress, Kind, NodeName, Object, annotation};
use serde_json::Value;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::echo;
use crate::problems::Problems;

/// After a failed write the next try waits this long.
const RETRY: Duration = Duration::from_secs(1);

/// What a node publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its address and subnet.
    pub address: InterfaceAddress,
    /// The address of its tunnel, once that takes packets.
    pub tunnel: Option<Ipv4Addr>,
    /// Its own AS, if the environment gives one; otherwise what is there stays.
    pub asn: Option<Asn>,
    /// The podCIDRs of which its pods have addresses, which no block of another node may have then.
    pub pod_cidrs: Vec<IpNet>,
}

impl Publication {
    /// The annotations that must be (`Some`) and must not be (`None`) on the Node.
    fn annotations(&self) -> BTreeMap<&'static str, Option<String>> {
        let mut wanted = BTreeMap::from([
            (annotation::IPV4_ADDRESS, Some(self.address.to_string())),
            (annotation::IPV4_IPIP_TUNNEL_ADDR, self.tunnel.map(|address| address.to_string())),
            (annotation::POD_CIDRS_IN_USE, list(&self.pod_cidrs)),
        ]);
        if let Some(asn) = self.asn {
            wanted.insert(annotation::AS_NUMBER, Some(asn.to_string()));
        }
        wanted
    }

    /// What must be changed on the Node as it is.
    fn missing(&self, stored: &Object) -> BTreeMap<String, Option<String>> {
        let differs =
            |key: &str, value: &Option<String>| stored.metadata.annotations.get(key) != value.as_ref();
        self.annotations()
            .into_iter()
            .filter(|(key, value)| differs(key, value))
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}

fn list(cidrs: &[IpNet]) -> Option<String> {
    let texts: Vec<String> = cidrs.iter().map(IpNet::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// Who makes the Node object of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeMaker {
    /// This agent: without Kubernetes there is nobody else.
    Agent,
    /// Kubelet registers it, or whoever administers the cluster.
    Kubelet,
}

/// Writes the publication, whatever was written before. `seen` is the Node as the watch tells it; where that does not know of
/// it, it is asked for.
///
/// # Errors
/// Why the Node is not as it should be, in words for the operator; try again.
pub async fn publish_once(
    store: &dyn Datastore,
    name: &NodeName,
    maker: NodeMaker,
    wanted: &Publication,
    seen: Option<&Object>,
) -> Result<(), String> {
    let stored = match seen {
        Some(seen) => Some(seen.clone()),
        None => store.get(Kind::Node, name.as_str()).await.map_err(|error| error.to_string())?,
    };
    let (node, made) = match (stored, maker) {
        (Some(node), _) => (node, Ok(())),
        (None, NodeMaker::Kubelet) => return Err(not_registered(name)),
        (None, NodeMaker::Agent) => {
            let fresh = Object::new(Kind::Node, name.as_str(), &Value::Null);
            (fresh.clone(), store.create(fresh).await.map(drop))
        }
    };
    let annotated = match made {
        Ok(()) => annotate(store, node, wanted).await,
        Err(error) => Err(error),
    };
    annotated.map_err(|error| error.to_string())
}

async fn annotate(store: &dyn Datastore, mut node: Object, wanted: &Publication) -> Result<(), Error> {
    let missing = wanted.missing(&node);
    if missing.is_empty() {
        return Ok(());
    }
    // Kubelet writes the Node all the time; these annotations are written by nobody else.
    node.metadata.resource_version = None;
    store.annotate(&node, &missing).await.map(drop)
}

fn not_registered(name: &NodeName) -> String {
    format!(
        "there is no Node {name} in Kubernetes: kubelet has not registered it, or NODENAME is not its name"
    )
}

/// Keeps the Node object as `wanted` says, against everybody else who writes it, for ever.
pub async fn keep_published(
    store: Arc<dyn Datastore>,
    name: NodeName,
    maker: NodeMaker,
    mut wanted: watch::Receiver<Publication>,
    mut cluster: watch::Receiver<Arc<Cluster>>,
    problems: Problems,
) {
    loop {
        let publication = wanted.borrow_and_update().clone();
        let seen = Arc::clone(&cluster.borrow_and_update());
        let says_so = |cluster: &Arc<Cluster>| {
            cluster.own_node.as_ref().is_some_and(|node| publication.missing(node).is_empty())
        };
        let settled = says_so(&seen);
        let failed = match settled {
            true => None,
            false => publish_once(&*store, &name, maker, &publication, seen.own_node.as_deref()).await.err(),
        };
        let (written, retry) = (!settled && failed.is_none(), failed.is_some());
        problems.set("publishing", failed.map(|error| format!("Node {name} is not up to date: {error}")));
        let news = async {
            match written {
                true => echo::heard(&mut cluster, says_so).await,
                false => cluster.changed().await.is_ok(),
            }
        };
        tokio::select! {
            biased;
            changed = wanted.changed() => if changed.is_err() { return },
            go_on = news => if !go_on { return },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use manx_datastore::Memory;
    use manx_datastore::testing::{Faults, Faulty};

    fn publication(tunnel: Option<&str>) -> Publication {
        let tunnel = tunnel.map(|text| text.parse().unwrap());
        Publication { address: "10.0.0.5/24".parse().unwrap(), tunnel, asn: None, pod_cidrs: Vec::new() }
    }

    fn publish(store: &Memory, maker: NodeMaker, tunnel: Option<&str>) -> Result<Object, String> {
        let name = "n1".parse().unwrap();
        block_on(publish_once(store, &name, maker, &publication(tunnel), None))?;
        Ok(block_on(store.get(Kind::Node, "n1")).unwrap().unwrap())
    }

    #[test]
    fn a_node_that_says_the_right_things_is_not_written() {
        let store = Memory::new();
        let node = publish(&store, NodeMaker::Agent, Some("192.168.0.1")).unwrap();
        assert_eq!(publish(&store, NodeMaker::Agent, Some("192.168.0.1")), Ok(node));
    }

    #[test]
    fn a_tunnel_address_is_withdrawn_and_what_others_wrote_stays() {
        let store = Memory::new();
        let mut node = publish(&store, NodeMaker::Agent, Some("192.168.0.1")).unwrap();
        node.metadata.annotations.insert("theirs".into(), "kept".into());
        node.metadata.annotations.insert(annotation::AS_NUMBER.into(), "65001".into());
        block_on(store.update(node)).unwrap();
        let node = publish(&store, NodeMaker::Kubelet, None).unwrap();
        let keys: Vec<_> = node.metadata.annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, [annotation::AS_NUMBER, annotation::IPV4_ADDRESS, "theirs"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_watched_is_written_with_one_call_whatever_else_is_told_before_the_watch_tells_of_it()
     {
        let memory = Memory::new();
        let node = memory.create(Object::new(Kind::Node, "n1", &Value::Null)).await.unwrap();
        let store = Faulty::new(memory.clone(), 1, Faults::default());
        let seeing = |node: &Object| {
            Arc::new(Cluster { own_node: Some(Arc::new(node.clone())), ..Cluster::default() })
        };
        let (cluster, seen) = watch::channel(seeing(&node));
        let (wanted, wish) = watch::channel(publication(None));
        let name = "n1".parse().unwrap();
        let problems = Problems::default();
        tokio::spawn(keep_published(Arc::new(store.clone()), name, NodeMaker::Kubelet, wish, seen, problems));
        // On the test's own clock, and for less than what was written is waited for.
        for _ in 0..3 {
            tokio::time::sleep(RETRY).await;
            cluster.send_replace(seeing(&node));
        }
        assert_eq!(store.calls(), 1);

        wanted.send_replace(publication(Some("192.168.0.1")));
        tokio::time::sleep(RETRY).await;
        assert_eq!(store.calls(), 2, "what is wanted now is not kept waiting");
        let node = memory.get(Kind::Node, "n1").await.unwrap().unwrap();
        assert_eq!(node.metadata.annotations[annotation::IPV4_IPIP_TUNNEL_ADDR], "192.168.0.1");
        cluster.send_replace(seeing(&node));
        tokio::time::sleep(RETRY * 20).await;
        assert_eq!(store.calls(), 2);
    }

    #[test]
    fn in_kubernetes_a_node_that_kubelet_has_not_registered_is_named_and_not_made() {
        let refused = publish(&Memory::new(), NodeMaker::Kubelet, None).unwrap_err();
        assert!(refused.contains("n1") && refused.contains("kubelet"), "{refused}");
    }
}
