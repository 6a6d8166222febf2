//! One turn of a watch: a request, from its beginning to its end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use manx_model::Kind;
use tokio::time::{Instant, timeout};

use super::Watch;
use super::lines::Lines;
use super::message::Message;
use crate::call::{Answer, retry_after};
use crate::decode::Whole;
use crate::list::pages;
use crate::refusal::Refusal;
use crate::request::Call;

/// Why a request is a watch no longer.
#[derive(Debug)]
pub(super) enum End {
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
    /// One request (or the pages of a list), to its end.
    pub(super) async fn turn(&mut self) -> End {
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
                Ok(Ok(None)) if listing => return End::Broken("the list ended before it was whole".into()),
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
            if let Err(end) = self.take(&line, &mut listing) {
                return end;
            }
            if self.teller.is_over() {
                return End::Over;
            }
        }
    }

    fn take(&mut self, line: &[u8], listing: &mut bool) -> Result<(), End> {
        let message = Message::read(self.kind, line);
        let bookmark = matches!(message, Ok(Message::Bookmark { .. }));
        self.connection.traffic.told(self.kind, line.len(), bookmark);
        let version = match message.map_err(End::Broken)? {
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
        // Within a list the versions are those of its objects, in no order; and half of one is of no use.
        if !*listing {
            if !version.is_empty() {
                self.version = Some(version);
            }
            self.progress();
        }
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
