//! Watches: a list, and from its version on every change, for as long as somebody reads.
//!
//! ```text
//!            ┌───────── 410 Gone, or hopeless ──────────┐
//!            v                                          │
//!   ──> list (Init … InSync) ──> follow from a version ─┴─ ends, breaks, falls silent ──┐
//!                                    ^                                                  │
//!                                    └──────────── from the last version, after a wait ─┘
//! ```
//!
//! A server that can sends the list as the beginning of the watch (one request instead of two); any other is asked for
//! pages. Bookmarks keep the version fresh while nothing happens. When the server cannot be reached, the reader is told
//! [`Event::Lost`] once; when it can again, he is told [`Event::InSync`] where nothing was missed, and a new list where
//! something may have been. Why not `kube-runtime`'s watcher: it stops at an object that it cannot read, and comes back
//! to it for ever; it decides by itself what is an error; and its lists and watches are requests of their own.

mod lines;
mod message;
mod teller;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use manx_datastore::{EventSender, Only};
use manx_model::Kind;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::call::{Answer, retry_after};
use crate::connection::Connection;
use crate::decode::Whole;
use crate::list::pages;
use crate::refusal::Refusal;
use crate::request::Call;
use crate::selection::Selection;
use lines::Lines;
use message::Message;
use teller::Teller;

/// A server that answers and yet cannot go on from a version so often in a row is asked for a new list. There are such
/// versions: where etcd was compacted at a deletion, the API server says 500 to whoever comes from before it, for ever.
const HOPELESS: u32 = 3;

/// How patient watches are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The bounds of the waits before another try.
    pub(crate) shortest: Duration,
    pub(crate) longest: Duration,
    /// When nothing comes for so long, not even a bookmark (one a minute), the other end is taken for gone.
    pub(crate) silence: Duration,
    /// A watch that was taken up again and is quiet for so long is taken for good.
    pub(crate) settled: Duration,
    /// For how long, at least, one request is a watch; at most twice as long.
    pub(crate) life: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            shortest: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            silence: Duration::from_secs(100),
            settled: Duration::from_secs(2),
            life: Duration::from_secs(300),
        }
    }
}

/// A running watch; it ends with this.
#[derive(Debug)]
pub(crate) struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a watch that tells `sender`.
pub(crate) fn start(connection: Arc<Connection>, kind: Kind, only: Only, sender: EventSender) -> Running {
    let task: JoinHandle<()> = match Selection::new(kind, &only) {
        Some(selection) => {
            let watch = Watch {
                call: selection.narrow(Call::watch(selection.path(kind))),
                backoff: Backoff::new(connection.pace.shortest, connection.pace.longest),
                teller: Teller::new(kind, only, sender),
                connection,
                kind,
                selection,
                version: None,
                failures: 0,
                useless: 0,
            };
            tokio::spawn(watch.run())
        }
        // Nothing can have such a key, and nothing ever will.
        None => tokio::spawn(async move {
            let mut teller = Teller::new(kind, only, sender);
            teller.begin();
            teller.in_sync();
            std::future::pending::<()>().await;
        }),
    };
    Running(task.abort_handle())
}

struct Watch {
    connection: Arc<Connection>,
    kind: Kind,
    selection: Selection,
    call: Call,
    teller: Teller,
    backoff: Backoff,
    /// What has been told is that of this version; `None` when a list is due.
    version: Option<String>,
    /// How often in a row nothing came of a try, and how often of those there was an answer, but one of no use.
    failures: u32,
    useless: u32,
}

/// Why a request is a watch no longer.
#[derive(Debug)]
enum End {
    /// What comes next is known.
    Next,
    /// Its time was over, or the reader has enough.
    Over,
    /// The server has forgotten the version.
    Forgotten,
    /// The connection broke, or what came on it was no watch.
    Broken(String),
    /// There was no answer, or one that says no.
    Refused { reason: String, asked: Option<Duration>, busy: bool },
}

impl Watch {
    async fn run(mut self) {
        while !self.teller.is_over() {
            let begun = Instant::now();
            let end = self.turn().await;
            match end {
                End::Next => {}
                // A server that says good-bye at once is not to be asked in a loop.
                End::Over if begun.elapsed() > self.connection.pace.settled => {}
                End::Over => self.trouble("the API server ends the watch at once", 2, None).await,
                End::Forgotten => {
                    self.version = None;
                    self.trouble("what the watch was to continue is forgotten", 2, None).await;
                }
                End::Broken(reason) => {
                    self.useless += 1;
                    if self.useless >= HOPELESS {
                        self.version = None;
                    }
                    self.trouble(&reason, 2, None).await;
                }
                // A server that is busy is there.
                End::Refused { reason, asked, busy } => {
                    self.trouble(&reason, 1 + u32::from(busy), asked).await;
                }
            }
        }
    }

    /// Waits before the next try; the reader is told from the failure in a row on of which that is more than a hiccup.
    async fn trouble(&mut self, reason: &str, told_from: u32, asked: Option<Duration>) {
        self.failures += 1;
        if self.failures >= told_from {
            self.teller.lost(reason);
        }
        sleep(self.backoff.next(asked)).await;
    }

    /// Something of use has come: what is known is as good as the server knows it.
    fn progress(&mut self) {
        (self.failures, self.useless) = (0, 0);
        self.backoff.reset();
        if self.version.is_some() {
            self.teller.found();
        }
    }

    /// One request (or the pages of a list), to its end.
    async fn turn(&mut self) -> End {
        match self.version.clone() {
            Some(version) => self.follow(self.call.clone().with("resourceVersion", version), false).await,
            None if self.connection.streams_lists.load(Ordering::Relaxed) => {
                let call = self.call.clone().with("sendInitialEvents", "true");
                self.follow(call.with("resourceVersionMatch", "NotOlderThan"), true).await
            }
            None => self.list().await,
        }
    }

    async fn list(&mut self) -> End {
        match pages(&self.connection, self.kind, &self.selection, Whole::Used).await {
            Ok(list) => {
                self.teller.begin();
                list.rows.into_iter().for_each(|row| self.teller.row(row));
                self.teller.in_sync();
                self.version = Some(list.version);
                self.progress();
                End::Next
            }
            Err(error) => End::Refused { reason: error.to_string(), asked: None, busy: false },
        }
    }

    async fn follow(&mut self, call: Call, mut listing: bool) -> End {
        let pace = self.connection.pace;
        let mut lines = match self.open(call).await {
            Ok(lines) => lines,
            Err(end) => return end,
        };
        if listing {
            self.teller.begin();
        }
        let mut wait = pace.settled.min(pace.silence);
        loop {
            let line = match timeout(wait, lines.next()).await {
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) => return End::Over,
                Ok(Err(reason)) => return End::Broken(reason),
                Err(_) if wait < pace.silence => {
                    wait = pace.silence;
                    if !listing {
                        self.progress();
                    }
                    continue;
                }
                Err(_) => return End::Broken(format!("nothing came for {} s", pace.silence.as_secs_f32())),
            };
            wait = pace.silence;
            self.connection.traffic.told(self.kind, line.len());
            if let Err(end) = self.take(&line, &mut listing) {
                return end;
            }
            if self.teller.is_over() {
                return End::Over;
            }
        }
    }

    fn take(&mut self, line: &[u8], listing: &mut bool) -> Result<(), End> {
        let version = match Message::read(self.kind, line).map_err(End::Broken)? {
            Message::Object { object, version } => {
                self.teller.row(*object);
                version
            }
            Message::Deleted { key, version } => {
                self.teller.deleted(&key);
                version
            }
            Message::Bookmark { version, ends_list } => {
                if *listing && ends_list {
                    *listing = false;
                    self.teller.in_sync();
                }
                version
            }
            Message::Error(Refusal::Expired) => return Err(End::Forgotten),
            Message::Error(refusal) => return Err(End::Broken(refusal.to_string())),
        };
        // Within a list the versions are those of its objects, in no order.
        if !*listing && !version.is_empty() {
            self.version = Some(version);
        }
        self.progress();
        Ok(())
    }

    /// Asks for a watch.
    async fn open(&mut self, call: Call) -> Result<Lines, End> {
        let seconds = self.connection.pace.life.mul_f64(1.0 + fastrand::f64()).as_secs().max(1);
        let mut call = call.with("allowWatchBookmarks", "true").with("timeoutSeconds", seconds.to_string());
        if self.kind == Kind::Node {
            call = call.metadata_only();
        }
        let deadline = Instant::now() + self.connection.timeout;
        let refused = |reason: String| End::Refused { reason, asked: None, busy: false };
        let response = self.connection.head(Some(self.kind), &call, deadline).await.map_err(refused)?;
        if response.status().is_success() {
            return Ok(Lines::new(response.into_body()));
        }
        let (status, asked) = (response.status(), retry_after(response.headers()));
        let body = Lines::whole(response.into_body(), deadline).await;
        Err(match Refusal::read(self.kind, &Answer { status, retry_after: asked, body }) {
            Refusal::Expired => End::Forgotten,
            Refusal::Unsupported(_) if self.version.is_none() => {
                self.connection.streams_lists.store(false, Ordering::Relaxed);
                End::Next
            }
            refusal => {
                let busy = status == StatusCode::TOO_MANY_REQUESTS;
                End::Refused { reason: refusal.to_string(), asked, busy }
            }
        })
    }
}
