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
    let found = built_in(&std::env::current_exe().unwrap_or_default());
    found.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"))
}

/// Where `make build` leaves what it builds, all of it for this machine by name.
pub fn release_dir() -> PathBuf {
    target_dir().join(machine()).join("release")
}

/// This machine, as Rust names it.
fn machine() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// What is built for a machine by name lies in a folder of that name, which cargo marks as well.
fn built_in(program: &Path) -> Option<PathBuf> {
    let is_target = |dir: &&Path| dir.join("CACHEDIR.TAG").exists() && !dir.ends_with(machine());
    program.ancestors().find(is_target).map(Path::to_path_buf)
}

/// What the caller's environment tells the runtime of programs in Go, which the rest of it is kept from: how large their
/// garbage may grow (`GOGC`), and which instructions they are to leave alone (`GODEBUG`). The emulated guest sets both.
pub fn go_environment() -> impl Iterator<Item = (&'static str, OsString)> {
    ["GOGC", "GODEBUG"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_folder_is_found_from_what_is_built_for_this_machine_and_for_a_named_one() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        let named = target.join(machine());
        for dir in [&target, &named] {
            std::fs::create_dir_all(dir).unwrap();
            std::fs::write(dir.join("CACHEDIR.TAG"), "").unwrap();
        }
        for program in [target.join("debug/deps/a"), named.join("release/a")] {
            assert_eq!(built_in(&program), Some(target.clone()), "{}", program.display());
        }
        assert_eq!(built_in(Path::new("/bin/a")), None);
    }
}
