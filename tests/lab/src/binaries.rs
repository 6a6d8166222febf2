//! Where the two binaries under test are.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::target_dir;

/// The agent: `MANX_BIN`, otherwise `target/release/manx`.
pub fn manx_binary() -> Result<PathBuf> {
    find("MANX_BIN", "release/manx")
}

/// The CNI plugin: `MANX_CNI_BIN`, otherwise the static one that `make build` leaves in
/// `target/x86_64-unknown-linux-gnu/release`.
pub fn cni_binary() -> Result<PathBuf> {
    find("MANX_CNI_BIN", &format!("{}-unknown-linux-gnu/release/manx-cni", std::env::consts::ARCH))
}

fn find(variable: &str, below_target: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
        ensure!(path.is_file(), "{variable}={}: there is no such file", path.display());
        return Ok(path);
    }
    let path = target_dir().join(below_target);
    ensure!(path.is_file(), "{} is not built; run `make build`, or set {variable}", path.display());
    Ok(path)
}
