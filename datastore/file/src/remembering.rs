//! A datastore whose last answers are kept in files: what an agent goes by that starts while its datastore is away.
//!
//! A living agent goes on with what it knows while the API server is away. So must one that restarts meanwhile, or its
//! peers would forget the node's routes. Every answer about the cluster is kept as a file, written when it changes; until the
//! datastore behind has answered for the first time, its silence is answered from these files. From its first answer on
//! nothing is: a living agent remembers better, and a write is decided only on what the datastore says.
//!
//! Nothing secret is kept, and nothing is written back from here: writes fail for as long as the datastore is away.

mod files;
mod memory;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use manx_datastore::{Condition, Datastore, Error, Event, Listed, Only, Report};
use manx_model::{Kind, Object};

use memory::{Answer, Memory, Question, by_key, keep_written};

/// `S`, with its last answers on disk.
#[derive(Clone)]
pub struct Remembering {
    store: Arc<dyn Datastore>,
    memory: Arc<Memory>,
}

impl Remembering {
    /// `store`, remembered in `directory`, which is created. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the directory cannot be made or read. A damaged file in it is left out.
    pub fn open(store: Arc<dyn Datastore>, directory: impl Into<PathBuf>) -> Result<Self, Error> {
        let memory = Arc::new(Memory::open(directory.into())?);
        tokio::spawn(keep_written(Arc::downgrade(&memory)));
        Ok(Self { store, memory })
    }
}

#[async_trait]
impl Datastore for Remembering {
    async fn get(&self, kind: Kind, key: &str) -> Result<Option<Object>, Error> {
        let question = (kind, Only::Key(key.to_owned()));
        match self.store.get(kind, key).await {
            Err(Error::Unavailable(reason)) => match self.memory.recall(&question) {
                Some(answer) => Ok(answer.into_values().next()),
                None => Err(Error::Unavailable(reason)),
            },
            Err(error) => Err(error),
            Ok(found) => {
                self.memory.learn(question, by_key(found.iter().cloned()));
                Ok(found)
            }
        }
    }

    async fn list(&self, kind: Kind, only: &Only) -> Result<Vec<Listed>, Error> {
        let question = (kind, only.clone());
        match self.store.list(kind, only).await {
            Err(Error::Unavailable(reason)) => match self.memory.recall(&question) {
                Some(answer) => Ok(answer.into_values().map(Ok).collect()),
                None => Err(Error::Unavailable(reason)),
            },
            Err(error) => Err(error),
            Ok(listed) => {
                self.memory.learn(question, by_key(listed.iter().flatten().cloned()));
                Ok(listed)
            }
        }
    }

    async fn create(&self, object: Object) -> Result<Object, Error> {
        let stored = self.store.create(object).await?;
        self.memory.wrote(&stored);
        Ok(stored)
    }

    async fn update(&self, object: Object) -> Result<Object, Error> {
        let stored = self.store.update(object).await?;
        self.memory.wrote(&stored);
        Ok(stored)
    }

    async fn delete(&self, object: &Object) -> Result<(), Error> {
        self.store.delete(object).await?;
        self.memory.deleted(object);
        Ok(())
    }

    async fn annotate(
        &self,
        object: &Object,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<Object, Error> {
        self.store.annotate(object, annotations).await
    }

    async fn report(&self, object: &Object, report: &Report) -> Result<(), Error> {
        self.store.report(object, report).await
    }

    async fn set_condition(&self, object: &Object, condition: &Condition) -> Result<(), Error> {
        self.store.set_condition(object, condition).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.store.ping().await
    }

    async fn settle(&self) -> Result<(), Error> {
        let memory = Arc::clone(&self.memory);
        let settled = tokio::task::spawn_blocking(move || memory.settle(Kind::IPAMBlock)).await;
        settled.unwrap_or_else(|error| Err(Error::Unavailable(error.to_string())))
    }

    fn watch(&self, kind: Kind, only: Only) -> BoxStream<'static, Event> {
        let inner = self.store.watch(kind, only.clone());
        let question = (kind, only);
        Watch { store: self.clone(), question, inner, listing: None, waiting: Vec::new() }.boxed()
    }
}

/// A watch that learns what it passes on, and begins with what is remembered where the datastore is away.
struct Watch {
    store: Remembering,
    question: Question,
    inner: BoxStream<'static, Event>,
    /// The list that is under way.
    listing: Option<Answer>,
    /// To be told next, the last one first.
    waiting: Vec<Event>,
}

impl Stream for Watch {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(event) = self.waiting.pop() {
            return Poll::Ready(Some(event));
        }
        let Poll::Ready(event) = self.inner.poll_next_unpin(context) else { return Poll::Pending };
        let Some(event) = event else { return Poll::Ready(None) };
        self.learn(&event);
        match &event {
            Event::Lost(_) => Poll::Ready(Some(self.begin_with_what_is_remembered(event))),
            _ => Poll::Ready(Some(event)),
        }
    }
}

impl Watch {
    fn learn(&mut self, event: &Event) {
        let memory = &self.store.memory;
        match event {
            Event::Init => self.listing = Some(Answer::new()),
            Event::Object(object) => match &mut self.listing {
                Some(listing) => drop(listing.insert(object.key(), object.clone())),
                None => memory.put(&self.question, object),
            },
            Event::Deleted(key) => match &mut self.listing {
                Some(listing) => drop(listing.remove(key)),
                None => memory.remove(&self.question, key),
            },
            Event::InSync => {
                if let Some(listing) = self.listing.take() {
                    memory.learn(self.question.clone(), listing);
                }
            }
            // What it said before counts until it can be read again.
            Event::Invalid(_) | Event::Lost(_) => {}
        }
    }

    fn begin_with_what_is_remembered(&mut self, lost: Event) -> Event {
        // A list that was cut off is begun again.
        self.listing = None;
        let Some(answer) = self.store.memory.recall(&self.question) else { return lost };
        self.waiting = vec![lost, Event::InSync];
        self.waiting.extend(answer.into_values().map(Event::Object));
        Event::Init
    }
}

#[cfg(test)]
mod tests;
