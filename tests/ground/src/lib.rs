//! What the tests stand on, and nothing of Manx: waiting for a condition, network namespaces, the build folder.
//!
//! It lies below `manx-kubernetes` and `manx-lab`, so that a lab can have a control plane.

pub mod netns;
mod wait;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use wait::{eventually, slowness};

/// The build folder: the one in which this program lies (cargo marks it with `CACHEDIR.TAG`), otherwise that of the
/// source tree.
pub fn target_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let found = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    found.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), Path::to_path_buf)
}

/// What the caller's environment tells the runtime of programs in Go, which the rest of it is kept from: how large their
/// garbage may grow (`GOGC`), and which instructions they are to leave alone (`GODEBUG`). The emulated guest sets both.
pub fn go_environment() -> impl Iterator<Item = (&'static str, OsString)> {
    ["GOGC", "GODEBUG"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}
