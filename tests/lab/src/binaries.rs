//! Where the binaries under test are, and what a whole Kubernetes is made of.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use manx_ground::{release_dir, target_dir};

/// The agent: `MANX_BIN`, otherwise the static one, as it is in the image, that `make build` leaves in
/// `target/x86_64-unknown-linux-gnu/release`.
pub fn manx_binary() -> Result<PathBuf> {
    named_or_built("MANX_BIN", "manx")
}

/// The CNI plugin: `MANX_CNI_BIN`, otherwise the one beside the agent.
pub fn cni_binary() -> Result<PathBuf> {
    named_or_built("MANX_CNI_BIN", "manx-cni")
}

/// The program `lab`, beside them.
pub fn lab_binary() -> Result<PathBuf> {
    built("lab")
}

/// The container image under test: `MANX_IMAGE`, otherwise what `make image` leaves in `target/image`.
pub fn manx_image() -> Result<PathBuf> {
    if let Some(named) = named_by("MANX_IMAGE") {
        return named;
    }
    let folder = target_dir().join("image");
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    // As Go, and so Kubernetes, names architectures.
    let machine = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let wanted = format!("-linux-{machine}.oci.tar");
    let mut images = entries.filter(|path| path.to_string_lossy().ends_with(&wanted));
    images.next().with_context(|| format!("there is no image in {}; run `make image`", folder.display()))
}

/// One of the programs of Kubernetes, for instance `kubelet`.
pub fn kubernetes_program(name: &str) -> Result<PathBuf> {
    let path = target_dir().join("kubernetes/bin").join(name);
    ensure!(path.is_file(), "{} is not built; run `tests/kubernetes/build {name}`", path.display());
    Ok(path)
}

/// One of the images that a cluster needs or its tests use, for instance `busybox`.
pub fn kubernetes_image(name: &str) -> Result<PathBuf> {
    let path = target_dir().join(format!("kubernetes/images/{name}.tar"));
    ensure!(path.is_file(), "{} is not made; run `tests/kubernetes/images/build {name}`", path.display());
    Ok(path)
}

fn named_or_built(variable: &str, name: &str) -> Result<PathBuf> {
    let built = || built(name).with_context(|| format!("{variable} names no other {name}"));
    named_by(variable).unwrap_or_else(built)
}

fn named_by(variable: &str) -> Option<Result<PathBuf>> {
    let path = std::env::var_os(variable).map(PathBuf::from)?;
    let there = path.is_file().then(|| path.clone());
    Some(there.with_context(|| format!("{variable}={}: there is no such file", path.display())))
}

fn built(name: &str) -> Result<PathBuf> {
    let path = release_dir().join(name);
    ensure!(path.is_file(), "{} is not built; run `make build`", path.display());
    Ok(path)
}
