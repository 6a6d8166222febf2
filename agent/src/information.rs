//! The ClusterInformation: made where there is none, and obeyed where it locks the datastore.
//!
//! Calico's plugin refuses every pod while `datastoreReady` is not true, which is how a datastore is moved: nobody writes
//! it meanwhile. So does Manx ([`is_locked`]). Plugins of Calico also refuse every pod while there is no ClusterInformation
//! at all, so one is made.

use std::sync::Arc;
use std::time::Duration;

use manx_datastore::{Datastore, Error};
use manx_model::{ClusterInformationSpec, Kind, Object};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::echo;

/// After a failed call the next try waits this long.
const RETRY: Duration = Duration::from_secs(30);

/// Whether somebody has said that the datastore is not to be written.
pub fn is_locked(cluster: &Cluster) -> bool {
    cluster.information.as_ref().is_some_and(|information| information.is_locked())
}

/// What is said to who wants to write a locked datastore.
pub const LOCKED: &str =
    "ClusterInformation default says that the datastore is not ready (datastoreReady is not true)";

/// Makes the ClusterInformation of a cluster that has none, as long as `leads`, for ever. `guid` is the cluster's new
/// identity.
pub async fn keep(
    store: Arc<dyn Datastore>,
    mut cluster: watch::Receiver<Arc<Cluster>>,
    mut leads: watch::Receiver<bool>,
    guid: String,
) {
    loop {
        let seen = Arc::clone(&cluster.borrow_and_update());
        let ours = *leads.borrow_and_update();
        let mut failed = false;
        if ours && seen.in_sync && !is_there(&seen) {
            match make(&*store, &guid).await {
                Ok(()) if echo::heard(&mut cluster, is_there).await => continue,
                Ok(()) => return,
                Err(_) => failed = true,
            }
        }
        tokio::select! {
            changed = cluster.changed() => if changed.is_err() { return },
            changed = leads.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

/// A damaged one is one, too.
fn is_there(cluster: &Arc<Cluster>) -> bool {
    let damaged = cluster
        .invalid
        .iter()
        .any(|invalid| invalid.kind == Kind::ClusterInformation && invalid.name == "default");
    cluster.information.is_some() || damaged
}

async fn make(store: &dyn Datastore, guid: &str) -> Result<(), Error> {
    let spec = ClusterInformationSpec {
        cluster_guid: Some(guid.to_owned()),
        cluster_type: Some("k8s,bgp".to_owned()),
        datastore_ready: Some(true),
        ..ClusterInformationSpec::default()
    };
    match store.create(Object::new(Kind::ClusterInformation, "default", &spec)).await {
        Ok(_) => {
            tracing::info!("made ClusterInformation default");
            Ok(())
        }
        Err(Error::Exists { .. }) => Ok(()),
        Err(error) => {
            tracing::warn!("ClusterInformation default is not made yet: {error}");
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_datastore::Memory;
    use manx_datastore::testing::{Faults, Faulty};

    #[tokio::test(start_paused = true)]
    async fn it_is_made_once_whatever_else_is_told_before_the_watch_tells_of_it() {
        let store = Faulty::new(Memory::new(), 1, Faults::default());
        let without = || Arc::new(Cluster { in_sync: true, ..Cluster::default() });
        let (cluster, seen) = watch::channel(without());
        let (_leads, leading) = watch::channel(true);
        tokio::spawn(keep(Arc::new(store.clone()), seen, leading, "aa".into()));
        // On the test's own clock, and for less than what was made is waited for.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.send_replace(without());
        }
        assert_eq!(store.calls(), 1);
        let information = Some(Arc::new(ClusterInformationSpec::default()));
        cluster.send_replace(Arc::new(Cluster { information, in_sync: true, ..Cluster::default() }));
        tokio::time::sleep(RETRY * 2).await;
        assert_eq!(store.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_without_an_identity_is_given_one_by_the_node_that_leads() {
        let store = Memory::new();
        let (cluster, seen) = watch::channel(Arc::new(Cluster { in_sync: true, ..Cluster::default() }));
        let (leads, leading) = watch::channel(false);
        tokio::spawn(keep(Arc::new(store.clone()), seen, leading, "aa".into()));
        tokio::time::sleep(RETRY * 2).await;
        assert_eq!(store.get(Kind::ClusterInformation, "default").await, Ok(None));
        leads.send_replace(true);
        tokio::time::sleep(RETRY * 2).await;
        let made = store.get(Kind::ClusterInformation, "default").await.unwrap().unwrap();
        let (spec, _) = ClusterInformationSpec::from_object(&made);
        assert!(!spec.is_locked());
        assert!(!is_locked(&cluster.borrow()), "absent is not locked");
        let locked = Some(Arc::new(ClusterInformationSpec::default()));
        assert!(is_locked(&Cluster { information: locked, ..Cluster::default() }));
    }
}
