//! The way back: exactly what is ours goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::conflist::{self, PLUGIN};
use super::{names, unfinished};

/// How much is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// Everything.
    Yes,
    /// Pods still run: their DELs need the program, but no new pod may come.
    PodsRemain,
}

/// What became of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Gone now.
    pub gone: Vec<PathBuf>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}

/// Removes the network configurations that lead to us, whatever they are called, and then the plugin.
pub fn remove(net_dir: &Path, bin_dir: &Path, whole: Whole) -> Removed {
    let mut removed = Removed::default();
    match names(net_dir) {
        Ok(names) => {
            let paths = names.iter().map(|name| net_dir.join(name));
            paths.filter(|path| is_ours(path)).for_each(|path| removed.file(path));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => removed.failed.push(format!("{}: {error}", net_dir.display())),
    }
    if whole == Whole::Yes && removed.failed.is_empty() {
        let program = bin_dir.join(PLUGIN);
        [unfinished(&program), program].into_iter().for_each(|path| removed.file(path));
    }
    removed
}

fn is_ours(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| conflist::is_ours(&text))
}

impl Removed {
    fn file(&mut self, path: PathBuf) {
        match fs::remove_file(&path) {
            Ok(()) => self.gone.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.failed.push(format!("{}: {error}", path.display())),
        }
    }
}
