//! Writes: each is one request, and compares before it swaps.
//!
//! Of what IPAM writes, and of a Pod, the API server is asked to answer with the metadata alone: that of a full block is
//! 15 KB shorter, which both sides would make and read for nothing.

use std::collections::BTreeMap;

use manx_datastore::{Error, annotated, check_storable};
use manx_model::{Kind, Object};
use serde_json::json;

use crate::connection::Connection;
use crate::decode::{self, encode, is_ipams, preconditions};
use crate::refusal::Refusal;
use crate::request::{Call, collection, path};

/// [`manx_datastore::Datastore::create`].
pub(crate) async fn create(connection: &Connection, object: Object) -> Result<Object, Error> {
    check_storable(&object)?;
    let path = collection(object.kind, object.metadata.namespace.as_deref());
    let call = Call::create(path, encode(object.clone(), true));
    write(connection, object, call).await
}

/// [`manx_datastore::Datastore::update`]. The API server compares uid and version; without a version it would not.
pub(crate) async fn update(connection: &Connection, object: Object) -> Result<Object, Error> {
    let path = versioned_path(&object)?;
    let call = Call::update(path, encode(object.clone(), false));
    write(connection, object, call).await
}

/// [`manx_datastore::Datastore::delete`].
pub(crate) async fn delete(connection: &Connection, object: &Object) -> Result<(), Error> {
    let path = versioned_path(object)?;
    let answer = connection.call(Some(object.kind), &Call::delete(path, preconditions(object))).await?;
    match answer.status.is_success() {
        true => Ok(()),
        false => Err(Refusal::read(object.kind, &answer).about(object)),
    }
}

/// [`manx_datastore::Datastore::annotate`]: a merge patch, which touches nothing but what it names. That of a Node or Pod
/// goes through its status, as Calico's does, so that an agent needs no right to change their specs.
///
/// What Calico keeps of an object's annotations in one annotation hides one that is set beside it: then the object is
/// updated, too.
pub(crate) async fn annotate(
    connection: &Connection,
    object: &Object,
    annotations: &BTreeMap<String, Option<String>>,
) -> Result<Object, Error> {
    let mut path = path(object.kind, &object.key()).ok_or_else(|| Error::gone(object))?;
    if matches!(object.kind, Kind::Node | Kind::Pod) {
        path.push_str("/status");
    }
    let mut metadata = json!({ "annotations": annotations });
    let compared = [("uid", &object.metadata.uid), ("resourceVersion", &object.metadata.resource_version)];
    for (field, value) in compared {
        if let Some(value) = value {
            metadata[field] = value.as_str().into();
        }
    }
    let patch = json!({ "metadata": metadata }).to_string().into_bytes();
    let changed = match write(connection, object.clone(), Call::patch(path, patch)).await {
        // To a patch the uid is a field that cannot change, and not a condition.
        Err(Error::Invalid(invalid)) if invalid.field == "metadata.uid" => Err(Error::conflict(object)),
        other => other,
    }?;
    let shows =
        |(key, value): (&String, &Option<String>)| changed.metadata.annotations.get(key) == value.as_ref();
    match annotations.iter().all(shows) {
        true => Ok(changed),
        false => {
            let wanted = annotated(changed.clone(), &changed, annotations)?;
            update(connection, wanted).await
        }
    }
}

/// Sends `object` in a `call`; what it is from now on.
async fn write(connection: &Connection, object: Object, call: Call) -> Result<Object, Error> {
    let kind = object.kind;
    let brief = is_ipams(kind) || kind == Kind::Pod;
    let call = if brief { call.metadata_only() } else { call };
    let answer = connection.call(Some(kind), &call).await?;
    if !answer.status.is_success() {
        return Err(Refusal::read(kind, &answer).about(&object));
    }
    let stored = decode::stored(kind, &object.key(), &answer.body)?;
    // A server that cannot be brief sends all of it.
    match brief && stored.spec.is_null() {
        true => Ok(Object { metadata: stored.metadata, ..object }),
        false => Ok(stored),
    }
}

fn versioned_path(object: &Object) -> Result<String, Error> {
    if object.metadata.resource_version.is_none() {
        return Err(Error::conflict(object));
    }
    path(object.kind, &object.key()).ok_or_else(|| Error::gone(object))
}
