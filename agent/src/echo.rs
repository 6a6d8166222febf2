//! What is written comes back by the watch.
//!
//! Whoever looks at the cluster, finds something missing and makes it will, until then, still find it missing: another change
//! that comes in between would have it made a second time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cluster::Cluster;

/// A watch that has told nothing for so long is behind, and what was written may be gone again.
const LIMIT: Duration = Duration::from_secs(5);

/// Waits until the cluster `is` as it was just written, or the watch is behind; `false` when the watch has ended.
pub(crate) async fn heard(
    cluster: &mut watch::Receiver<Arc<Cluster>>,
    is: impl FnMut(&Arc<Cluster>) -> bool,
) -> bool {
    match tokio::time::timeout(LIMIT, cluster.wait_for(is)).await {
        Ok(told) => told.is_ok(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_written_is_awaited_for_a_while_and_not_for_ever() {
        let (told, mut cluster) = watch::channel(Arc::new(Cluster::default()));
        let begin = tokio::time::Instant::now();
        assert!(heard(&mut cluster, |cluster| cluster.in_sync).await);
        assert_eq!(begin.elapsed(), LIMIT);
        told.send_replace(Arc::new(Cluster { in_sync: true, ..Cluster::default() }));
        assert!(heard(&mut cluster, |cluster| cluster.in_sync).await);
        assert_eq!(begin.elapsed(), LIMIT);
        drop(told);
        assert!(!heard(&mut cluster, |cluster| !cluster.in_sync).await);
    }
}
