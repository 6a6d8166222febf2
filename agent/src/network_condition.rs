//! The condition `NetworkUnavailable` of the Node: false from when this node serves pods.
//!
//! Cloud providers and calico-node say that the network of a node is unavailable, and Kubernetes then keeps pods away
//! (the taint `node.kubernetes.io/network-unavailable`) until somebody takes it back. Calico also says it when calico-node
//! stops. Manx does not: while an agent is away the kernel forwards all that it did, pods that come are attached when it is
//! back a moment later, and after `helm uninstall` nobody would be there to take it back for the next network. That a node
//! without Manx attaches no pods kubelet says by itself.
//!
//! One read at each start, and a write only where the Node says something else: every write of a Node is told to all nodes.
//! A Node that had no address of this network when it was first seen has never said it, and is written unread.

use std::sync::Arc;
use std::time::Duration;

use manx_datastore::{Condition, Datastore, Error};
use manx_model::{Kind, NodeName, Object, annotation};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::cni_server::NotReady;
use crate::problems::Problems;

/// After a failed call the next try waits this long.
const RETRY: Duration = Duration::from_secs(5);

fn up() -> Condition {
    Condition {
        r#type: "NetworkUnavailable".to_owned(),
        status: false,
        reason: "ManxIsUp".to_owned(),
        message: "Manx is running on this node".to_owned(),
    }
}

/// Says it of the Node once pods are served, and again of another Node of this name, for ever.
pub async fn keep(
    store: Arc<dyn Datastore>,
    node: NodeName,
    mut not_ready: watch::Receiver<NotReady>,
    mut cluster: watch::Receiver<Arc<Cluster>>,
    problems: Problems,
) {
    let mut said: Option<String> = None;
    loop {
        let new = |cluster: &Arc<Cluster>| {
            let uid = cluster.own_node.as_ref().and_then(|node| node.metadata.uid.as_ref());
            uid.is_some() && uid != said.as_ref()
        };
        let seen = match cluster.wait_for(new).await {
            Ok(cluster) => cluster.own_node.clone(),
            Err(_) => return,
        };
        if not_ready.wait_for(Option::is_none).await.is_err() {
            return;
        }
        let Some(seen) = seen else { continue };
        match say(&*store, &seen).await {
            Ok(()) => {
                said.clone_from(&seen.metadata.uid);
                problems.set("node condition", None);
            }
            Err(error) => {
                let problem = format!("Node {node} does not say that its network is up: {error}");
                problems.set("node condition", [problem]);
                sleep(RETRY).await;
            }
        }
    }
}

/// `seen` is the Node as watches tell it, without its conditions.
async fn say(store: &dyn Datastore, seen: &Object) -> Result<(), Error> {
    let up = up();
    let is_new = !seen.metadata.annotations.contains_key(annotation::IPV4_ADDRESS);
    let says_so = match is_new {
        true => false,
        false => store.get(Kind::Node, seen.name()).await?.is_some_and(|node| up.is_said_by(&node)),
    };
    match says_so {
        true => Ok(()),
        false => store.set_condition(seen, &up).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_datastore::Memory;
    use manx_datastore::testing::{Faults, Faulty};
    use serde_json::{Value, json};

    async fn conditions(store: &Memory) -> Value {
        let node = store.get(Kind::Node, "n1").await.unwrap().unwrap();
        node.rest["status"]["conditions"].clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_says_that_its_network_is_up_once_it_serves_pods_and_writes_it_once() {
        let memory = Memory::new();
        let store = Faulty::new(memory.clone(), 1, Faults::default());
        let mut node = Object::new(Kind::Node, "n1", &Value::Null);
        let others = json!([
            {"type": "Ready", "status": "True", "reason": "KubeletReady"},
            {"type": "NetworkUnavailable", "status": "True", "reason": "CalicoIsDown"},
        ]);
        node.rest.insert("status".into(), json!({ "conditions": others }));
        node.metadata.annotations.insert(annotation::IPV4_ADDRESS.into(), "10.0.0.5/24".into());
        let node = memory.create(node).await.unwrap();
        let (ready, not_ready) = watch::channel(Some("it is starting".to_owned()));
        let own_node = Some(Arc::new(node));
        let (told, cluster) = watch::channel(Arc::new(Cluster { own_node, ..Cluster::default() }));
        let problems = Problems::default();
        let door = Arc::new(store.clone());
        tokio::spawn(keep(door, "n1".parse().unwrap(), not_ready, cluster, problems.clone()));
        sleep(RETRY * 3).await;
        assert_eq!(conditions(&memory).await, others, "it does not serve pods yet");

        store.down();
        ready.send_replace(None);
        sleep(RETRY * 2).await;
        assert!(problems.list()[0].contains("n1"), "{:?}", problems.list());
        store.up();
        sleep(RETRY * 2).await;
        let now = conditions(&memory).await;
        assert_eq!(
            (&now[0], &now[1]["status"], &now[1]["reason"]),
            (&others[0], &json!("False"), &json!("ManxIsUp"))
        );
        assert!(problems.list().is_empty());

        let node = memory.get(Kind::Node, "n1").await.unwrap().unwrap();
        memory.delete(&node).await.unwrap();
        let said = memory.create(node).await.unwrap();
        told.send_replace(Arc::new(Cluster { own_node: Some(Arc::new(said.clone())), ..Cluster::default() }));
        sleep(RETRY * 2).await;
        let same = memory.get(Kind::Node, "n1").await.unwrap().unwrap();
        assert_eq!(same, said, "it says so already");

        memory.delete(&said).await.unwrap();
        let another = memory.create(Object::new(Kind::Node, "n1", &Value::Null)).await.unwrap();
        told.send_replace(Arc::new(Cluster { own_node: Some(Arc::new(another)), ..Cluster::default() }));
        sleep(RETRY * 2).await;
        assert_eq!(conditions(&memory).await[0]["status"], "False", "another Node of this name");
    }
}
