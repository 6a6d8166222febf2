//! The folder of a control plane: the caller's, or one that goes with its value.
//!
//! ```text
//! target/tmp/tests/kubernetes/PID-N        the files
//! target/tmp/tests/kubernetes/PID-N.lock   locked (flock) as long as the process lives that made it
//! ```
//!
//! What a killed test leaves behind (its programs are gone, its files are not) is removed by the next one that starts.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Of a temporary folder.
    lock: Option<(PathBuf, File)>,
}

impl Folder {
    /// The folder `dir`, or else a temporary one. Only this user may look into it, as it holds tokens.
    pub(crate) fn open(dir: Option<&Path>) -> Result<Self> {
        let Some(dir) = dir else {
            return Self::temporary(&manx_ground::target_dir().join("tmp/tests/kubernetes"));
        };
        make(dir)?;
        Ok(Folder { path: std::path::absolute(dir)?, lock: None })
    }

    fn temporary(root: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        make(root)?;
        sweep(root);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::path::absolute(root)?.join(&name);
        let lock = path.with_extension("lock");
        let file = File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
        file.lock()?;
        make(&path)?;
        Ok(Folder { path, lock: Some((lock, file)) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some((lock, _)) = &self.lock {
            remove(lock);
        }
    }
}

fn make(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make {}", dir.display()))
}

/// Removes the folders whose owners are gone.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let lock = entry.path();
        if lock.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(file) = File::open(&lock) else { continue };
        // Held until the folder is gone: who has just made the lock waits for it before he makes a folder.
        if file.try_lock().is_ok() {
            remove(&lock);
        }
    }
}

/// Removes the folder that belongs to `lock`, and then the lock; what cannot be removed now is left to a later sweep.
fn remove(lock: &Path) {
    if fs::remove_dir_all(lock.with_extension("")).is_ok() {
        let _ = fs::remove_file(lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_value_and_a_dead_ones_with_the_next() {
        let root = manx_ground::target_dir().join(format!("tmp/tests/folders-{}", std::process::id()));
        let (dead, dead_lock) = (root.join("1-0"), root.join("1-0.lock"));
        make(&dead).unwrap();
        fs::write(&dead_lock, "").unwrap();

        let living = Folder::temporary(&root).unwrap();
        assert!(!dead.exists() && !dead_lock.exists());
        let second = Folder::temporary(&root).unwrap();
        assert!(living.path().exists(), "a living folder was swept");

        drop((living, second));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        fs::remove_dir(&root).unwrap();
    }
}
