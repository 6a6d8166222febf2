//! The reference datastore: everything in memory, for the simulation, the tests, and an agent on its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use manx_model::{Kind, Object};

use crate::{
    Condition, Datastore, Error, Event, EventSender, Listed, Only, Report, annotated, check_storable, queue,
};

/// A datastore in memory. Its clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    /// Of the last write; each write has its own.
    version: u64,
    objects: BTreeMap<(Kind, String), Object>,
    watchers: Vec<Watcher>,
    reports: Vec<(Object, Report)>,
}

#[derive(Debug)]
struct Watcher {
    kind: Kind,
    only: Only,
    sender: EventSender,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was reported about which object, in the order of the reports.
    pub fn reports(&self) -> Vec<(Object, Report)> {
        self.contents().reports.clone()
    }

    /// A panic elsewhere leaves the contents whole: every step under the lock is complete in itself.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .range((kind, String::new())..)
            .map_while(move |(_, object)| (object.kind == kind).then_some(object))
    }

    /// The stored object, if it is the version that `object` is.
    fn compare(&self, object: &Object) -> Result<&Object, Error> {
        let stored = self.objects.get(&key(object)).ok_or_else(|| Error::gone(object))?;
        match stored.metadata.resource_version == object.metadata.resource_version {
            true => Ok(stored),
            false => Err(Error::conflict(object)),
        }
    }

    fn put(&mut self, mut object: Object, uid: Option<String>) -> Object {
        self.version += 1;
        object.metadata.resource_version = Some(self.version.to_string());
        object.metadata.uid = uid.or_else(|| Some(format!("00000000-0000-4000-8000-{:012x}", self.version)));
        let before = self.objects.insert(key(&object), object.clone());
        self.tell(before.as_ref(), Some(&object));
        object
    }

    fn tell(&mut self, before: Option<&Object>, after: Option<&Object>) {
        self.watchers.retain(|watcher| {
            let seen = |object: &&Object| object.kind == watcher.kind && watcher.only.selects(object);
            match (before.filter(seen), after.filter(seen)) {
                (_, Some(object)) => watcher.sender.send(Event::Object(object.clone())),
                (Some(object), None) => watcher.sender.send(Event::Deleted(object.key())),
                (None, None) => !watcher.sender.is_closed(),
            }
        });
    }
}

fn key(object: &Object) -> (Kind, String) {
    (object.kind, object.key())
}

#[async_trait]
impl Datastore for Memory {
    async fn get(&self, kind: Kind, key: &str) -> Result<Option<Object>, Error> {
        Ok(self.contents().objects.get(&(kind, key.to_owned())).cloned())
    }

    async fn list(&self, kind: Kind, only: &Only) -> Result<Vec<Listed>, Error> {
        Ok(self.contents().of_kind(kind).filter(|object| only.selects(object)).cloned().map(Ok).collect())
    }

    async fn create(&self, object: Object) -> Result<Object, Error> {
        check_storable(&object)?;
        let mut contents = self.contents();
        match contents.objects.contains_key(&key(&object)) {
            true => Err(Error::exists(&object)),
            false => Ok(contents.put(object, None)),
        }
    }

    async fn update(&self, object: Object) -> Result<Object, Error> {
        let mut contents = self.contents();
        let uid = contents.compare(&object)?.metadata.uid.clone();
        Ok(contents.put(object, uid))
    }

    async fn delete(&self, object: &Object) -> Result<(), Error> {
        let mut contents = self.contents();
        contents.compare(object)?;
        contents.version += 1;
        let before = contents.objects.remove(&key(object));
        contents.tell(before.as_ref(), None);
        Ok(())
    }

    async fn annotate(
        &self,
        object: &Object,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<Object, Error> {
        let mut contents = self.contents();
        let stored = contents.objects.get(&key(object)).ok_or_else(|| Error::gone(object))?;
        let uid = stored.metadata.uid.clone();
        let annotated = annotated(stored.clone(), object, annotations)?;
        Ok(contents.put(annotated, uid))
    }

    async fn report(&self, object: &Object, report: &Report) -> Result<(), Error> {
        self.contents().reports.push((object.clone(), report.clone()));
        Ok(())
    }

    async fn set_condition(&self, object: &Object, condition: &Condition) -> Result<(), Error> {
        let mut contents = self.contents();
        let mut stored = contents.objects.get(&key(object)).ok_or_else(|| Error::gone(object))?.clone();
        let status = stored.rest.entry("status").or_insert_with(Default::default);
        let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|other| other["type"] != *condition.r#type);
        let Condition { r#type, status: is_so, reason, message } = condition;
        let said = [
            ("type", r#type.as_str()),
            ("status", if *is_so { "True" } else { "False" }),
            ("reason", reason.as_str()),
            ("message", message.as_str()),
        ];
        conditions.push(said.into_iter().collect());
        status["conditions"] = conditions.into();
        let uid = stored.metadata.uid.clone();
        contents.put(stored, uid);
        Ok(())
    }

    fn watch(&self, kind: Kind, only: Only) -> BoxStream<'static, Event> {
        let mut contents = self.contents();
        let (sender, stream) = queue();
        sender.send(Event::Init);
        for object in contents.of_kind(kind).filter(|object| only.selects(object)) {
            sender.send(Event::Object(object.clone()));
        }
        sender.send(Event::InSync);
        contents.watchers.push(Watcher { kind, only, sender });
        stream.keeping(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_in_memory_keeps_the_contract() {
        futures::executor::block_on(crate::testing::contract(&Memory::new()));
    }
}
