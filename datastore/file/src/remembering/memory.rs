//! What the datastore answered last, and which of it is not written yet.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use manx_datastore::{Error, Only};
use manx_model::{Kind, Object};
use tokio::sync::Notify;

use super::files::Files;
use crate::directory::unavailable;

/// Changes that come by watches are gathered this long before they are written.
pub(super) const GATHER: Duration = Duration::from_secs(2);

/// What was asked: a kind, and which of its objects.
pub(super) type Question = (Kind, Only);
/// What the answer was: objects by key.
pub(super) type Answer = BTreeMap<String, Object>;

pub(super) struct Memory {
    /// The datastore has answered something since the start.
    answered: AtomicBool,
    answers: Mutex<Answers>,
    changed: Notify,
}

struct Answers {
    files: Files,
    known: HashMap<Question, Answer>,
    /// Not written yet.
    unwritten: Vec<Question>,
}

impl Memory {
    /// What `directory` remembers; it is created.
    pub(super) fn open(directory: PathBuf) -> Result<Self, Error> {
        let opened = Files::open(directory.clone());
        let (files, known) = opened.map_err(|error| unavailable(&directory, error))?;
        Ok(Self {
            answered: AtomicBool::new(false),
            answers: Mutex::new(Answers { files, known, unwritten: Vec::new() }),
            changed: Notify::new(),
        })
    }

    /// The answer of long ago, if the datastore has never answered since the start and this was asked before.
    pub(super) fn recall(&self, question: &Question) -> Option<Answer> {
        match self.answered.load(Ordering::Relaxed) {
            true => None,
            false => self.answers().known.get(question).cloned(),
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer of the datastore.
    pub(super) fn learn(&self, question: Question, answer: Answer) {
        self.answered.store(true, Ordering::Relaxed);
        let alone = matches!(question.1, Only::Key(_));
        let nothing_new = self.answers().known.get(&question).is_some_and(|known| same(known, &answer));
        self.change(&question, |known| {
            *known = answer;
            !nothing_new
        });
        // What somebody asked for by name he decides by: it is not to be lost with the process.
        if alone {
            self.write(&question);
        }
    }

    /// A write of ours: it is in our answers before it is acted on.
    pub(super) fn wrote(&self, object: &Object) {
        if object.kind == Kind::IPAMBlock {
            // The next agent asks for each block of its node by name, and nobody need have done so yet.
            let alone = (object.kind, Only::Key(object.key()));
            self.answers().known.entry(alone).or_default();
        }
        for question in self.questions_about(object) {
            match question.1.selects(object) {
                true => self.put(&question, object),
                false => self.remove(&question, &object.key()),
            }
            self.write(&question);
        }
    }

    pub(super) fn deleted(&self, object: &Object) {
        for question in self.questions_about(object) {
            self.remove(&question, &object.key());
            self.write(&question);
        }
    }

    fn questions_about(&self, object: &Object) -> Vec<Question> {
        let about = |question: &&Question| {
            let (kind, only) = question;
            *kind == object.kind && !matches!(only, Only::Key(key) if *key != object.key())
        };
        self.answers().known.keys().filter(about).cloned().collect()
    }

    pub(super) fn put(&self, question: &Question, object: &Object) {
        self.change(question, |answer| {
            let before = answer.insert(object.key(), object.clone());
            !before.is_some_and(|before| is_heartbeat(&before, object))
        });
    }

    pub(super) fn remove(&self, question: &Question, key: &str) {
        self.change(question, |answer| answer.remove(key).is_some());
    }

    /// Changes an answer; `change` says whether that is worth a write.
    fn change(&self, question: &Question, change: impl FnOnce(&mut Answer) -> bool) {
        if !is_kept(question) {
            return;
        }
        let mut answers = self.answers();
        if change(answers.known.entry(question.clone()).or_default()) && !answers.unwritten.contains(question)
        {
            answers.unwritten.push(question.clone());
            drop(answers);
            self.changed.notify_one();
        }
    }

    /// Writes one answer, if it has changed. A disk that refuses it costs the memory, not the service.
    fn write(&self, question: &Question) {
        let answers = &mut *self.answers();
        if !answers.unwritten.contains(question) {
            return;
        }
        answers.unwritten.retain(|unwritten| unwritten != question);
        let alone = matches!(question.1, Only::Key(_));
        let answer = answers.known.get(question).filter(|answer| !(alone && answer.is_empty()));
        // Under the lock: two writes of one file must not overtake each other.
        let _ = match answer {
            Some(answer) => answers.files.write(question, answer),
            None => {
                answers.known.remove(question);
                answers.files.remove(question)
            }
        };
    }

    /// Writes every answer about single objects of a kind, and waits until the disk has them.
    pub(super) fn settle(&self, kind: Kind) -> Result<(), Error> {
        let answers = &mut *self.answers();
        let mut about = answers.known.iter().filter(|((known, only), answer)| {
            *known == kind && matches!(only, Only::Key(_)) && !answer.is_empty()
        });
        let settled = about
            .try_for_each(|(question, answer)| answers.files.write_durably(question, answer))
            .and_then(|()| answers.files.settle());
        settled.map_err(|error| unavailable(answers.files.directory(), error))
    }

    fn write_all(&self) {
        let unwritten = self.answers().unwritten.clone();
        unwritten.iter().for_each(|question| self.write(question));
    }
}

/// Nothing secret, and no policy, at which only the node that leads looks; and nobody who lists all that IPAM has does so to
/// go by it later, while each pod of the cluster would change it.
fn is_kept((kind, only): &Question) -> bool {
    let all_of_ipam = matches!(kind, Kind::IPAMBlock | Kind::IPAMHandle) && *only == Only::All;
    *kind != Kind::Secret && !Kind::POLICIES.contains(kind) && !all_of_ipam
}

fn same(before: &Answer, after: &Answer) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|((a, before), (b, after))| a == b && is_heartbeat(before, after))
}

/// Nothing has changed but perhaps the version, which of others' objects (heartbeats of Nodes) is not worth a write.
fn is_heartbeat(before: &Object, after: &Object) -> bool {
    if before.kind.is_calicos() || after.kind.is_calicos() {
        return before == after;
    }
    let (a, b) = (&before.metadata, &after.metadata);
    (&a.labels, &a.annotations, &a.uid, &a.rest) == (&b.labels, &b.annotations, &b.uid, &b.rest)
        && (&before.spec, &before.rest) == (&after.spec, &after.rest)
}

/// Objects by key.
pub(super) fn by_key(objects: impl IntoIterator<Item = Object>) -> Answer {
    objects.into_iter().map(|object| (object.key(), object)).collect()
}

/// Writes what watches bring, gathered, for as long as the store is used.
pub(super) async fn keep_written(memory: Weak<Memory>) {
    loop {
        let Some(memory) = memory.upgrade() else { return };
        // The store may be dropped while nothing changes.
        let _ = tokio::time::timeout(GATHER, memory.changed.notified()).await;
        tokio::time::sleep(GATHER).await;
        if tokio::task::spawn_blocking(move || memory.write_all()).await.is_err() {
            return;
        }
    }
}
