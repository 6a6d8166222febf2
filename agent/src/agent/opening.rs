//! What is settled before the first pod is let in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use manx_ipam::SweepReport;
use manx_model::Kind;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::cni_server::{NotReady, drain_spool};
use crate::pods::Pods;

/// What stands between an agent and its first pod.
pub(super) struct Opening {
    pub(super) pods: Arc<Pods>,
    /// What gone pods hold, and how it is known that they are gone.
    pub(super) stale: BTreeMap<String, String>,
    pub(super) spool: PathBuf,
    pub(super) open: watch::Sender<Option<Arc<Pods>>>,
    pub(super) not_ready: watch::Sender<NotReady>,
}

impl Opening {
    /// Settles what happened while no agent ran, waits for a pool where we make one, then lets pods in.
    pub(super) async fn run(self, pool: Option<watch::Receiver<Arc<Cluster>>>) {
        drain_spool(&self.spool, &self.pods).await;
        for (handle, reason) in &self.stale {
            tracing::info!(handle, "gives up what a gone pod held: {reason}");
        }
        match self.pods.addresses.sweep(self.stale.into_keys().collect()).await {
            Ok(report) if report == SweepReport::default() => {}
            Ok(report) => tracing::info!(released = ?report.released, "swept"),
            // It is in nobody's way.
            Err(error) => tracing::warn!("what gone pods held is not given back yet: {error}"),
        }
        if let Some(mut cluster) = pool {
            // A pod that came before the pool which we are just making would be refused.
            self.not_ready.send_replace(Some("waiting for the default pool".to_owned()));
            if cluster.wait_for(|cluster| has_pool(cluster)).await.is_err() {
                return;
            }
        }
        self.open.send_replace(Some(self.pods));
        self.not_ready.send_replace(None);
        tracing::info!("ready");
        std::future::pending::<()>().await;
    }
}

/// Somebody made a pool, although perhaps none that can be used: which is for the requests to say.
fn has_pool(cluster: &Cluster) -> bool {
    !cluster.pool_objects.is_empty() || cluster.invalid.iter().any(|invalid| invalid.kind == Kind::IPPool)
}
