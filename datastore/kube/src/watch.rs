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
//! `Lost` once; when it can again, he is told `InSync` where nothing was missed, and a new list where something may have
//! been.
//!
//! Why not `kube-runtime`'s watcher (5.0): a list that comes as a watch begins there at version 0, which may be older
//! than what this very process has read before; of an object that it cannot read it does not say which it was; and what
//! is a hiccup, what an outage, and when to give up a version, is ours to decide.

mod lines;
mod message;
mod teller;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use manx_datastore::{EventSender, Only};
use manx_model::Kind;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::request::Call;
use crate::selection::Selection;
use teller::Teller;
use turn::End;

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
}
