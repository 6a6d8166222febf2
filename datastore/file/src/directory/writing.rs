//! Writing by compare-and-swap, in two steps: what takes long of one write can be under way with that of others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fs, io};

use manx_datastore::{Error, annotated, check_storable};
use manx_model::Object;

use super::{Directory, Entry, MAX_NAME, file_name, unavailable};
use crate::replace::Prepared;

/// A write whose file is filled, and not flushed yet.
pub(crate) struct Begun {
    path: PathBuf,
    /// The version that it is to replace, if any.
    expected: Option<String>,
    prepared: Prepared,
}

impl Directory {
    /// Begins to store a new object.
    pub(crate) fn begin_create(&self, mut object: Object) -> Result<Begun, Error> {
        check_storable(&object)?;
        if object.key().len() > MAX_NAME {
            let reason = format!("longer than {MAX_NAME} characters, which is what a file's name can hold");
            return Err(object.invalid("metadata.name", reason).into());
        }
        let path = self.manifest(&object);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(Error::exists(&object));
        }
        object.metadata.uid = None;
        Ok(Begun { path, expected: None, prepared: self.prepare(object)? })
    }

    /// Stores it.
    pub(crate) fn end_create(&self, begun: Begun) -> Result<Object, Error> {
        let Begun { path, prepared, .. } = begun;
        let flushed = prepared.flush()?;
        let _lock = self.lock.take()?;
        let stored = flushed.put_new(&path)?;
        Ok(self.remember(path, stored))
    }

    /// Begins to replace this very version.
    pub(crate) fn begin_update(&self, mut object: Object) -> Result<Begun, Error> {
        check_storable(&object)?;
        let path = self.manifest(&object);
        let expected = object.metadata.resource_version.take();
        // What is known of the file will do here, and may be old: under the lock it is read.
        let current = match self.known(&path).filter(|known| known.metadata.resource_version == expected) {
            Some(known) => known,
            None => self.compare(&object, expected.as_deref())?,
        };
        object.metadata.uid.clone_from(&current.metadata.uid);
        Ok(Begun { path, expected, prepared: self.prepare(object)? })
    }

    /// Replaces it.
    pub(crate) fn end_update(&self, begun: Begun) -> Result<Object, Error> {
        let Begun { path, expected, prepared } = begun;
        let flushed = prepared.flush()?;
        let _lock = self.lock.take()?;
        self.compare(flushed.object(), expected.as_deref())?;
        let stored = flushed.put_over(&path, &self.spares)?;
        Ok(self.remember(path, stored))
    }

    /// Other annotations, whoever writes the rest.
    pub(crate) fn annotate(
        &self,
        object: &Object,
        annotations: &BTreeMap<String, Option<String>>,
    ) -> Result<Object, Error> {
        loop {
            check_storable(object)?;
            let current = Arc::unwrap_or_clone(self.current(object)?);
            let changed = annotated(current, object, annotations)?;
            match self.begin_update(changed).and_then(|begun| self.end_update(begun)) {
                // Somebody wrote the rest in between, which is not what is compared here.
                Err(Error::Conflict { .. }) => {}
                ended => return ended,
            }
        }
    }

    /// Deletes this very version.
    pub(crate) fn delete(&self, object: &Object) -> Result<(), Error> {
        check_storable(object)?;
        let _lock = self.lock.take()?;
        self.compare(object, object.metadata.resource_version.as_deref())?;
        let path = self.manifest(object);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::gone(object)),
            removed => {
                self.cache().remove(&path);
                removed.map_err(|error| unavailable(&path, error))
            }
        }
    }

    /// The object that was last read or written at `path`.
    fn known(&self, path: &Path) -> Option<Arc<Object>> {
        self.cache().get(path).and_then(|(_, entry)| entry.object.clone().ok())
    }

    /// The object as it is stored. Reads the file, whatever the cache says.
    fn current(&self, object: &Object) -> Result<Arc<Object>, Error> {
        let entry = self.read_anew(object.kind, &file_name(&object.key()), &self.manifest(object))?;
        Ok(entry.ok_or_else(|| Error::gone(object))?.object.clone()?)
    }

    /// The stored object, if it is the version that is expected.
    fn compare(&self, object: &Object, expected: Option<&str>) -> Result<Arc<Object>, Error> {
        let current = self.current(object)?;
        match current.metadata.resource_version.as_deref() == expected {
            true => Ok(current),
            false => Err(Error::conflict(object)),
        }
    }

    fn prepare(&self, object: Object) -> Result<Prepared, Error> {
        let directory = self.path(object.kind);
        Prepared::write(object, self.lock.next_version()?, &directory, &self.spares)
    }

    /// Remembers what was just written.
    fn remember(&self, path: PathBuf, (object, hash): (Object, String)) -> Object {
        let (file, written) = (file_name(&object.key()), SystemTime::now());
        let entry = Entry { file, hash, object: Ok(Arc::new(object.clone())), written };
        self.cache().insert(path, (None, Arc::new(entry)));
        object
    }
}
