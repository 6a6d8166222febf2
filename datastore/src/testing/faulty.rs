//! A datastore that fails as real ones do, by a seeded generator, and can be cut off.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use manx_model::{Kind, Object};

use super::{Random, yield_now};
use crate::{Condition, Datastore, Error, Event, Listed, Only, Report};

/// How often what goes wrong, each in percent of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Unavailable, and nothing was done.
    pub before: u8,
    /// Unavailable, and yet it was done.
    pub after: u8,
    /// An update or delete is answered with a conflict although there was none.
    pub conflict: u8,
    /// The call gives way to others, up to three times before and after it is carried out.
    pub delay: u8,
}

/// `D` with faults. Its clones are the same store, with the same faults and the same generator.
#[derive(Debug)]
pub struct Faulty<D> {
    store: Arc<D>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: Random,
    faults: Faults,
    down: bool,
    /// No call is carried out.
    stalled: bool,
    /// Counts the cuts, so that a watch that slept through one knows of it.
    cuts: u64,
    /// Who waits for a change of this: watches, and calls while they are stalled.
    waiting: Vec<Waker>,
    calls: u64,
    writes: Vec<(Kind, String)>,
}

impl<D> Clone for Faulty<D> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), state: Arc::clone(&self.state) }
    }
}

impl<D: Datastore> Faulty<D> {
    /// `store` behind these faults, drawn from `seed`.
    pub fn new(store: D, seed: u64, faults: Faults) -> Self {
        let state = State {
            random: Random::new(seed),
            faults,
            down: false,
            stalled: false,
            cuts: 0,
            waiting: Vec::new(),
            calls: 0,
            writes: Vec::new(),
        };
        Self { store: Arc::new(store), state: Arc::new(Mutex::new(state)) }
    }

    /// From now on, these faults.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Cuts the store off: every call is Unavailable, every watch says `Lost`.
    pub fn down(&self) {
        let mut state = self.state();
        state.down = true;
        state.cuts += 1;
        state.wake();
    }

    /// Joins the store again: every watch starts over with `Init`.
    pub fn up(&self) {
        let mut state = self.state();
        state.down = false;
        state.wake();
    }

    /// From now on every call waits, and is not answered.
    pub fn stall(&self) {
        self.state().stalled = true;
    }

    /// Carries out what has waited, and answers again.
    pub fn go_on(&self) {
        let mut state = self.state();
        state.stalled = false;
        state.wake();
    }

    /// How many calls were made, failed ones included.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The writes that were asked for since the last time this was called, failed ones included.
    pub fn take_writes(&self) -> Vec<(Kind, String)> {
        std::mem::take(&mut self.state().writes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self) -> Result<(), Error> {
        self.delay().await;
        poll_fn(|context| self.stalled(context)).await;
        let mut state = self.state();
        state.calls += 1;
        let before = state.faults.before;
        match state.down || state.random.chance(before) {
            true => Err(Error::Unavailable("cut off before the call was carried out".into())),
            false => Ok(()),
        }
    }

    async fn leave<T>(&self, result: T) -> Result<T, Error> {
        self.delay().await;
        let mut state = self.state();
        let after = state.faults.after;
        match state.random.chance(after) {
            true => Err(Error::Unavailable("cut off after the call was carried out".into())),
            false => Ok(result),
        }
    }

    async fn delay(&self) {
        let times = {
            let mut state = self.state();
            let delay = state.faults.delay;
            match state.random.chance(delay) {
                true => 1 + state.random.below(3),
                false => 0,
            }
        };
        for _ in 0..times {
            yield_now().await;
        }
    }

    fn stalled(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.stalled {
            state.wait(context);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn note_write(&self, object: &Object) {
        self.state().writes.push((object.kind, object.key()));
    }

    fn contradict(&self, object: &Object) -> Result<(), Error> {
        let mut state = self.state();
        let conflict = state.faults.conflict;
        match state.random.chance(conflict) {
            true => Err(Error::conflict(object)),
            false => Ok(()),
        }
    }
}

impl State {
    fn wait(&mut self, context: &Context<'_>) {
        self.waiting.retain(|waker| !waker.will_wake(context.waker()));
        self.waiting.push(context.waker().clone());
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

#[async_trait]
impl<D: Datastore + 'static> Datastore for Faulty<D> {
    async fn get(&self, kind: Kind, key: &str) -> Result<Option<Object>, Error> {
        self.enter().await?;
        let found = self.store.get(kind, key).await?;
        self.leave(found).await
    }

    async fn list(&self, kind: Kind, only: &Only) -> Result<Vec<Listed>, Error> {
        self.enter().await?;
        let found = self.store.list(kind, only).await?;
        self.leave(found).await
    }

    async fn create(&self, object: Object) -> Result<Object, Error> {
        self.note_write(&object);
        self.enter().await?;
        let stored = self.store.create(object).await?;
        self.leave(stored).await
    }

    async fn update(&self, object: Object) -> Result<Object, Error> {
        self.note_write(&object);
        self.enter().await?;
        self.contradict(&object)?;
        let stored = self.store.update(object).await?;
        self.leave(stored).await
    }

    async fn delete(&self, object: &Object) -> Result<(), Error> {
        self.note_write(object);
        self.enter().await?;
        self.contradict(object)?;
        self.store.delete(object).await?;
        self.leave(()).await
    }

    async fn annotate(
        &self,
        object: &Object,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<Object, Error> {
        self.note_write(object);
        self.enter().await?;
        self.contradict(object)?;
        let stored = self.store.annotate(object, annotations).await?;
        self.leave(stored).await
    }

    async fn report(&self, object: &Object, report: &Report) -> Result<(), Error> {
        self.enter().await?;
        self.store.report(object, report).await?;
        self.leave(()).await
    }

    async fn set_condition(&self, object: &Object, condition: &Condition) -> Result<(), Error> {
        self.note_write(object);
        self.enter().await?;
        self.store.set_condition(object, condition).await?;
        self.leave(()).await
    }

    fn watch(&self, kind: Kind, only: Only) -> BoxStream<'static, Event> {
        let (inner, seen) = (None, self.state().cuts);
        FaultyWatch { store: self.clone(), kind, only, inner, seen }.boxed()
    }
}

struct FaultyWatch<D> {
    store: Faulty<D>,
    kind: Kind,
    only: Only,
    inner: Option<BoxStream<'static, Event>>,
    /// The cut that this watch has told.
    seen: u64,
}

impl<D: Datastore> Stream for FaultyWatch<D> {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let (down, cuts) = {
            let mut state = self.store.state();
            state.wait(context);
            (state.down, state.cuts)
        };
        if self.seen != cuts {
            self.seen = cuts;
            self.inner = None;
            return Poll::Ready(Some(Event::Lost("cut off".into())));
        }
        if down {
            return Poll::Pending;
        }
        let this = &mut *self;
        this.inner
            .get_or_insert_with(|| this.store.store.watch(this.kind, this.only.clone()))
            .poll_next_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;
    use crate::Memory;

    fn told(watch: &mut BoxStream<'static, Event>) -> Vec<Event> {
        std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect()
    }

    #[test]
    fn a_store_without_faults_keeps_the_contract_and_one_with_delays_too() {
        block_on(super::super::contract(&Faulty::new(Memory::new(), 1, Faults::default())));
        let slow = Faults { delay: 50, ..Faults::default() };
        block_on(super::super::contract(&Faulty::new(Memory::new(), 2, slow)));
    }

    #[test]
    fn a_watch_says_lost_and_starts_over_after_a_cut() {
        let store = Faulty::new(Memory::new(), 1, Faults::default());
        let mut watch = store.watch(Kind::IPPool, Only::All);
        assert_eq!(told(&mut watch), [Event::Init, Event::InSync]);
        store.down();
        assert_eq!(told(&mut watch), [Event::Lost("cut off".into())]);
        assert!(block_on(store.list(Kind::IPPool, &Only::All)).is_err());
        store.up();
        assert_eq!(told(&mut watch), [Event::Init, Event::InSync]);
    }

    #[test]
    fn a_failed_call_may_have_been_carried_out() {
        let store = Faulty::new(Memory::new(), 1, Faults { after: 100, ..Faults::default() });
        let pool = Object::new(Kind::IPPool, "p", &());
        assert!(matches!(block_on(store.create(pool.clone())), Err(Error::Unavailable(_))));
        store.set_faults(Faults::default());
        assert_eq!(block_on(store.create(pool.clone())), Err(Error::exists(&pool)));
    }
}
