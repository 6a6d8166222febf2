//! The lines of an answer that does not end.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use tokio::time::{Instant, timeout_at};

use crate::config;

/// The longest line, in bytes. etcd keeps no object of more than 1.5 MB, and JSON makes it at most a few times that.
const LONGEST: usize = 32 << 20;

/// How much of a refusal is read, in bytes.
const REFUSAL: usize = 64 << 10;

/// The lines of an answer.
pub(super) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// Up to where the buffer holds no end of a line.
    searched: usize,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0 }
    }

    /// The whole of an answer that ends, or nothing where it does not.
    pub(super) async fn whole(body: Body, deadline: Instant) -> Bytes {
        match timeout_at(deadline, Limited::new(body, REFUSAL).collect()).await {
            Ok(Ok(whole)) => whole.to_bytes(),
            _ => Bytes::new(),
        }
    }

    /// The next line, without its end; `None` after the last. What a broken connection leaves of a line is dropped. May
    /// be cancelled without loss.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(line) = self.line() {
                return Ok(Some(line));
            }
            if self.buffer.len() > LONGEST {
                return Err(format!("a line of more than {LONGEST} bytes"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(format!("the connection broke: {}", config::chain(&error))),
            }
        }
    }

    fn line(&mut self) -> Option<Bytes> {
        while let Some(end) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
            let line = self.buffer.split_to(self.searched + end + 1).freeze();
            self.searched = 0;
            if line.len() > 1 {
                return Some(line.slice(..line.len() - 1));
            }
        }
        self.searched = self.buffer.len();
        None
    }
}
