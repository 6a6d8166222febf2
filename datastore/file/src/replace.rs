//! Replacing a file in one step: written beside it, flushed, renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use manx_datastore::Error;
use manx_model::{Kind, Object};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::directory::unavailable;
use crate::identity::{hash, identify, new_uid};
use crate::spares::Spares;
use crate::yaml;

const PREFIX: &str = ".manx-";
const SUFFIX: &str = ".tmp";

/// Whether objects of this kind are written without a flush, so that a power failure may leave an empty file. A handle says
/// where a container's addresses are; the container ends with the machine, its block says who holds them, too, and
/// empty handles are swept ([`crate::directory`]). Every new pod has one, and a flush takes longer than all else.
pub(crate) fn may_be_lost(kind: Kind) -> bool {
    kind == Kind::IPAMHandle
}

/// Whether this is the name of a file that was to replace another.
pub(crate) fn is_temporary(file: &str) -> bool {
    file.starts_with(PREFIX) && file.ends_with(SUFFIX)
}

/// An object in a temporary file, which is removed if it does not get its place.
pub(crate) struct Prepared {
    /// What is to be flushed.
    open: Option<File>,
    filled: Flushed,
}

/// The same, on the disk.
pub(crate) struct Flushed {
    file: Temporary,
    hash: String,
    object: Object,
}

/// Removed when dropped, unless it has moved.
struct Temporary {
    path: PathBuf,
    moved: bool,
}

impl Prepared {
    /// Writes `object`, under the number `version`, to a file of `directory` that nobody looks at yet.
    pub(crate) fn write(
        mut object: Object,
        version: u64,
        directory: &Path,
        spares: &Spares,
    ) -> Result<Self, Error> {
        object.metadata.resource_version = Some(version.to_string());
        object.metadata.uid.get_or_insert_with(|| new_uid(version, object.kind, &object.metadata.name));
        let text = yaml::render(&object).map_err(|reason| object.invalid("spec", reason))?;
        let hash = hash(text.as_bytes());
        if let Some((path, open)) = spares.write(object.kind, text.as_bytes()) {
            let file = Temporary { path, moved: false };
            return Ok(Self { open: Some(open), filled: Flushed { file, hash, object } });
        }
        let path = directory.join(format!("{PREFIX}{}-{version}{SUFFIX}", std::process::id()));
        let file = Temporary { path, moved: false };
        let open = file.fill(text.as_bytes()).map_err(|error| unavailable(&file.path, error))?;
        let open = (!may_be_lost(object.kind)).then_some(open);
        Ok(Self { open, filled: Flushed { file, hash, object } })
    }

    /// Waits until it is on the disk, unless it may be lost with the machine ([`may_be_lost`]).
    pub(crate) fn flush(self) -> Result<Flushed, Error> {
        let Self { open, filled } = self;
        let flushed = open.map_or(Ok(()), |open| open.sync_data());
        flushed.map_err(|error| unavailable(&filled.file.path, error))?;
        Ok(filled)
    }
}

impl Flushed {
    /// The object, which does not have its place yet.
    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    /// Takes the place of what is at `path`, whose file is the next to be written, in `spares`. Returns the object as it is
    /// stored, and the hash of the file.
    pub(crate) fn put_over(self, path: &Path, spares: &Spares) -> Result<(Object, String), Error> {
        if may_be_lost(self.object.kind) {
            return self.put_instead(path);
        }
        match renameat_with(CWD, &self.file.path, CWD, path, RenameFlags::EXCHANGE) {
            Ok(()) => {
                spares.keep(self.object.kind, self.file.path.clone());
                Ok(self.stored())
            }
            Err(Errno::NOENT) => Err(Error::gone(&self.object)),
            // Not every file system can exchange two files.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.put_instead(path),
            Err(error) => Err(unavailable(path, error.into())),
        }
    }

    fn put_instead(self, path: &Path) -> Result<(Object, String), Error> {
        fs::rename(&self.file.path, path).map_err(|error| unavailable(path, error))?;
        Ok(self.stored())
    }

    /// Takes its place at `path`, where nothing is. A person creates files without our lock: the kernel decides who was first.
    pub(crate) fn put_new(self, path: &Path) -> Result<(Object, String), Error> {
        match renameat_with(CWD, &self.file.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(self.stored()),
            Err(Errno::EXIST) => Err(Error::exists(&self.object)),
            Err(error) => Err(unavailable(path, error.into())),
        }
    }

    fn stored(mut self) -> (Object, String) {
        self.file.moved = true;
        (identify(self.object, &self.hash), self.hash)
    }
}

impl Temporary {
    fn fill(&self, bytes: &[u8]) -> io::Result<File> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&self.path)?;
        file.write_all(bytes)?;
        Ok(file)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.moved {
            // What cannot be removed now is swept later.
            let _ = fs::remove_file(&self.path);
        }
    }
}
