//! Replacing a file in one step: written beside it, flushed, renamed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use manx_datastore::Error;
use manx_model::Object;

use crate::directory::unavailable;
use crate::identity::{hash, identify, new_uid};
use crate::yaml;

const PREFIX: &str = ".manx-";
const SUFFIX: &str = ".tmp";

/// Whether this is the name of a file that was to replace another.
pub(crate) fn is_temporary(file: &str) -> bool {
    file.starts_with(PREFIX) && file.ends_with(SUFFIX)
}

/// An object in a temporary file, which is removed if it does not get its place.
pub(crate) struct Prepared {
    path: PathBuf,
    hash: String,
    object: Object,
}

impl Prepared {
    /// Writes `object`, under the number `version`, to a file of `directory` that nobody looks at yet.
    pub(crate) fn write(mut object: Object, version: u64, directory: &Path) -> Result<Self, Error> {
        object.metadata.resource_version = Some(version.to_string());
        object.metadata.uid.get_or_insert_with(|| new_uid(version, object.kind, &object.metadata.name));
        let text = yaml::render(&object).map_err(|reason| object.invalid("spec", reason))?;
        let path = directory.join(format!("{PREFIX}{}-{version}{SUFFIX}", std::process::id()));
        let prepared = Self { path, hash: hash(text.as_bytes()), object };
        prepared.fill(text.as_bytes()).map_err(|error| unavailable(&prepared.path, error))?;
        Ok(prepared)
    }

    fn fill(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&self.path)?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    /// The hash of the file.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The object as it would be at version `expected`, for a comparison.
    pub(crate) fn object_at(&self, expected: Option<String>) -> Object {
        let mut object = self.object.clone();
        object.metadata.resource_version = expected;
        object
    }

    /// Takes the place of what is at `path`.
    pub(crate) fn put_over(self, path: &Path) -> Result<Object, Error> {
        fs::rename(&self.path, path).map_err(|error| unavailable(path, error))?;
        Ok(self.stored())
    }

    /// Takes its place at `path`, where nothing is. A person creates files without our lock: the kernel decides who was first.
    pub(crate) fn put_new(self, path: &Path) -> Result<Object, Error> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(self.stored()),
            Err(rustix::io::Errno::EXIST) => Err(Error::exists(&self.object)),
            Err(error) => Err(unavailable(path, error.into())),
        }
    }

    fn stored(&self) -> Object {
        identify(self.object.clone(), &self.hash)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Gone already where it got its place.
        let _ = fs::remove_file(&self.path);
    }
}
