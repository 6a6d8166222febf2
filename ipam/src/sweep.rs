//! What crashes of this node have left behind, as far as the node itself can know it without listing the cluster's
//! handles: what it holds for pods that are gone, and handles that it is told of. The rest is the [`crate::Collector`]'s.

use std::collections::BTreeSet;
use std::time::SystemTime;

use manx_datastore::Datastore;
use manx_model::{AllocationAttribute, IpamConfigSpec};

use crate::{Allocator, Error, SweepReport};

impl Allocator {
    /// Releases what this node holds and `keep` refuses, and what the handles in `gone` hold wherever it is; a handle of
    /// `gone` that holds nothing is removed.
    ///
    /// # Errors
    /// The first that stopped it; what was done before stays done, and it can be repeated.
    pub async fn sweep(
        &mut self,
        store: &dyn Datastore,
        now: SystemTime,
        config: &IpamConfigSpec,
        gone: &BTreeSet<String>,
        keep: impl Fn(&str, &AllocationAttribute) -> bool,
    ) -> Result<SweepReport, Error> {
        self.ensure_loaded(store, now).await?;
        let left = self.allocations().filter(|(_, handle, attribute)| !keep(handle, attribute));
        let left: BTreeSet<String> =
            left.map(|(_, handle, _)| handle.to_owned()).chain(gone.iter().cloned()).collect();
        let left: Vec<String> = left.into_iter().collect();
        let mut report = SweepReport::default();
        let answers = self.release(store, now, config, &left).await;
        for (handle, released) in left.into_iter().zip(answers) {
            report.released.extend(released?.into_iter().map(|address| (address, handle.clone())));
        }
        Ok(report)
    }
}
