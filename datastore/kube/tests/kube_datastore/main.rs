//! The datastore against a real kube-apiserver: the contract, outages, rights, and the rules of our definitions.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod contract;
mod definitions;
mod outages;
mod rights;
mod rules;
mod servers;
mod work;

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use manx_datastore::{Datastore, Event, Only};
use manx_datastore_kube::{KubeStore, Options, install_crds};
use manx_kubernetes::{ControlPlane, Shared};
use manx_model::{Kind, Object};
use serde_json::json;
use tokio::time::timeout;

/// Longer than anything here takes, on a machine that builds at the same time.
const SOON: Duration = Duration::from_secs(60);

/// The control plane that the tests take turns on, with our definitions, without objects of Calico's; and a store.
async fn shared() -> (Shared, KubeStore) {
    let control_plane = ControlPlane::shared().unwrap();
    let store = store(&control_plane, "admin").await;
    install_crds(&store).await.unwrap();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_calicos()) {
        for object in store.list(kind, &Only::All).await.unwrap() {
            store.delete(&object.unwrap()).await.unwrap();
        }
    }
    (control_plane, store)
}

/// A store of this user.
async fn store(control_plane: &ControlPlane, user: &str) -> KubeStore {
    let kubeconfig = Some(control_plane.kubeconfig(user).unwrap());
    KubeStore::connect(Options { kubeconfig, reporter: "n1".into(), ..Options::default() }).await.unwrap()
}

fn pool(name: &str, cidr: &str) -> Object {
    Object::new(Kind::IPPool, name, &json!({ "cidr": cidr }))
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("within a minute")
}

async fn next(watch: &mut BoxStream<'static, Event>) -> Event {
    soon(watch.next()).await.expect("a watch ends never")
}

/// What it says up to `InSync`, in its own order but for the objects, which are by key.
async fn in_sync(watch: &mut BoxStream<'static, Event>) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        events.push(next(watch).await);
        if events.last() == Some(&Event::InSync) {
            return events;
        }
    }
}
