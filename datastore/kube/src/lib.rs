//! The datastore on the Kubernetes API: the objects of Calico's storage group, and those of Kubernetes that Manx reads.
//!
//! ```text
//!   KubeStore ── call ────┐
//!                         ├── Connection ── HTTP/2 over TLS ── kube-apiserver
//!   one task per watch ───┘   (one for all)
//! ```
//!
//! Objects travel as raw JSON and not through types: what we do not know in one survives a write of ours. `kube` reads
//! kubeconfigs, service accounts and credentials; the calls and the watches are our own, since they have to say what
//! went wrong in one sentence, to go on after an object that cannot be read, and never to show a secret. Every call is
//! one request (a list: one for each page), but for those that the API server turned away because it was busy (429):
//! they were not carried out, and are asked again within the call's time.
//!
//! Of a non-IPAM object that Calico has written, labels and annotations are in part in an annotation: [`Datastore`]'s
//! callers see them where they belong (`manx_model::calico_metadata`).

mod backoff;
mod call;
mod condition;
mod config;
mod connection;
mod crds;
mod decode;
mod list;
mod refusal;
mod report;
mod request;
mod selection;
mod traffic;
mod version;
mod watch;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use manx_datastore::{Condition, Datastore, Error, Event, Listed, Only, Report, queue};
use manx_model::{Kind, Object};

use connection::Connection;
use watch::Pace;

pub use crds::{crd, install_crds};
pub use traffic::{Traffic, Watched};
pub use version::ask_version;

/// How to reach the API server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kubeconfig. `None`: the files of `$KUBECONFIG`; where that is not set, the service account of the pod that
    /// this is; outside of a pod `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Who says what is [reported](Datastore::report), as in Events: the node's name. At most 128 bytes are kept.
    pub reporter: String,
    /// For how long a call may take, with all that it waits for; a page of a list counts as a call. More than zero.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { kubeconfig: None, reporter: "manx".into(), timeout: Duration::from_secs(10) }
    }
}

/// The objects of a cluster on its API server. Its clones are the same store, with one connection.
///
/// All of it must be used within a tokio runtime with its I/O and time drivers.
#[derive(Clone, Debug)]
pub struct KubeStore(pub(crate) Arc<Connection>);

impl KubeStore {
    /// A store with these options. Nothing is asked of the API server yet: it may be away.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no configuration, or one that cannot be used. It shows no credentials.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        Connection::open(options, Pace::default()).await.map(Arc::new).map(Self)
    }

    /// What this store and its clones have asked for so far, and what their watches were told.
    pub fn traffic(&self) -> Traffic {
        self.0.traffic.read()
    }
}

#[async_trait]
impl Datastore for KubeStore {
    async fn get(&self, kind: Kind, key: &str) -> Result<Option<Object>, Error> {
        call::get(&self.0, kind, key).await
    }

    async fn list(&self, kind: Kind, only: &Only) -> Result<Vec<Listed>, Error> {
        list::list(&self.0, kind, only).await
    }

    async fn create(&self, object: Object) -> Result<Object, Error> {
        write::create(&self.0, object).await
    }

    async fn update(&self, object: Object) -> Result<Object, Error> {
        write::update(&self.0, object).await
    }

    async fn delete(&self, object: &Object) -> Result<(), Error> {
        write::delete(&self.0, object).await
    }

    async fn annotate(
        &self,
        object: &Object,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<Object, Error> {
        write::annotate(&self.0, object, annotations).await
    }

    async fn report(&self, object: &Object, report: &Report) -> Result<(), Error> {
        report::report(&self.0, object, report).await
    }

    async fn set_condition(&self, object: &Object, condition: &Condition) -> Result<(), Error> {
        condition::set(&self.0, object, condition).await
    }

    /// Of pods only what Manx uses is kept, and of nodes only the metadata.
    fn watch(&self, kind: Kind, only: Only) -> BoxStream<'static, Event> {
        let (sender, stream) = queue();
        stream.keeping(watch::start(Arc::clone(&self.0), kind, only, sender))
    }
}
