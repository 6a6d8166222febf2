//! The lock of the directory, and the counter in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use manx_datastore::Error;

use crate::directory::unavailable;

/// The lock's file, and in it the first version number that nobody has reserved. A directory without it is not (or,
/// while it is not mounted, not now) a datastore.
const FILE: &str = ".manx-lock";

/// Version numbers are reserved in lots, so that a write need not write the counter.
const LOT: u64 = 1000;

/// The lock that all processes share, and the numbers that this one has reserved.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    reserved: Mutex<Range<u64>>,
}

impl Lock {
    /// The lock of `root`, made if it is not there.
    pub(crate) fn make(root: &Path) -> Result<Self, Error> {
        let path = root.join(FILE);
        let made = OpenOptions::new().create(true).append(true).open(&path);
        made.map_err(|error| unavailable(&path, error))?;
        Ok(Self { path, reserved: Mutex::new(0..0) })
    }

    /// That the directory is (still) there. One that is not mounted has no objects, but does not say that they are gone.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.open().map(drop)
    }

    /// Waits for the lock, which others hold for as long as it takes to look at a file and rename another. It is given
    /// back when the file is dropped, and when its process dies.
    pub(crate) fn take(&self) -> Result<File, Error> {
        let lock = self.open()?;
        lock.lock().map_err(|error| unavailable(&self.path, error))?;
        Ok(lock)
    }

    /// A number that nobody has had before. Must not be called by who holds the lock.
    pub(crate) fn next_version(&self) -> Result<u64, Error> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if reserved.is_empty() {
            *reserved = self.reserve()?;
        }
        Ok(reserved.next().unwrap_or_default())
    }

    fn reserve(&self) -> Result<Range<u64>, Error> {
        let lock = self.take()?;
        let mut text = String::new();
        (&lock).take(64).read_to_string(&mut text).map_err(|error| unavailable(&self.path, error))?;
        let first = match text.trim() {
            "" => 1,
            // Somebody has damaged the counter: go on beyond anything that it can have been.
            text => text.parse().unwrap_or_else(|_| seconds_since_1970().saturating_mul(LOT)),
        };
        let next = first.saturating_add(LOT);
        let text = format!("{next:<20}\n");
        lock.write_all_at(text.as_bytes(), 0)
            .and_then(|()| lock.set_len(text.len() as u64))
            .and_then(|()| lock.sync_data())
            .map_err(|error| unavailable(&self.path, error))?;
        Ok(first..next)
    }

    fn open(&self) -> Result<File, Error> {
        OpenOptions::new().read(true).write(true).open(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Unavailable(format!(
                "{} is not there: its directory is no datastore any more (removed, or not mounted)",
                self.path.display()
            )),
            _ => unavailable(&self.path, error),
        })
    }
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
