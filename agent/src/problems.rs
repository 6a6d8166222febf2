//! What is wrong right now, by who noticed it: shown by `manx status`, and logged once when it appears and when it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The standing problems of an agent. Cheap to clone; all clones are one list.
#[derive(Clone, Debug, Default)]
pub struct Problems(Arc<Mutex<BTreeMap<&'static str, BTreeSet<String>>>>);

impl Problems {
    /// Replaces what `source` complains about; an empty list means that all is well with it.
    pub fn set(&self, source: &'static str, now: impl IntoIterator<Item = String>) {
        let now: BTreeSet<String> = now.into_iter().collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.insert(source, now.clone()).unwrap_or_default();
        for text in now.difference(&before) {
            tracing::warn!(source, "{text}");
        }
        for text in before.difference(&now) {
            tracing::info!(source, "no longer: {text}");
        }
    }

    /// All of them, each with its source in front.
    pub fn list(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .flat_map(|(source, texts)| texts.iter().map(move |text| format!("{source}: {text}")))
            .collect()
    }
}
