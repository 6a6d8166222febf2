//! The queue between a datastore and one of its watches: a slow reader makes it merge, not grow.
//!
//! Of the changes to one object that wait after [`Event::InSync`] only the latest is kept, so that what waits is never
//! more than a list and one change for each object. Within a list nothing is merged: a reader that comes late
//! must still be able to take what `Init … InSync` did not name as deleted.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

use crate::Event;

/// A new queue. The stream ends when its sender is dropped and everything has been read.
pub fn queue() -> (EventSender, EventStream) {
    let shared = Arc::new(Mutex::new(Queue::default()));
    (EventSender(Arc::clone(&shared)), EventStream(shared))
}

/// The datastore's end.
#[derive(Debug)]
pub struct EventSender(Arc<Mutex<Queue>>);

/// The reader's end.
#[derive(Debug)]
pub struct EventStream(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<u64, Event>,
    next: u64,
    /// Where the change of an object stands that a newer one may replace.
    changes: HashMap<String, u64>,
    in_sync: bool,
    waker: Option<Waker>,
    closed: bool,
}

impl EventSender {
    /// Tells the reader; `false` when it is gone.
    pub fn send(&self, event: Event) -> bool {
        if self.is_closed() {
            return false;
        }
        let waker = {
            let mut queue = lock(&self.0);
            queue.push(event);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        queue.closed = true;
        if let Some(waker) = queue.waker.take() {
            drop(queue);
            waker.wake();
        }
    }
}

impl Queue {
    fn push(&mut self, event: Event) {
        match &event {
            Event::Init => {
                // A whole new list follows: nothing that waits before it says more.
                self.waiting.clear();
                self.changes.clear();
                self.in_sync = false;
            }
            Event::InSync => self.in_sync = true,
            Event::Lost(_) => {}
            Event::Object(object) => self.supersede(object.key()),
            Event::Invalid(invalid) => self.supersede(invalid.name.clone()),
            Event::Deleted(name) => self.supersede(name.clone()),
        }
        self.waiting.insert(self.next, event);
        self.next += 1;
    }

    fn supersede(&mut self, name: String) {
        if !self.in_sync {
            return;
        }
        if let Some(older) = self.changes.insert(name, self.next) {
            self.waiting.remove(&older);
        }
    }
}

impl EventStream {
    /// The stream, which keeps `store` alive for as long as somebody reads: a watch ends never.
    pub fn keeping<S: Send + 'static>(self, store: S) -> BoxStream<'static, Event> {
        let kept = move |event| {
            let _ = &store;
            event
        };
        self.map(kept).boxed()
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut queue = lock(&self.0);
        match queue.waiting.pop_first() {
            Some((_, event)) => {
                if queue.waiting.is_empty() {
                    queue.changes.clear();
                }
                Poll::Ready(Some(event))
            }
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A panic elsewhere leaves the queue whole: every step under the lock is complete in itself.
fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use manx_model::{Kind, Object};

    use super::*;

    fn object(name: &str, spec: u32) -> Event {
        Event::Object(Object::new(Kind::IPPool, name, &spec))
    }

    fn waiting(stream: &mut EventStream) -> Vec<Event> {
        std::iter::from_fn(|| stream.next().now_or_never().flatten()).collect()
    }

    #[test]
    fn of_waiting_changes_to_one_object_only_the_latest_is_told() {
        let (sender, mut stream) = queue();
        for event in
            [Event::Init, object("a", 1), Event::InSync, object("a", 2), object("b", 1), object("a", 3)]
        {
            assert!(sender.send(event));
        }
        assert_eq!(
            waiting(&mut stream),
            [Event::Init, object("a", 1), Event::InSync, object("b", 1), object("a", 3)]
        );
        sender.send(object("a", 4));
        sender.send(Event::Deleted("a".into()));
        assert_eq!(waiting(&mut stream), [Event::Deleted("a".into())]);
    }

    #[test]
    fn a_new_list_makes_what_waits_before_it_pointless() {
        let (sender, mut stream) = queue();
        for event in [Event::Init, object("a", 1), Event::InSync, Event::Init, object("b", 1), Event::InSync]
        {
            sender.send(event);
        }
        assert_eq!(waiting(&mut stream), [Event::Init, object("b", 1), Event::InSync]);
    }

    #[test]
    fn each_end_notices_that_the_other_is_gone() {
        let (sender, mut stream) = queue();
        sender.send(Event::Init);
        drop(sender);
        assert_eq!(stream.next().now_or_never(), Some(Some(Event::Init)));
        assert_eq!(stream.next().now_or_never(), Some(None));
        let (sender, stream) = queue();
        drop(stream);
        assert!(!sender.send(Event::Init));
    }
}
