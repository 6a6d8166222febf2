//! One trait for the objects of a cluster: `memory` here, `file` and `kube` in crates of their own.
//!
//! A datastore keeps [`Object`]s by kind and name, gives each stored version a `resourceVersion`, and writes only by
//! compare-and-swap. It is as strong as the Kubernetes API and no stronger: reads and watches may lag behind writes of
//! others, a watch may start over, and any call may fail and be tried again.
//!
//! The trait needs no runtime: its futures may be polled by anything. That is what lets IPAM's protocols be plain
//! `async fn`s over `&dyn Datastore` (state machines that the compiler writes), interleaved at will in tests.

mod memory;
mod only;
mod queue;
#[cfg(feature = "testing")]
pub mod testing;

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::stream::BoxStream;
use manx_model::{Kind, Object};

pub use memory::Memory;
pub use only::Only;
pub use queue::{EventSender, EventStream, queue};

/// The objects of a cluster.
#[async_trait]
pub trait Datastore: Send + Sync {
    /// The object of this kind and key (its name, or `namespace/name`), or `None`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is there but cannot be read as an object; [`Error::Unavailable`].
    async fn get(&self, kind: Kind, key: &str) -> Result<Option<Object>, Error>;

    /// All objects of a kind that `only` selects, by key. An object that cannot be read stands among them as its error.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn list(&self, kind: Kind, only: &Only) -> Result<Vec<Listed>, Error>;

    /// Stores a new object and returns it as stored, with `resourceVersion` and `uid`.
    ///
    /// # Errors
    /// [`Error::Exists`] when the name is taken; [`Error::Invalid`] when it is none ([`manx_model::check_key`]);
    /// [`Error::Unavailable`].
    async fn create(&self, object: Object) -> Result<Object, Error>;

    /// Replaces the stored object if it still has `object`'s `resourceVersion` (which must be set); returns it as stored.
    ///
    /// # Errors
    /// [`Error::Conflict`] when somebody wrote in between; [`Error::Gone`] when there is none; [`Error::Unavailable`].
    async fn update(&self, object: Object) -> Result<Object, Error>;

    /// Deletes exactly the version that `object` is.
    ///
    /// # Errors
    /// As for [`Self::update`].
    async fn delete(&self, object: &Object) -> Result<(), Error>;

    /// Sets (`Some`) and removes (`None`) annotations of an object that is somebody else's, and leaves all the rest of it as
    /// it is, whoever writes that at the same time. `object` says which: its uid and its `resourceVersion` are compared
    /// where they are set, and not where they are `None`. Returns the object as it is now; of a Pod perhaps no more than its
    /// metadata.
    ///
    /// # Errors
    /// As for [`Self::update`].
    async fn annotate(
        &self,
        object: &Object,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<Object, Error>;

    /// Tells whoever looks at `object` what is to be said about it: in Kubernetes an Event. Repeating what was said does
    /// no harm. Where there is no such place, nothing is done.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn report(&self, object: &Object, report: &Report) -> Result<(), Error> {
        let _ = (object, report);
        Ok(())
    }

    /// Says in the status of `object`, which is somebody else's, how one thing about it is, and leaves all the rest as it is,
    /// whoever writes that at the same time: in Kubernetes a condition, of a Node. Where there is no such place, nothing is
    /// done.
    ///
    /// # Errors
    /// [`Error::Gone`] when there is none; [`Error::Unavailable`].
    async fn set_condition(&self, object: &Object, condition: &Condition) -> Result<(), Error> {
        let _ = (object, condition);
        Ok(())
    }

    /// Whether the datastore answers now, and not just what remembers it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn ping(&self) -> Result<(), Error> {
        match self.get(Kind::IPAMConfig, "default").await {
            Err(Error::Unavailable(reason)) => Err(Error::Unavailable(reason)),
            _ => Ok(()),
        }
    }

    /// Makes sure that what is remembered of IPAMBlocks for a start without the datastore is what was answered last, even
    /// after a loss of power. Where nothing is remembered, nothing is done.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: a later start may go by something older.
    async fn settle(&self) -> Result<(), Error> {
        Ok(())
    }

    /// All objects of a kind that `only` selects, and then every change to them. The stream ends never: what goes wrong behind it is
    /// retried with backoff by the datastore, and after a gap it starts over with [`Event::Init`].
    /// Changes to one object may be merged: only its latest state is sure to come. An object that `only` selects no
    /// longer is told as deleted. Of kinds that are not Calico's, what Manx has no use for may be missing from the
    /// objects: they are never the ground for an `update`.
    fn watch(&self, kind: Kind, only: Only) -> BoxStream<'static, Event>;
}

/// One row of [`Datastore::list`].
pub type Listed = Result<Object, manx_model::Invalid>;

/// What a watch says. One pass is `Init`, `Object` or `Invalid` for each that there is, `InSync`; then changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A (new) full list begins: what was known and is not named again before [`Event::InSync`] has been deleted.
    Init,
    /// The object as it is now.
    Object(Object),
    /// There is an object of this key, and it cannot be read. What it said before no longer counts as its word,
    /// nor as its deletion: users keep what they did because of it, and report it.
    Invalid(manx_model::Invalid),
    /// The object of this key was deleted.
    Deleted(String),
    /// Everything that existed when the list began has been named.
    InSync,
    /// The datastore cannot be reached: what is known may be out of date until the next `InSync`. After a gap in which
    /// nothing was missed that comes alone, otherwise after a list that begins with `Init`.
    Lost(String),
}

/// What every datastore asks of an object before it stores it.
///
/// # Errors
/// [`Error::Invalid`] that says what a name must look like.
pub fn check_storable(object: &Object) -> Result<(), Error> {
    manx_model::check_key(object.kind, &object.key())
        .map_err(|(field, reason)| Error::Invalid(object.invalid(field, reason)))
}

/// `stored` with other annotations, if it is the one that `object` says: [`Datastore::annotate`] where there is a lock.
///
/// # Errors
/// [`Error::Conflict`].
pub fn annotated(
    mut stored: Object,
    object: &Object,
    annotations: &BTreeMap<String, Option<String>>,
) -> Result<Object, Error> {
    let differs = |wanted: &Option<String>, found: &Option<String>| wanted.is_some() && wanted != found;
    let (wanted, found) = (&object.metadata, &mut stored.metadata);
    if differs(&wanted.uid, &found.uid) || differs(&wanted.resource_version, &found.resource_version) {
        return Err(Error::conflict(object));
    }
    for (key, value) in annotations {
        match value {
            Some(value) => drop(found.annotations.insert(key.clone(), value.clone())),
            None => drop(found.annotations.remove(key)),
        }
    }
    Ok(stored)
}

/// What is to be said about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Report {
    /// Whether something is wrong; otherwise it is news.
    pub warning: bool,
    /// Why, in one word of CamelCase, for programs: `InvalidSpec`.
    pub reason: String,
    /// The whole story, for people; at most 1024 bytes are kept.
    pub message: String,
}

/// How one thing about an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which thing, by the name that Kubernetes has for it: `NetworkUnavailable`.
    pub r#type: String,
    /// Whether it is so.
    pub status: bool,
    /// Why, in one word of CamelCase, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

impl Condition {
    /// Whether an object, as it was read whole, says just this.
    pub fn is_said_by(&self, object: &Object) -> bool {
        let conditions = object.rest.get("status").and_then(|status| status["conditions"].as_array());
        let status = if self.status { "True" } else { "False" };
        conditions.into_iter().flatten().any(|said| {
            said["type"] == *self.r#type && said["status"] == status && said["reason"] == *self.reason
        })
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Somebody else wrote first: read again and decide again.
    #[error("{kind} {name} was changed by another writer")]
    Conflict {
        /// The object's kind.
        kind: Kind,
        /// The object's key.
        name: String,
    },
    /// An object of this name is there already.
    #[error("{kind} {name} exists already")]
    Exists {
        /// The object's kind.
        kind: Kind,
        /// The object's key.
        name: String,
    },
    /// There is no such object (any more).
    #[error("{kind} {name} does not exist")]
    Gone {
        /// The object's kind.
        kind: Kind,
        /// The object's key.
        name: String,
    },
    /// The stored object cannot be read.
    #[error(transparent)]
    Invalid(#[from] manx_model::Invalid),
    /// The call may or may not have been carried out: try again, having read again.
    #[error("the datastore is not available: {0}")]
    Unavailable(String),
}

impl Error {
    /// [`Error::Conflict`] about this object.
    pub fn conflict(object: &Object) -> Self {
        Self::Conflict { kind: object.kind, name: object.key() }
    }

    /// [`Error::Exists`] about this object.
    pub fn exists(object: &Object) -> Self {
        Self::Exists { kind: object.kind, name: object.key() }
    }

    /// [`Error::Gone`] about this object.
    pub fn gone(object: &Object) -> Self {
        Self::Gone { kind: object.kind, name: object.key() }
    }
}
