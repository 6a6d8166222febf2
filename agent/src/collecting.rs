//! Collects what pods, nodes and crashes left behind in the whole cluster, on the node that leads.
//!
//! What is judged to be left behind has looked so for a grace period, and each action is a compare-and-swap on what was
//! seen. Right before a pod's addresses are released its Pod is looked at once more.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use manx_datastore::Datastore;
use manx_ipam::{Action, Collector, DEFAULT_GRACE, Error, Metrics};
use manx_model::Node;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::census::{Census, is_gone};
use crate::cluster::Cluster;
use crate::information::is_locked;
use crate::problems::Problems;

/// Everything is looked at twice in a grace period.
const INTERVAL: Duration = Duration::from_secs(DEFAULT_GRACE.as_secs() / 2);

/// Addresses, then blocks, then what refers to them; a store that others write to at the same time is not chased for ever.
const LOOKS: usize = 4;

/// Collects, as long as this node leads.
pub struct Collecting {
    /// There is a Pod object for every pod. Otherwise what a pod holds is left to its node.
    pub knows_pods: bool,
    /// Where everything is.
    pub store: Arc<dyn Datastore>,
    /// Whether the datastore may be written.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// Whether this node leads.
    pub leads: watch::Receiver<bool>,
    /// Told what was counted, while this node leads.
    pub counted: watch::Sender<Option<Arc<Metrics>>>,
    /// The time of day.
    pub wall_clock: fn() -> SystemTime,
    /// What is wrong.
    pub problems: Problems,
}

impl Collecting {
    /// Runs for ever. What a former leader suspected is forgotten with it, and suspected anew.
    pub async fn run(mut self) {
        loop {
            if self.leads.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            let mut collector = Collector::new(DEFAULT_GRACE);
            while *self.leads.borrow_and_update() {
                let nodes = Arc::clone(&self.cluster.borrow().nodes);
                if !is_locked(&self.cluster.borrow()) {
                    let failed = self.collect_all(&mut collector).await.err();
                    let told = failed.map(|error| format!("what was left behind is not collected: {error}"));
                    self.problems.set("collector", told);
                }
                tokio::select! {
                    () = sleep(INTERVAL) => {}
                    // What such a node held is certainly left behind, and its blocks may be scarce.
                    () = goes(&mut self.cluster, &nodes) => {}
                    changed = self.leads.changed() => if changed.is_err() { return },
                }
            }
            self.problems.set("collector", None);
            self.counted.send_replace(None);
        }
    }

    /// Looks again after something was collected: a block is found empty once its last address was given back.
    async fn collect_all(&self, collector: &mut Collector) -> Result<(), Error> {
        for _ in 0..LOOKS {
            if !self.collect(collector).await? {
                break;
            }
        }
        Ok(())
    }

    /// Looks once, and collects what is due; whether there was anything.
    async fn collect(&self, collector: &mut Collector) -> Result<bool, Error> {
        let mut collected = false;
        let census = Census::take(&*self.store).await?;
        let config = Arc::clone(&self.cluster.borrow().ipam);
        for action in collector.observe(census.observed(), (self.wall_clock)()) {
            if let Action::ReleaseHandle { pod: Some(pod), held, .. } = &action {
                if !self.knows_pods {
                    continue;
                }
                let addresses: Vec<_> = held.iter().map(|held| held.address).collect();
                if !is_gone(&*self.store, pod, &addresses).await? {
                    continue;
                }
            }
            if collector.carry_out(&*self.store, (self.wall_clock)(), &config, &action).await? {
                tracing::info!("collected: {action}");
                collected = true;
            }
        }
        self.counted.send_replace(Some(Arc::new(collector.metrics(census.observed()))));
        Ok(collected)
    }
}

/// Waits until one of these nodes is none of the cluster's any more.
async fn goes(cluster: &mut watch::Receiver<Arc<Cluster>>, nodes: &BTreeMap<String, Arc<Node>>) {
    let gone = |now: &Arc<Cluster>| nodes.keys().any(|node| !now.nodes.contains_key(node));
    if cluster.wait_for(gone).await.is_err() {
        // Nobody tells any more; the clock still does.
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_datastore::{Memory, Only};
    use manx_ipam::{Allocator, AssignRequest, Rules};
    use manx_model::{IpPool, IpamConfigSpec, Kind, Object};
    use serde_json::json;

    /// Two pods of n1, of which one is no more, and nobody to say so: the node is there, its agent is not.
    async fn store() -> Memory {
        let store = Memory::new();
        let pool = Object::new(Kind::IPPool, "p", &json!({"cidr": "10.0.0.0/24"}));
        let pools = [IpPool::from_object(&pool).unwrap()];
        store.create(pool).await.unwrap();
        store.create(Object::new(Kind::Node, "n1", &json!({}))).await.unwrap();
        let mut allocator = Allocator::new("n1".parse().unwrap());
        let (config, node_labels) = (IpamConfigSpec::default(), BTreeMap::new());
        let rules = Rules { pools: &pools, reserved: &[], config: &config, node_labels: &node_labels };
        for name in ["here", "gone"] {
            let attributes = [("namespace", "default"), ("pod", name), ("node", "n1")];
            let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let request = AssignRequest::ipv4(format!("net.{name}"), attributes);
            let assigned = allocator.assign(&store, SystemTime::UNIX_EPOCH, rules, &[request]).await;
            let address = assigned[0].as_ref().unwrap()[0].address;
            let mut pod = Object::new_in(Kind::Pod, "default", name, &json!({"nodeName": "n1"}));
            pod.rest.insert("status".into(), json!({"podIP": address.to_string()}));
            if name == "here" {
                store.create(pod).await.unwrap();
            }
        }
        store
    }

    fn collecting(
        store: &Memory,
        cluster: watch::Receiver<Arc<Cluster>>,
        leads: watch::Receiver<bool>,
        wall_clock: fn() -> SystemTime,
    ) {
        let collecting = Collecting {
            knows_pods: true,
            store: Arc::new(store.clone()),
            cluster,
            leads,
            counted: watch::Sender::default(),
            wall_clock,
            problems: Problems::default(),
        };
        tokio::spawn(collecting.run());
    }

    #[tokio::test(start_paused = true)]
    async fn the_address_of_a_pod_that_is_gone_is_given_back_after_the_grace_and_others_stay() {
        let store = store().await;
        let (leads, leading) = watch::channel(false);
        let (_, cluster) = watch::channel(Arc::default());
        collecting(&store, cluster, leading, || SystemTime::UNIX_EPOCH + tokio_time());
        let handles = async || -> Vec<String> {
            let listed = store.list(Kind::IPAMHandle, &Only::All).await.unwrap();
            listed.into_iter().flatten().map(|object| object.name().to_owned()).collect()
        };
        sleep(DEFAULT_GRACE * 2).await;
        assert_eq!(handles().await.len(), 2, "nobody leads");
        leads.send_replace(true);
        sleep(DEFAULT_GRACE / 2).await;
        assert_eq!(handles().await.len(), 2, "it may be on its way");
        sleep(DEFAULT_GRACE * 2).await;
        assert_eq!(handles().await, ["net.here"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_deleted_node_had_is_given_back_at_once() {
        let store = store().await;
        let find = async |kind: Kind| {
            let found = store.list(kind, &Only::All).await.unwrap();
            found.into_iter().flatten().next().unwrap()
        };
        store.delete(&find(Kind::Pod).await).await.unwrap();
        let (node, _) = Node::from_object(&Object::new(Kind::Node, "n1", &json!({}))).unwrap();
        let nodes = Arc::new([("n1".to_owned(), Arc::new(node))].into());
        let (told, cluster) = watch::channel(Arc::new(Cluster { nodes, ..Cluster::default() }));
        let (_leads, leading) = watch::channel(true);
        collecting(&store, cluster, leading, || SystemTime::UNIX_EPOCH);
        sleep(Duration::from_secs(1)).await;
        let handles = async || store.list(Kind::IPAMHandle, &Only::All).await.unwrap().len();
        assert_eq!(handles().await, 2);

        store.delete(&find(Kind::Node).await).await.unwrap();
        told.send_replace(Arc::default());
        sleep(Duration::from_secs(1)).await;
        assert_eq!(handles().await, 0);
        assert_eq!(store.list(Kind::BlockAffinity, &Only::All).await.unwrap().len(), 0);
    }

    /// The paused clock of the test, as time of day.
    fn tokio_time() -> Duration {
        use std::sync::OnceLock;
        static START: OnceLock<tokio::time::Instant> = OnceLock::new();
        START.get_or_init(tokio::time::Instant::now).elapsed()
    }
}
