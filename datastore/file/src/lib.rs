//! A datastore that is a directory of manifests, `DIR/<plural>/<name>.yaml`: the embedded mode, no Kubernetes needed.
//!
//! People read and edit the files with an editor; several agents of one machine write them at the same time, and any
//! of them may be killed at any instant. `directory` says how that is safe, `watch` how changes are seen.

mod directory;
mod identity;
mod lock;
mod remembering;
mod replace;
mod spares;
mod watch;
mod writes;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use manx_datastore::{Datastore, Error, Event, Listed, Only, queue};
use manx_model::{Kind, Object};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

pub use remembering::Remembering;

use directory::{Directory, Entry, SETTLE};
use watch::{Registration, Watcher};
use writes::Writes;

/// A call that waits longer than this (for another process that holds the lock and does not run) is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a file that somebody is writing is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The objects of a cluster as YAML files in a directory. Its clones are the same store.
///
/// All file work is done on tokio's blocking pool. Writes of one store queue here, so that however many there are, only
/// one thread waits for the lock of the directory, and a burst of them wakes it once.
#[derive(Clone, Debug)]
pub struct FileStore {
    directory: Arc<Directory>,
    writes: Writes,
    watches: UnboundedSender<Registration>,
}

impl FileStore {
    /// Opens the datastore in `root`, which is created if it is not there. Must be called within a tokio runtime with
    /// its I/O and time drivers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the path and the reason.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        let directory = Arc::new(blocking(move || Directory::open(&root)).await??);
        let (watches, registrations) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(Watcher::new(Arc::clone(&directory), registrations).run());
        let settled = Arc::clone(&directory);
        let writes = Writes::new(move || settled.settle());
        Ok(Self { directory, writes, watches })
    }

    /// Begins a write, and ends it when those that came with it are begun, too.
    async fn write<B: 'static, T: Send + 'static>(
        &self,
        begin: impl FnOnce(&Directory) -> Result<B, Error> + Send + 'static,
        end: impl FnOnce(&Directory, B) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let directory = Arc::clone(&self.directory);
        let (reply, answer) = oneshot::channel();
        self.writes.add(move || {
            // What nobody waits for any more before it has begun is not done.
            if reply.is_closed() {
                return Box::new(|| ());
            }
            let begun = begin(&directory);
            Box::new(move || {
                let _ = reply.send(begun.and_then(|begun| end(&directory, begun)));
            })
        });
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(Error::Unavailable("file work was stopped".into()))),
            Err(_) => Err(Error::Unavailable(format!(
                "no write was possible within {} s: another process holds the lock of the directory",
                PATIENCE.as_secs()
            ))),
        }
    }
}

#[async_trait]
impl Datastore for FileStore {
    async fn get(&self, kind: Kind, key: &str) -> Result<Option<Object>, Error> {
        match settled(&self.directory, kind, Some(key.to_owned())).await?.pop() {
            Some(entry) => Ok(Some(Object::clone(entry.object.as_ref().map_err(Clone::clone)?))),
            None => Ok(None),
        }
    }

    async fn list(&self, kind: Kind, only: &Only) -> Result<Vec<Listed>, Error> {
        let entries = settled(&self.directory, kind, None).await?;
        let selected = entries.iter().filter(|entry| entry.concerns(only));
        Ok(selected.map(|entry| entry.object.clone().map(Arc::unwrap_or_clone)).collect())
    }

    async fn create(&self, object: Object) -> Result<Object, Error> {
        self.write(|directory| directory.begin_create(object), Directory::end_create).await
    }

    async fn update(&self, object: Object) -> Result<Object, Error> {
        self.write(|directory| directory.begin_update(object), Directory::end_update).await
    }

    async fn delete(&self, object: &Object) -> Result<(), Error> {
        let object = object.clone();
        self.write(|_| Ok(()), move |directory, ()| directory.delete(&object)).await
    }

    async fn annotate(
        &self,
        object: &Object,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<Object, Error> {
        let (object, annotations) = (object.clone(), annotations.clone());
        self.write(|_| Ok(()), move |directory, ()| directory.annotate(&object, &annotations)).await
    }

    fn watch(&self, kind: Kind, only: Only) -> BoxStream<'static, Event> {
        let (sender, stream) = queue();
        // Fails only while the runtime is shut down, when nobody reads the stream.
        let _ = self.watches.send(Registration { kind, only, sender });
        // The watcher runs for as long as anybody has the store.
        stream.keeping(self.clone())
    }
}

/// One object or all of a kind, after waiting for people who are just writing them.
pub(crate) async fn settled(
    directory: &Arc<Directory>,
    kind: Kind,
    key: Option<String>,
) -> Result<Vec<Arc<Entry>>, Error> {
    let mut looks = SETTLE.as_millis() / LOOK_AGAIN.as_millis();
    loop {
        let (directory, key) = (Arc::clone(directory), key.clone());
        let entries = blocking(move || match key {
            Some(key) => directory.get(kind, &key).map(Vec::from_iter),
            None => directory.list(kind),
        })
        .await??;
        if looks == 0 || !entries.iter().any(|entry| entry.may_be_half_written()) {
            return Ok(entries);
        }
        looks -= 1;
        sleep(LOOK_AGAIN).await;
    }
}

/// Runs `work` on the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(|error| Error::Unavailable(format!("file work was stopped: {error}")))
}

#[cfg(test)]
mod tests;
