//! The queue of a store's writes: one thread of tokio's blocking pool works through it, for as long as there is something
//! in it. What is added meanwhile wakes nobody.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::spawn_blocking;

type Job = Box<dyn FnOnce() + Send>;

/// The queue. A clone is the same one.
#[derive(Clone, Default)]
pub(crate) struct Writes(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// A thread is at it.
    busy: bool,
}

impl Writes {
    /// Does `job` when it is its turn, whoever waits for it. Must be called within a tokio runtime.
    pub(crate) fn add(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue();
        queue.waiting.push_back(Box::new(job));
        let wanted = !std::mem::replace(&mut queue.busy, true);
        // A runtime that is ending drops the thread at once, which locks the queue.
        drop(queue);
        if wanted {
            let thread = Thread { writes: self.clone(), through: false };
            drop(spawn_blocking(move || thread.work()));
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.debug_struct("Writes").field("waiting", &self.queue().waiting.len()).finish()
    }
}

/// The thread that is at it.
struct Thread {
    writes: Writes,
    /// It has seen the end of the queue, which is no longer its own.
    through: bool,
}

impl Thread {
    fn work(mut self) {
        while let Some(job) = self.next() {
            job();
        }
        self.through = true;
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.writes.queue();
        let job = queue.waiting.pop_front();
        queue.busy = job.is_some();
        job
    }
}

impl Drop for Thread {
    /// The runtime that ends, or a job that panics, takes with it what waits: whoever asked is told by the end of his job.
    fn drop(&mut self) {
        if self.through {
            return;
        }
        let left = {
            let mut queue = self.writes.queue();
            queue.busy = false;
            std::mem::take(&mut queue.waiting)
        };
        drop(left);
    }
}
