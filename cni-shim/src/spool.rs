//! DELs that no agent took: one file each, in a directory that survives a reboot.
//!
//! The plugin answers such a DEL with success, since the runtime must be able to take the pod away, and leaves the
//! request here. The agent owes the rest, in this order:
//!
//! 1. At its start, before it serves the socket: [`drain`], carry out each request, then [`remove`] its file. A
//!    request that could not be carried out keeps its file for the next time.
//! 2. While it runs, the same from time to time: a plugin whose DEL timed out spools it though the agent lives.
//! 3. On ADD of a container: [`withdraw`] first. The runtime never runs two calls for one container at once
//!    (specification, section 3, "Lifecycle & Ordering"), so whatever lies here is older than the ADD and must not undo
//!    it. The plugin's ADD removes nothing.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::protocol::{MAX_FRAME, decode, encode};
use crate::{Container, Request};

/// Leaves the DEL of `container` in `directory`, which is made if it is missing. The file is complete and on the disk
/// when this returns; a repeated DEL replaces it.
pub fn store(directory: &Path, request: &Request, container: &Container) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let name = file_name(&request.network, container);
    // The id of the process keeps two plugins apart that spool the same DEL; the dot hides the file from `drain`.
    let temporary = directory.join(format!(".{}.{name}", std::process::id()));
    let text = encode(request).map_err(io::Error::other)?;
    let written = write(&temporary, &text).and_then(|()| fs::rename(&temporary, directory.join(name)));
    if written.is_err() {
        // What is left of it is of no use; that it cannot be removed either changes nothing for the caller.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(directory)?.sync_all()
}

/// Every request in `directory`, by file name. A missing directory is an empty one.
///
/// A file that cannot be understood is set aside under its name with `.bad` behind it, and reported once: path and
/// reason. Errors: the directory cannot be read.
pub fn drain(directory: &Path) -> io::Result<Vec<(PathBuf, Result<Request, String>)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| is_request(path));
    paths.sort();
    Ok(paths.into_iter().map(load).collect())
}

/// Removes the file of a request that was carried out. A missing file is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes the DEL of `container`, if there is one: an ADD has overtaken it.
pub fn withdraw(directory: &Path, network: &str, container: &Container) -> io::Result<()> {
    remove(&directory.join(file_name(network, container)))
}

/// `<network>@<container id>@<device>.json`: the key of an attachment. Neither of the first two may contain `@`, none
/// may contain `/`, and their limits keep the name below the 255 octets of a file name.
fn file_name(network: &str, container: &Container) -> String {
    format!("{network}@{}@{}.json", container.container_id, container.pod_device)
}

fn is_request(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".json") && !name.starts_with('.')
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn load(path: PathBuf) -> (PathBuf, Result<Request, String>) {
    match read(&path) {
        Ok(request) => (path, Ok(request)),
        Err(reason) => set_aside(path, reason),
    }
}

fn read(path: &Path) -> Result<Request, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FRAME as u64 {
        return Err(format!("it has {length} octets, more than the {MAX_FRAME} of a request"));
    }
    let text = fs::read(path).map_err(|error| error.to_string())?;
    decode(&text).map_err(|error| error.to_string())
}

fn set_aside(path: PathBuf, reason: String) -> (PathBuf, Result<Request, String>) {
    let mut aside = path.clone().into_os_string();
    aside.push(".bad");
    let aside = PathBuf::from(aside);
    match fs::rename(&path, &aside) {
        Ok(()) => (aside, Err(reason)),
        Err(error) => (path, Err(format!("{reason}; and it could not be set aside: {error}"))),
    }
}
