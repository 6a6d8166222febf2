//! What this node says about itself: the annotations of its Node object, kept as they should be.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use manx_datastore::{Datastore, Error};
use manx_model::{Asn, InterfaceAddress, Kind, NodeName, Object, annotation};
use serde_json::Value;
use tokio::sync::watch;

use crate::cluster::Cluster;
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
}

impl Publication {
    /// The annotations that must be (`Some`) and must not be (`None`) on the Node.
    fn annotations(&self) -> BTreeMap<&'static str, Option<String>> {
        let mut wanted = BTreeMap::from([
            (annotation::IPV4_ADDRESS, Some(self.address.to_string())),
            (annotation::IPV4_IPIP_TUNNEL_ADDR, self.tunnel.map(|address| address.to_string())),
        ]);
        if let Some(asn) = self.asn {
            wanted.insert(annotation::AS_NUMBER, Some(asn.to_string()));
        }
        wanted
    }

    /// The Node as it should be stored, if that differs from how it is.
    fn amended(&self, name: &NodeName, stored: Option<&Object>) -> Option<Object> {
        let fresh = || Object::new(Kind::Node, name.as_str(), &Value::Null);
        let mut node = stored.cloned().unwrap_or_else(fresh);
        for (key, value) in self.annotations() {
            match value {
                Some(value) => drop(node.metadata.annotations.insert(key.into(), value)),
                None => drop(node.metadata.annotations.remove(key)),
            }
        }
        (Some(&node) != stored).then_some(node)
    }
}

/// Writes the publication, whatever was written before.
///
/// # Errors
/// The datastore's, after a conflict too: read again.
pub async fn publish_once(store: &dyn Datastore, name: &NodeName, wanted: &Publication) -> Result<(), Error> {
    let stored = store.get(Kind::Node, name.as_str()).await?;
    match (wanted.amended(name, stored.as_ref()), stored.is_some()) {
        (None, _) => Ok(()),
        (Some(node), true) => store.update(node).await.map(drop),
        (Some(node), false) => store.create(node).await.map(drop),
    }
}

/// Keeps the Node object as `wanted` says, against everybody else who writes it, for ever.
pub async fn keep_published(
    store: Arc<dyn Datastore>,
    name: NodeName,
    mut wanted: watch::Receiver<Publication>,
    mut cluster: watch::Receiver<Arc<Cluster>>,
    problems: Problems,
) {
    loop {
        let publication = wanted.borrow_and_update().clone();
        let seen = Arc::clone(&cluster.borrow_and_update());
        let stored = seen.node_objects.get(name.as_str());
        let failed = match publication.amended(&name, stored) {
            None => None,
            Some(_) => publish_once(&*store, &name, &publication).await.err(),
        };
        let retry = failed.is_some();
        problems.set("publishing", failed.map(|error| format!("Node {name} is not up to date: {error}")));
        tokio::select! {
            biased;
            changed = wanted.changed() => if changed.is_err() { return },
            changed = cluster.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(tunnel: Option<&str>) -> Publication {
        let tunnel = tunnel.map(|text| text.parse().unwrap());
        Publication { address: "10.0.0.5/24".parse().unwrap(), tunnel, asn: None }
    }

    #[test]
    fn a_node_that_says_the_right_things_is_not_written() {
        let name = "n1".parse().unwrap();
        let node = publication(Some("192.168.0.1")).amended(&name, None).unwrap();
        assert_eq!(publication(Some("192.168.0.1")).amended(&name, Some(&node)), None);
    }

    #[test]
    fn a_tunnel_address_is_withdrawn_and_what_others_wrote_stays() {
        let name = "n1".parse().unwrap();
        let mut node = publication(Some("192.168.0.1")).amended(&name, None).unwrap();
        node.metadata.annotations.insert("theirs".into(), "kept".into());
        node.metadata.annotations.insert(annotation::AS_NUMBER.into(), "65001".into());
        let amended = publication(None).amended(&name, Some(&node)).unwrap();
        let keys: Vec<_> = amended.metadata.annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, [annotation::AS_NUMBER, annotation::IPV4_ADDRESS, "theirs"]);
    }
}
