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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Settings};

    /// A directory that goes with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("manx-spool-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn container(id: &str) -> Container {
        Container { container_id: id.to_owned(), pod_device: "eth0".to_owned(), ..Container::default() }
    }

    fn del(id: &str) -> Request {
        Request {
            network: "net".to_owned(),
            command: Command::Del(container(id)),
            settings: Settings::default(),
        }
    }

    fn stored(directory: &Path) -> Vec<Request> {
        drain(directory).unwrap().into_iter().map(|(_, request)| request.unwrap()).collect()
    }

    #[test]
    fn a_del_is_found_again_until_it_is_removed() {
        let scratch = Scratch::new("found");
        assert_eq!(stored(&scratch.0), []);
        store(&scratch.0, &del("b"), &container("b")).unwrap();
        store(&scratch.0, &del("a"), &container("a")).unwrap();
        assert_eq!(stored(&scratch.0), [del("a"), del("b")]);
        for (path, _) in drain(&scratch.0).unwrap() {
            remove(&path).unwrap();
            remove(&path).unwrap();
        }
        assert_eq!(stored(&scratch.0), []);
    }

    #[test]
    fn a_repeated_del_is_one_file_and_leaves_nothing_else() {
        let scratch = Scratch::new("repeated");
        store(&scratch.0, &del("a"), &container("a")).unwrap();
        store(&scratch.0, &del("a"), &container("a")).unwrap();
        let files: Vec<_> =
            fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["net@a@eth0.json"]);
    }

    #[test]
    fn an_add_withdraws_the_del_of_its_own_container_only() {
        let scratch = Scratch::new("withdraw");
        for id in ["a", "b"] {
            store(&scratch.0, &del(id), &container(id)).unwrap();
        }
        withdraw(&scratch.0, "net", &container("a")).unwrap();
        withdraw(&scratch.0, "net", &container("never")).unwrap();
        assert_eq!(stored(&scratch.0), [del("b")]);
    }

    #[test]
    fn a_damaged_file_is_set_aside_once_and_stops_nobody() {
        let scratch = Scratch::new("damaged");
        store(&scratch.0, &del("b"), &container("b")).unwrap();
        fs::write(scratch.0.join("a.json"), b"{\"protocol\":1,").unwrap();
        fs::write(scratch.0.join(".77.c.json"), b"half a f").unwrap();
        let found = drain(&scratch.0).unwrap();
        assert_eq!(found[0].0, scratch.0.join("a.json.bad"));
        assert!(found[0].1.as_ref().unwrap_err().contains("cannot be understood"));
        assert_eq!(found[1].1, Ok(del("b")));
        assert_eq!(stored(&scratch.0), [del("b")]);
    }

    #[test]
    fn the_longest_names_fit_a_file_name() {
        let scratch = Scratch::new("longest");
        let longest = Container {
            container_id: "c".repeat(crate::environment::MAX_CONTAINER_ID),
            pod_device: "d".repeat(15),
            ..container("")
        };
        let network = "n".repeat(crate::config::MAX_NAME);
        let request =
            Request { network, command: Command::Del(longest.clone()), settings: Settings::default() };
        store(&scratch.0, &request, &longest).unwrap();
        assert_eq!(stored(&scratch.0), [request]);
    }
}
