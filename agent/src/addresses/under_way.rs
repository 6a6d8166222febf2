//! Something that goes on beside the owner's other work.

use futures::FutureExt as _;
use futures::future::BoxFuture;

/// A call that is under way, if there is one.
pub(super) struct UnderWay<T>(Option<BoxFuture<'static, T>>);

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> UnderWay<T> {
    pub(super) fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn begin(&mut self, call: impl Future<Output = T> + Send + 'static) {
        self.0 = Some(call.boxed());
    }

    /// What came of it; never resolves while nothing is under way. May be dropped and called again.
    pub(super) async fn outcome(&mut self) -> T {
        let Some(call) = &mut self.0 else { return std::future::pending().await };
        let outcome = call.await;
        self.0 = None;
        outcome
    }
}
