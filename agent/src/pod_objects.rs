//! The Pod objects of Kubernetes: what they ask for, and the annotations that tell the rest of the cluster what they got.
//!
//! ADD writes Calico's annotations, DEL empties them; neither waits for that, since it takes longer than all the rest.
//! While the datastore is away a pod is attached without them; [`keep_annotated`] writes what is missing when it is back,
//! and after a restart.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use manx_cni::protocol;
use manx_cni::{CniError, Code};
use manx_datastore::{Datastore, Error};
use manx_model::{Kind, Namespace, Object, Pod, pod_annotation};
use serde_json::Value;
use tokio::sync::{Mutex, Notify, watch};

use crate::cluster::{Cluster, KnownPods};
use crate::demand::About;
use crate::endpoints::{Endpoint, Endpoints, pod_behind};
use crate::problems::Problems;

/// What is to be set (`Some`) and removed (`None`).
type Annotations = BTreeMap<String, Option<String>>;

/// An ADD writes its own annotations: a missing one that is younger than this is on its way.
const SETTLE: Duration = Duration::from_secs(5);

/// A look at all pods takes longer than an event of one: what changes within this time is looked at together.
const LOOK: Duration = Duration::from_secs(1);

/// Looks for Pod objects, and annotates them. Cheap to clone.
#[derive(Clone)]
pub struct PodObjects {
    /// Where they are.
    pub store: Arc<dyn Datastore>,
    /// Where their namespaces are remembered.
    pub cluster: watch::Receiver<Arc<Cluster>>,
    /// Where they are remembered.
    pub pods: watch::Receiver<KnownPods>,
    /// There is a Pod object behind every pod of Kubernetes: without Kubernetes there need not be.
    pub required: bool,
    /// Wakes [`keep_annotated`]: nothing else need change before a datastore that was away is there again.
    pub late: Arc<Notify>,
    /// Whose turn it is to annotate. One Pod at a time: nobody waits for that, but pods that come at the same time wait for
    /// the API server.
    pub turn: Arc<Mutex<()>>,
}

/// The objects behind one request.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The Pod.
    pub pod: Option<Arc<Pod>>,
    /// Its Namespace.
    pub namespace: Option<Arc<Namespace>>,
}

impl Found {
    /// What the pod's annotations are read from.
    pub fn about(&self) -> About<'_> {
        About {
            pod: self.pod.as_ref().map(|pod| &pod.annotations),
            namespace: self.namespace.as_ref().map(|namespace| &namespace.annotations),
        }
    }
}

impl PodObjects {
    /// The objects of a pod: from memory, else from the datastore.
    ///
    /// # Errors
    /// [`Code::TRY_AGAIN_LATER`]: Kubernetes has no such Pod (any more), or cannot be asked.
    pub async fn find(&self, pod: Option<&protocol::Pod>) -> Result<Found, CniError> {
        let Some(pod) = pod else { return Ok(Found::default()) };
        let (cluster, pods) = (Arc::clone(&self.cluster.borrow()), Arc::clone(&self.pods.borrow()));
        let key = format!("{}/{}", pod.namespace, pod.name);
        let is_meant = |known: &Pod| pod.uid.is_none() || known.uid == pod.uid;
        let found = match pods.get(&key).filter(|known| is_meant(known)) {
            Some(known) => Some(Arc::clone(known)),
            None if self.required => match Pod::from_object(&self.ask(Kind::Pod, &key).await?) {
                known if is_meant(&known) => Some(Arc::new(known)),
                _ => {
                    let uid = pod.uid.as_deref().unwrap_or_default();
                    return Err(not_known(format!("Pod {key} has another uid than {uid}: it was replaced")));
                }
            },
            None => None,
        };
        let namespace = match cluster.namespaces.get(&pod.namespace) {
            Some(known) => Some(Arc::clone(known)),
            None if self.required => {
                let object = self.ask(Kind::Namespace, &pod.namespace).await?;
                Some(Arc::new(Namespace::from_object(&object)))
            }
            None => None,
        };
        Ok(Found { pod: found, namespace })
    }

    /// The same, for a pod that needs no datastore: while it is away, none.
    ///
    /// # Errors
    /// As of [`Self::find`], while the datastore answers.
    pub async fn find_if_it_answers(&self, pod: Option<&protocol::Pod>) -> Result<Found, CniError> {
        match self.find(pod).await {
            Err(error) if self.cluster.borrow().lost.is_some() => {
                tracing::warn!("attached without looking at its annotations: {error}");
                Ok(Found::default())
            }
            found => found,
        }
    }

    async fn ask(&self, kind: Kind, key: &str) -> Result<Object, CniError> {
        match self.store.get(kind, key).await {
            Ok(Some(object)) => Ok(object),
            Ok(None) => Err(not_known(format!("there is no {kind} {key} in Kubernetes"))),
            Err(error) => Err(not_known(format!("{kind} {key}: {error}"))),
        }
    }

    /// Says on the Pod which addresses it has. What cannot be written now is written later; a Pod that is gone or was
    /// replaced is not there to say it, and its container's DEL is on its way.
    pub async fn attached(&self, pod: &Pod, container_id: &str, addresses: &[IpAddr]) {
        match self.annotate(pod, annotations(container_id, addresses)).await {
            Ok(()) => {}
            Err(Error::Unavailable(reason)) => {
                tracing::warn!(pod = key(pod), "its annotations are written later: {reason}");
                self.attached_unsaid();
            }
            Err(error) => tracing::warn!(pod = key(pod), "was deleted while it was attached: {error}"),
        }
    }

    /// A pod is attached, and its Pod does not say so yet.
    pub fn attached_unsaid(&self) {
        self.late.notify_one();
    }

    /// Takes back what [`Self::attached`] said, if it is still about this container. What cannot be written is not:
    /// the Pod is on its way out, or its next container will say what it has.
    pub async fn detached(&self, key: &str, container_id: &str) {
        let pod = self.pods.borrow().get(key).cloned();
        let Some(pod) = pod else { return };
        let says = pod.annotations.get(pod_annotation::CONTAINER_ID).map_or("", String::as_str);
        if !says.is_empty() && says != container_id {
            return;
        }
        let empty = [pod_annotation::POD_IP, pod_annotation::POD_IPS, pod_annotation::CONTAINER_ID]
            .map(|name| (name.to_owned(), Some(String::new())));
        if let Err(error) = self.annotate(&pod, empty.into()).await {
            tracing::debug!(pod = key, "its annotations are not emptied: {error}");
        }
    }

    async fn annotate(&self, pod: &Pod, annotations: Annotations) -> Result<(), Error> {
        // Whatever version it has: kubelet writes the Pod all the time, and these annotations are nobody else's.
        let mut object = Object::new_in(Kind::Pod, &pod.namespace, &pod.name, &Value::Null);
        object.metadata.uid.clone_from(&pod.uid);
        let _turn = self.turn.lock().await;
        self.store.annotate(&object, &annotations).await.map(drop)
    }
}

fn key(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

fn not_known(details: String) -> CniError {
    CniError::new(Code::TRY_AGAIN_LATER, "the pod is not known yet", details)
}

/// Calico's annotations of a Pod that has these addresses.
fn annotations(container_id: &str, addresses: &[IpAddr]) -> Annotations {
    let host_route = |address: &IpAddr| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    let texts: Vec<String> = addresses.iter().map(host_route).collect();
    [
        (pod_annotation::POD_IP, texts.first().cloned().unwrap_or_default()),
        (pod_annotation::POD_IPS, texts.join(",")),
        (pod_annotation::CONTAINER_ID, container_id.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), Some(value)))
    .into()
}

/// The Pods of which something is missing: those of `endpoints` that do not say what they have.
fn unsaid(pods: &KnownPods, endpoints: &BTreeMap<String, Endpoint>) -> Vec<(Arc<Pod>, Annotations)> {
    let said = |pod: &Pod, wanted: &Annotations| {
        wanted.iter().all(|(name, value)| pod.annotations.get(name) == value.as_ref())
    };
    endpoints
        .iter()
        .filter_map(|(handle, endpoint)| {
            let pod = pod_of(pods, endpoint)?;
            let container_id = handle.rsplit('.').next()?;
            let wanted = annotations(container_id, &endpoint.addresses);
            (!said(pod, &wanted)).then(|| (Arc::clone(pod), wanted))
        })
        .collect()
}

/// The Pod behind an endpoint. Of one that an earlier agent attached without IPAM, the device's name alone says whose it is.
fn pod_of<'a>(pods: &'a KnownPods, endpoint: &Endpoint) -> Option<&'a Arc<Pod>> {
    match &endpoint.pod {
        Some(key) => pods.get(key),
        None => pod_behind(&endpoint.device, pods),
    }
}

/// Writes what ADDs could not write, for ever.
pub async fn keep_annotated(objects: PodObjects, endpoints: Endpoints, problems: Problems) {
    let mut pods = objects.pods.clone();
    let mut before = Vec::new();
    loop {
        let seen = Arc::clone(&pods.borrow_and_update());
        let missing = unsaid(&seen, &endpoints.all());
        let names: Vec<String> = missing.iter().map(|(pod, _)| key(pod)).collect();
        let mut failed = None;
        // What was missing a moment ago and still is was not on its way.
        for (pod, wanted) in missing.into_iter().filter(|(pod, _)| before.contains(&key(pod))) {
            match objects.annotate(&pod, wanted).await {
                Ok(()) | Err(Error::Gone { .. } | Error::Conflict { .. }) => {}
                Err(error) => failed = Some(format!("Pod {} does not say its addresses: {error}", key(&pod))),
            }
        }
        problems.set("pod annotations", failed);
        let idle = names.is_empty();
        before = names;
        tokio::select! {
            changed = pods.changed(), if idle => match changed {
                Ok(()) => tokio::time::sleep(LOOK).await,
                Err(_) => return,
            },
            () = objects.late.notified(), if idle => {}
            () = tokio::time::sleep(SETTLE), if !idle => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_cni::settings::Source;
    use manx_datastore::Memory;
    use manx_datastore::testing::{Faults, Faulty};
    use serde_json::json;

    fn pod() -> Object {
        Object::new_in(Kind::Pod, "default", "web", &json!({"nodeName": "n1"}))
    }

    struct Fixture {
        store: Faulty<Memory>,
        objects: PodObjects,
        pods: watch::Sender<KnownPods>,
    }

    impl Fixture {
        fn new() -> Self {
            let store = Faulty::new(Memory::new(), 1, Faults::default());
            let (pods, receiver) = watch::channel(KnownPods::default());
            let objects = PodObjects {
                store: Arc::new(store.clone()),
                cluster: watch::Sender::default().subscribe(),
                pods: receiver,
                required: true,
                late: Arc::default(),
                turn: Arc::default(),
            };
            Self { store, objects, pods }
        }

        /// What a watch would bring.
        async fn sees(&self) -> Object {
            let pod = self.store.get(Kind::Pod, "default/web").await.unwrap().unwrap();
            self.pods.send_replace(Arc::new([(pod.key(), Arc::new(Pod::from_object(&pod)))].into()));
            pod
        }
    }

    fn says(pod: &Object) -> Vec<&str> {
        [pod_annotation::POD_IP, pod_annotation::POD_IPS, pod_annotation::CONTAINER_ID]
            .map(|name| pod.metadata.annotations.get(name).map_or("-", String::as_str))
            .into()
    }

    fn asked(uid: Option<&str>) -> protocol::Pod {
        let uid = uid.map(str::to_owned);
        protocol::Pod { namespace: "default".into(), name: "web".into(), infra_container_id: None, uid }
    }

    #[tokio::test]
    async fn a_pod_that_is_remembered_is_not_asked_for_and_one_that_was_replaced_is() {
        let fixture = Fixture::new();
        let missing = fixture.objects.find(Some(&asked(None))).await.unwrap_err();
        assert!(missing.details.contains("no Pod default/web"), "{missing}");
        fixture.store.create(pod()).await.unwrap();
        let namespace = Object::new(Kind::Namespace, "default", &serde_json::Value::Null);
        fixture.store.create(namespace).await.unwrap();
        let uid = fixture.sees().await.metadata.uid;
        let calls = fixture.store.calls();
        fixture.objects.find(Some(&asked(uid.as_deref()))).await.unwrap();
        assert_eq!(fixture.store.calls() - calls, 1, "the namespace only");
        let other = fixture.objects.find(Some(&asked(Some("another")))).await.unwrap_err();
        assert!(other.details.contains("replaced"), "{other}");
    }

    #[tokio::test]
    async fn a_pod_says_which_addresses_it_has_and_another_containers_end_changes_nothing() {
        let fixture = Fixture::new();
        fixture.store.create(pod()).await.unwrap();
        let addresses = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        fixture.objects.attached(&Pod::from_object(&fixture.sees().await), "c1", &addresses).await;
        assert_eq!(says(&fixture.sees().await), ["10.0.0.7/32", "10.0.0.7/32,fd00::7/128", "c1"]);
        fixture.objects.detached("default/web", "c0").await;
        assert_eq!(says(&fixture.sees().await)[2], "c1");
        fixture.objects.detached("default/web", "c1").await;
        assert_eq!(says(&fixture.sees().await), ["", "", ""]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_said_while_the_datastore_was_away_is_said_later() {
        let fixture = Fixture::new();
        fixture.store.create(pod()).await.unwrap();
        let seen = fixture.sees().await;
        let addresses = vec!["10.0.0.7".parse().unwrap()];
        let endpoints = Endpoints::default();
        tokio::spawn(keep_annotated(fixture.objects.clone(), endpoints.clone(), Problems::default()));
        tokio::time::sleep(SETTLE).await;
        fixture.store.down();
        let endpoint = Endpoint {
            device: "cali1".into(),
            addresses: addresses.clone(),
            origin: None,
            pod: Some("default/web".into()),
            source: Source::Blocks,
        };
        endpoints.insert("net.c1".into(), endpoint);
        fixture.objects.attached(&Pod::from_object(&seen), "c1", &addresses).await;
        tokio::time::sleep(SETTLE * 3).await;
        fixture.store.up();
        tokio::time::sleep(SETTLE * 3).await;
        assert_eq!(says(&fixture.sees().await), ["10.0.0.7/32", "10.0.0.7/32", "c1"]);
    }
}
