//! The queue of a store's writes: one thread of tokio's blocking pool works through it, for as long as there is something
//! in it. What is added meanwhile wakes nobody.
//!
//! What waits is taken together: each is begun before the first is ended, so that what they flush reaches the disk at once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::spawn_blocking;

/// Begins a write, and says how it ends.
type Job = Box<dyn FnOnce() -> End + Send>;
type End = Box<dyn FnOnce()>;

/// The queue. A clone is the same one.
#[derive(Clone)]
pub(crate) struct Writes {
    queue: Arc<Mutex<Queue>>,
    at_rest: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// A thread is at it.
    busy: bool,
}

impl Writes {
    /// `at_rest` is done after writes, when all that waited has been answered and nothing waits.
    pub(crate) fn new(at_rest: impl Fn() + Send + Sync + 'static) -> Self {
        Self { queue: Arc::default(), at_rest: Arc::new(at_rest) }
    }

    /// Does `job` when it is its turn, whoever waits for it, and what it returns once those that waited with it are begun,
    /// too. Must be called within a tokio runtime.
    pub(crate) fn add(&self, job: impl FnOnce() -> End + Send + 'static) {
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

    /// Whether everything is done, what is done at rest, too.
    #[cfg(test)]
    pub(crate) fn are_at_rest(&self) -> bool {
        !self.queue().busy
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
        while let Some(jobs) = self.next() {
            let begun: Vec<End> = jobs.into_iter().map(|begin| begin()).collect();
            begun.into_iter().for_each(|end| end());
            if self.writes.queue().waiting.is_empty() {
                (self.writes.at_rest)();
            }
        }
        self.through = true;
    }

    fn next(&self) -> Option<VecDeque<Job>> {
        let mut queue = self.writes.queue();
        let jobs = std::mem::take(&mut queue.waiting);
        queue.busy = !jobs.is_empty();
        queue.busy.then_some(jobs)
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_waited_together_is_begun_before_the_first_of_it_is_ended_and_then_nobody_waits() {
        let (said, heard) = mpsc::channel();
        let resting = said.clone();
        let writes = Writes::new(move || drop(resting.send("at rest".to_owned())));
        let (go, gate) = mpsc::channel::<()>();
        writes.add(move || {
            // The others come meanwhile; the test that ends drops the gate.
            let _ = gate.recv();
            Box::new(|| ())
        });
        for name in ["a", "b"] {
            let said = said.clone();
            writes.add(move || {
                let _ = said.send(format!("{name} begun"));
                Box::new(move || drop(said.send(format!("{name} ended"))))
            });
        }
        drop((go, said, writes));
        let order: Vec<String> = heard.into_iter().collect();
        assert_eq!(order, ["a begun", "b begun", "a ended", "b ended", "at rest"]);
    }
}
