//! The task behind a [`Cluster`]: one watch for each kind that is needed, begun and ended as the cluster asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use futures::stream::{BoxStream, SelectAll};
use manx_datastore::{Datastore, Event, Only};
use manx_model::{Kind, NodeName};
use tokio::sync::watch;

use super::{Cluster, Fold, KnownPods};
use crate::latest;

/// What is ready at once comes as one batch, of at most so many events.
const BATCH: usize = 1024;

/// The watches that are under way.
#[derive(Default)]
struct Watches {
    events: SelectAll<BoxStream<'static, Vec<(Kind, Event)>>>,
    running: BTreeMap<(Kind, Only), AbortHandle>,
}

impl Watches {
    /// Begins those that are wanted and missing, ends those that are not wanted any more.
    fn keep(&mut self, store: &dyn Datastore, wanted: &[(Kind, Only)]) {
        self.running.retain(|question, handle| {
            let keep = wanted.contains(question);
            if !keep {
                handle.abort();
            }
            keep
        });
        for (kind, only) in wanted {
            if self.running.contains_key(&(*kind, only.clone())) {
                continue;
            }
            let (handle, registration) = AbortHandle::new_pair();
            let kind = *kind;
            let events = store.watch(kind, only.clone()).map(move |event| (kind, event)).ready_chunks(BATCH);
            self.events.push(Abortable::new(events, registration).boxed());
            self.running.insert((kind, only.clone()), handle);
        }
    }
}

/// Watches what `node` needs, for ever, and publishes the cluster and the node's pods after every burst of events: the pods
/// first, so that they are there when the cluster is in sync.
pub async fn watch(
    store: Arc<dyn Datastore>,
    node: NodeName,
    cluster: watch::Sender<Arc<Cluster>>,
    pods: watch::Sender<KnownPods>,
) {
    let mut fold = Fold::new(node);
    let mut watches = Watches::default();
    loop {
        watches.keep(&*store, &fold.wanted());
        let Some(batch) = watches.events.next().await else { return };
        for (kind, event) in batch {
            fold.take(kind, event);
        }
        latest::set(&pods, fold.pods());
        latest::set(&cluster, Arc::new(fold.cluster()));
    }
}
