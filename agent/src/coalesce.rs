//! A channel that keeps the latest value of each key: pressure makes batches larger, not queues longer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// One end of the channel; both ends are alike.
#[derive(Debug)]
pub struct Coalesce<K, V> {
    shared: Arc<Shared<K, V>>,
}

#[derive(Debug)]
struct Shared<K, V> {
    pending: Mutex<BTreeMap<K, V>>,
    ready: Notify,
}

impl<K, V> Clone for Coalesce<K, V> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K, V> Default for Coalesce<K, V> {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { pending: Mutex::new(BTreeMap::new()), ready: Notify::new() }) }
    }
}

impl<K: Ord, V> Coalesce<K, V> {
    /// Adds values; an older one of the same key that nobody has taken yet is forgotten.
    pub fn send(&self, values: impl IntoIterator<Item = (K, V)>) {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner).extend(values);
        self.shared.ready.notify_one();
    }

    /// Resolves when there may be something to take. Cancel-safe.
    pub async fn ready(&self) {
        self.shared.ready.notified().await;
    }

    /// Takes what there is.
    pub fn take(&self) -> BTreeMap<K, V> {
        std::mem::take(&mut self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_gets_the_latest_value_of_each_key_in_one_batch() {
        let sender = Coalesce::default();
        let receiver = sender.clone();
        sender.send([("a", 1), ("b", 1)]);
        sender.send([("a", 2)]);
        receiver.ready().await;
        assert_eq!(receiver.take(), BTreeMap::from([("a", 2), ("b", 1)]));
        assert!(receiver.take().is_empty());
    }
}
