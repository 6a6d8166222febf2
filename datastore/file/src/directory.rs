//! The directory itself, with blocking calls: reading manifests, and replacing them by compare-and-swap.
//!
//! A `resourceVersion` is the number under which an object was last written by us, and a hash of the file's bytes. The
//! number never repeats, and the hash makes a person's edit another version although the number in the file stayed
//! the same: an edit between our read and our write is a conflict.
//!
//! A write fills another file beside the old one, flushes it, and has the two change places while it holds the lock. So
//! whoever is killed, at whatever instant, leaves either the old object or the new one, and perhaps a temporary file. The
//! old file is filled by a later write ([`crate::spares`]).
//! The file is flushed before the rename (otherwise a power failure may leave an empty file under the new name), but
//! for a handle's ([`may_be_lost`]); nobody waits for the directory to be flushed, since what an acknowledged write promised
//! to a pod ends with the machine as well. Flushing, which is slow, happens outside of the lock, and of several writes at
//! once: each is begun before any is ended ([`crate::writes`]).

mod writing;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use manx_datastore::{Error, Only};
use manx_model::{Invalid, Kind, Object};

use crate::identity::{hash, identify};
use crate::lock::Lock;
use crate::replace::{is_temporary, may_be_lost};
use crate::spares::{self, Spares};
use crate::yaml;

/// A file may be written twice within one tick of the file system's clock. What was read so soon after a write is
/// read again next time.
const TICK: Duration = Duration::from_millis(50);

/// How long somebody may take to write a file in place before it counts as damaged.
pub(crate) const SETTLE: Duration = Duration::from_millis(250);

/// Temporary files of this age belong to nobody, and what is empty then was not about to be written.
const ABANDONED: Duration = Duration::from_secs(60);

/// Larger files are refused unread; the largest object that we write is a hundredth of it.
const MAX_SIZE: u64 = 16 << 20;

/// `NAME_MAX`, less `.yaml`.
const MAX_NAME: usize = 250;

/// A manifest as it was last read.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The file's name in the directory of its kind.
    pub(crate) file: String,
    /// The hash of its bytes.
    pub(crate) hash: String,
    pub(crate) object: Result<Arc<Object>, Invalid>,
    /// When the file was last written.
    pub(crate) written: SystemTime,
}

impl Entry {
    /// It cannot be read, and somebody may be writing it just now.
    pub(crate) fn may_be_half_written(&self) -> bool {
        let age = SystemTime::now().duration_since(self.written).unwrap_or_default();
        self.object.is_err() && age < SETTLE
    }

    /// Whether somebody who wants `only` is told: what cannot be read might be anything.
    pub(crate) fn concerns(&self, only: &Only) -> bool {
        match (&self.object, only) {
            (Ok(object), only) => only.selects(object),
            (Err(invalid), Only::Key(key)) => *key == invalid.name,
            (Err(_), _) => true,
        }
    }
}

/// What each file was last understood as, and the stamp by which it is known to be unchanged, once it has one.
type Cache = HashMap<PathBuf, (Option<Stamp>, Arc<Entry>)>;

#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    cache: Mutex<Cache>,
    lock: Lock,
    spares: Spares,
}

/// By which a file is known to be unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Directory {
    /// Opens `root`, which is created with a directory for each kind, and sweeps what killed writers and power failures left.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(|error| unavailable(root, error))?;
        let root = root.canonicalize().map_err(|error| unavailable(root, error))?;
        let lock = Lock::make(&root)?;
        let directory = Self { root, cache: Mutex::default(), lock, spares: Spares::default() };
        directory.make_kinds()?;
        for kind in Kind::ALL {
            directory.sweep(kind)?;
        }
        Ok(directory)
    }

    /// Makes the directories of the kinds, if this is still the datastore.
    pub(crate) fn make_kinds(&self) -> Result<(), Error> {
        self.lock.check()?;
        for kind in Kind::ALL {
            let path = self.path(kind);
            fs::create_dir_all(&path).map_err(|error| unavailable(&path, error))?;
        }
        Ok(())
    }

    /// The directory of all.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a kind.
    pub(crate) fn path(&self, kind: Kind) -> PathBuf {
        self.root.join(kind.plural())
    }

    /// The object of this key; `None` where there is none.
    pub(crate) fn get(&self, kind: Kind, key: &str) -> Result<Option<Arc<Entry>>, Error> {
        match manx_model::check_key(kind, key).is_ok() && key.len() <= MAX_NAME {
            true => self.read(kind, &file_name(key)),
            false => Ok(None),
        }
    }

    /// All manifests of a kind, by key.
    pub(crate) fn list(&self, kind: Kind) -> Result<Vec<Arc<Entry>>, Error> {
        self.lock.check()?;
        let path = self.path(kind);
        let mut entries = Vec::new();
        for found in fs::read_dir(&path).map_err(|error| unavailable(&path, error))? {
            let found = found.map_err(|error| unavailable(&path, error))?;
            if let Some(file) = found.file_name().to_str().filter(|file| is_manifest(file)) {
                entries.extend(self.read(kind, file)?);
            }
        }
        entries.sort_by_key(|entry| object_key(&entry.file));
        let listed = |file: &Path| entries.iter().any(|entry| path.join(&entry.file) == file);
        let mut cache = self.cache();
        if cache.keys().filter(|file| file.parent() == Some(&path)).count() > entries.len() {
            cache.retain(|file, _| file.parent() != Some(&path) || listed(file));
        }
        Ok(entries)
    }

    /// The manifest `file`, read again only if it has changed.
    pub(crate) fn read(&self, kind: Kind, file: &str) -> Result<Option<Arc<Entry>>, Error> {
        let path = self.path(kind).join(file);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.cache().remove(&path);
                // A directory that is not mounted has no objects, but does not say that they are gone.
                self.lock.check()?;
                return Ok(None);
            }
            Err(error) => return Err(unavailable(&path, error)),
        };
        if let Some((_, entry)) =
            self.cache().get(&path).filter(|(stamp, _)| *stamp == Some(Stamp::of(&metadata)))
        {
            return Ok(Some(Arc::clone(entry)));
        }
        self.read_anew(kind, file, &path)
    }

    fn read_anew(&self, kind: Kind, file: &str, path: &Path) -> Result<Option<Arc<Entry>>, Error> {
        let (mut opened, metadata) = match spares::open(path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(path, error)),
        };
        let mut bytes = Vec::new();
        if metadata.len() <= MAX_SIZE {
            opened.read_to_end(&mut bytes).map_err(|error| unavailable(path, error))?;
        }
        let written = metadata.modified().unwrap_or(UNIX_EPOCH);
        let hash = hash(&bytes);
        // Reading YAML costs more than everything else about a write, and the same bytes say the same.
        let object = self.understood(path, &hash).unwrap_or_else(|| {
            let object = self.understand(kind, file, path, metadata.len(), &bytes);
            object.map(|object| Arc::new(identify(object, &hash)))
        });
        let entry = Arc::new(Entry { file: file.to_owned(), hash, object, written });
        let settled = SystemTime::now().duration_since(written).is_ok_and(|age| age >= TICK);
        let stamp = settled.then(|| Stamp::of(&metadata));
        self.cache().insert(path.to_owned(), (stamp, Arc::clone(&entry)));
        Ok(Some(entry))
    }

    /// What the file said when its bytes had this hash, if that was the last time.
    fn understood(&self, path: &Path, hash: &str) -> Option<Result<Arc<Object>, Invalid>> {
        let cache = self.cache();
        let (_, entry) = cache.get(path)?;
        (entry.hash == hash).then(|| entry.object.clone())
    }

    fn understand(
        &self,
        kind: Kind,
        file: &str,
        path: &Path,
        size: u64,
        bytes: &[u8],
    ) -> Result<Object, Invalid> {
        let key = object_key(file);
        let refuse =
            |reason: String| Invalid { kind, name: key.clone(), field: path.display().to_string(), reason };
        if size > MAX_SIZE {
            return Err(refuse(format!("has {size} bytes; more than {MAX_SIZE} are not read")));
        }
        if !file.ends_with(".yaml") {
            return Err(refuse("is not read: the name of a manifest ends in .yaml".into()));
        }
        manx_model::check_key(kind, &key)
            .map_err(|(field, reason)| refuse(wrong_file_name(field, &reason)))?;
        yaml::parse(kind, &key, path, bytes)
    }

    /// What is left to do after writes, and nobody waits for.
    pub(crate) fn settle(&self) {
        self.spares.settle(|kind| self.path(kind));
    }

    fn manifest(&self, object: &Object) -> PathBuf {
        self.path(object.kind).join(file_name(&object.key()))
    }

    fn sweep(&self, kind: Kind) -> Result<(), Error> {
        let path = self.path(kind);
        for found in fs::read_dir(&path).map_err(|error| unavailable(&path, error))?.flatten() {
            let (name, Ok(metadata)) = (found.file_name(), found.metadata()) else { continue };
            let is_lost = |file: &str| may_be_lost(kind) && is_manifest(file) && metadata.len() == 0;
            if name.to_str().is_some_and(|file| is_temporary(file) || is_lost(file)) {
                // Another agent may sweep at the same time.
                spares::sweep(&found.path(), ABANDONED);
            }
        }
        Ok(())
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Between namespace and name in a file's name; neither can hold it.
const SEPARATOR: &str = "_";

/// The file of an object: `name.yaml`, or `namespace_name.yaml`.
fn file_name(key: &str) -> String {
    format!("{}.yaml", key.replacen('/', SEPARATOR, 1))
}

/// The key of the object in a file; the file's whole name where it cannot be one.
pub(crate) fn object_key(file: &str) -> String {
    file.strip_suffix(".yaml").unwrap_or(file).replacen(SEPARATOR, "/", 1)
}

fn wrong_file_name(field: &str, reason: &str) -> String {
    match field {
        "metadata.namespace" => format!("the file's name, which is NAMESPACE_NAME.yaml: {reason}"),
        _ => format!("the file's name: {reason}"),
    }
}

/// What a person may have meant as an object. Hidden files and an editor's backups are not.
pub(crate) fn is_manifest(file: &str) -> bool {
    !file.starts_with('.') && [".yaml", ".yml", ".json"].iter().any(|suffix| file.ends_with(suffix))
}

pub(crate) fn unavailable(path: &Path, error: io::Error) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}
