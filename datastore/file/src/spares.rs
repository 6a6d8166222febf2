//! Files that were replaced, to be written again: a new file for each write, and the removal of the old one, cost a file
//! system more than what is in them.
//!
//! Somebody may still be reading the file that was replaced. Readers hold a shared lock, and look whether what they have
//! locked still has its name ([`open`]); who writes it again holds an exclusive one. So a reader gets one version, whole.
//!
//! That it was replaced is not on the disk at once: after a loss of power it may have its name again, and must have its text.
//! So it is written only when its directory was flushed, which is done while nobody waits ([`Spares::settle`]).

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use manx_model::Kind;
use rustix::fs::OFlags;

/// How many files of a kind are kept: what a pod with an address of each family has written at once.
const MOST: usize = 2;

/// A few files of each kind. What is here is removed with it.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<BTreeMap<Kind, Pile>>);

#[derive(Debug, Default)]
struct Pile {
    /// Nothing names them any more.
    ready: Vec<PathBuf>,
    /// After a loss of power they may be what they were.
    lately: Vec<PathBuf>,
}

impl Spares {
    /// Keeps the file at `path`, which has just lost its place.
    pub(crate) fn keep(&self, kind: Kind, path: PathBuf) {
        let mut spares = self.spares();
        let pile = spares.entry(kind).or_default();
        match pile.ready.len() + pile.lately.len() < MOST {
            true => pile.lately.push(path),
            false => remove(&path),
        }
    }

    /// Flushes the directories in which files have lost their places; then these can be written.
    pub(crate) fn settle(&self, directory: impl Fn(Kind) -> PathBuf) {
        let kinds: Vec<Kind> = self.spares().keys().copied().collect();
        for kind in kinds {
            let lately =
                self.spares().get_mut(&kind).map(|pile| std::mem::take(&mut pile.lately)).unwrap_or_default();
            if lately.is_empty() {
                continue;
            }
            match File::open(directory(kind)).and_then(|directory| directory.sync_all()) {
                Ok(()) => self.spares().entry(kind).or_default().ready.extend(lately),
                Err(_) => lately.iter().for_each(|path| remove(path)),
            }
        }
    }

    /// Writes `bytes` to a spare file of `kind`, which nobody else writes while it is open. `None` where there is none that can
    /// be written.
    pub(crate) fn write(&self, kind: Kind, bytes: &[u8]) -> Option<(PathBuf, File)> {
        let path = self.spares().get_mut(&kind)?.ready.pop()?;
        match write_again(&path, bytes) {
            Ok(file) => Some((path, file)),
            Err(_) => {
                // Being read, swept, or whatever else: a new one will do, and tells what is wrong with the directory.
                remove(&path);
                None
            }
        }
    }

    fn spares(&self) -> MutexGuard<'_, BTreeMap<Kind, Pile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        let piles = self.spares();
        piles.values().flat_map(|pile| pile.ready.iter().chain(&pile.lately)).for_each(|path| remove(path));
    }
}

/// What cannot be removed now is swept later.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

/// It is cut off last, so that the blocks that it has on the disk are used again, too.
fn write_again(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let file = lock(path)?;
    // What a person linked elsewhere, as a copy to keep perhaps, is not ours alone.
    if file.metadata()?.nlink() != 1 {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    Ok(file)
}

/// Opens a file that nobody reads, and keeps others from it. A link, which a person may have put there, is not followed.
fn lock(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the temporary file at `path` if it was last written longer than `age` ago, and nobody is writing it again.
pub(crate) fn sweep(path: &Path, age: Duration) {
    let Ok(file) = lock(path) else { return };
    let written = file.metadata().and_then(|metadata| metadata.modified()).ok();
    let since = written.and_then(|written| SystemTime::now().duration_since(written).ok());
    if since.is_some_and(|since| since > age) {
        remove(path);
    }
}

/// Opens the file at `path`, to be read: as long as it is open it stays as it is, unless a person writes it.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    loop {
        let file = File::open(path)?;
        file.lock_shared()?;
        let (locked, named) = (file.metadata()?, fs::metadata(path)?);
        // Otherwise it was replaced before it was locked, and what is in it now need not be the object.
        if (locked.dev(), locked.ino()) == (named.dev(), named.ino()) {
            return Ok((file, locked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_loss_of_power_could_give_its_name_back_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let (old, spares) = (directory.path().join("old"), Spares::default());
        fs::write(&old, "a").unwrap();
        spares.keep(Kind::IPAMBlock, old.clone());
        assert!(spares.write(Kind::IPAMBlock, b"b").is_none());
        assert_eq!(fs::read(&old).unwrap(), b"a");
        spares.settle(|_| directory.path().to_owned());
        let (path, file) = spares.write(Kind::IPAMBlock, b"b").unwrap();
        assert_eq!((path, fs::read(&old).unwrap()), (old.clone(), b"b".to_vec()));

        drop(file);
        spares.keep(Kind::IPAMBlock, old.clone());
        spares.settle(|_| directory.path().join("gone"));
        assert!(spares.write(Kind::IPAMBlock, b"c").is_none());
        assert!(!old.exists(), "where it cannot be known, the file is not kept");
    }
}
