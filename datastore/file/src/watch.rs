//! Seeing changes: inotify on the directory of each kind, by rustix, which is here anyway (`notify` and `inotify` bring
//! threads or a second buffer for what is one file descriptor and four kinds of event).
//!
//! inotify says where to look, never what is there: the file is read, and compared with what was told before. When
//! events were lost or a directory was replaced, everything is looked at. While the directory is not there its watches
//! are told that they are lost, and start over when it is back: an unmounted directory deletes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use manx_datastore::{Error, Event, EventSender, Only};
use manx_model::{Kind, Object};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use crate::directory::{Directory, Entry, is_manifest, object_key};
use crate::{blocking, settled};

/// How often a directory that has gone is looked for.
const RETRY: Duration = Duration::from_secs(1);

/// Somebody wants to watch a kind.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) kind: Kind,
    pub(crate) only: Only,
    pub(crate) sender: EventSender,
}

/// The task behind all watches of one store.
#[derive(Debug)]
pub(crate) struct Watcher {
    directory: Arc<Directory>,
    registrations: UnboundedReceiver<Registration>,
    watched: BTreeMap<Kind, Watched>,
    inotify: Option<Inotify>,
    /// Everybody has been told that the directory is not there.
    lost: bool,
}

/// Who watches a kind, and what they were told: the hash of each file.
#[derive(Debug, Default)]
struct Watched {
    readers: Vec<Reader>,
    told: BTreeMap<String, String>,
}

/// Somebody who watches, and what he knows of.
#[derive(Debug)]
struct Reader {
    only: Only,
    sender: EventSender,
    known: BTreeSet<String>,
}

#[derive(Debug)]
struct Inotify {
    descriptor: AsyncFd<OwnedFd>,
    kinds: HashMap<i32, Kind>,
}

/// Where to look.
#[derive(Debug, Default)]
struct Changes {
    /// By kind and file; `true` where the file was only created, so that its writer may have more to say.
    files: BTreeMap<(Kind, String), bool>,
    everything: bool,
}

impl Watcher {
    pub(crate) fn new(directory: Arc<Directory>, registrations: UnboundedReceiver<Registration>) -> Self {
        Self { directory, registrations, watched: BTreeMap::new(), inotify: None, lost: false }
    }

    /// Runs until the store and all of its streams are gone.
    pub(crate) async fn run(mut self) {
        loop {
            if self.inotify.is_none() {
                self.start_over().await;
            }
            let changes = tokio::select! {
                registration = self.registrations.recv() => match registration {
                    Some(registration) => {
                        self.register(registration).await;
                        continue;
                    }
                    None => return,
                },
                changes = next_changes(self.inotify.as_ref()) => changes,
            };
            // Without inotify there is nothing to compare with: all start over.
            if self.inotify.is_some() && self.look(changes).await.is_err() {
                self.inotify = None;
            }
        }
    }

    /// Watches the directories anew, and tells everybody everything. Without a directory everybody is told so.
    async fn start_over(&mut self) {
        match self.try_start_over().await {
            Ok(inotify) => {
                self.inotify = Some(inotify);
                self.lost = false;
            }
            Err(_) if self.lost => {}
            Err(error) => {
                self.lost = true;
                let lost = Event::Lost(error.to_string());
                self.watched.values_mut().for_each(|watched| {
                    watched.told.clear();
                    watched.readers.retain(|reader| reader.sender.send(lost.clone()));
                });
            }
        }
    }

    async fn try_start_over(&mut self) -> Result<Inotify, Error> {
        let inotify = self.listen().await?;
        for (kind, watched) in &mut self.watched {
            let entries = settled(&self.directory, *kind, None).await?;
            watched.told = entries.iter().map(|entry| (entry.file.clone(), entry.hash.clone())).collect();
            watched.readers.retain_mut(|reader| reader.tell_all(&entries));
        }
        Ok(inotify)
    }

    /// Listens to the directories anew, to their files where somebody watches the kind.
    async fn listen(&self) -> Result<Inotify, Error> {
        let directory = Arc::clone(&self.directory);
        let watched: Vec<Kind> = self.watched.keys().copied().collect();
        blocking(move || Inotify::new(&directory, &watched)).await?
    }

    async fn register(&mut self, Registration { kind, only, sender }: Registration) {
        let mut reader = Reader { only, sender, known: BTreeSet::new() };
        if let Some(inotify) = &mut self.inotify {
            let listed = match inotify.add(&self.directory, kind) {
                Ok(()) => settled(&self.directory, kind, None).await,
                Err(error) => Err(error),
            };
            match listed {
                Ok(entries) => {
                    let watched = self.watched.entry(kind).or_default();
                    watched.compare(&entries);
                    reader.tell_all(&entries);
                }
                Err(_) => self.inotify = None,
            }
        }
        // One that comes while the store is lost is told now, and one for whom it is lost, with all others.
        if self.lost {
            reader.sender.send(Event::Lost("the directory cannot be read at the moment".into()));
        }
        self.watched.entry(kind).or_default().readers.push(reader);
    }

    async fn look(&mut self, changes: Changes) -> Result<(), Error> {
        if changes.everything {
            self.inotify = Some(self.listen().await?);
            for (kind, watched) in &mut self.watched {
                watched.compare(&settled(&self.directory, *kind, None).await?);
            }
            return Ok(());
        }
        for ((kind, file), only_created) in changes.files {
            let Some(watched) = self.watched.get_mut(&kind) else { continue };
            let (directory, read) = (Arc::clone(&self.directory), file.clone());
            match blocking(move || directory.read(kind, &read)).await?? {
                Some(entry) if only_created && entry.object.is_err() => {}
                Some(entry) => watched.compare_one(&entry),
                None => watched.deleted(&file),
            }
        }
        Ok(())
    }
}

impl Watched {
    /// Tells what differs between all entries and what was told before.
    fn compare(&mut self, entries: &[Arc<Entry>]) {
        let files: BTreeSet<&str> = entries.iter().map(|entry| entry.file.as_str()).collect();
        let gone: Vec<String> =
            self.told.keys().filter(|file| !files.contains(file.as_str())).cloned().collect();
        gone.iter().for_each(|file| self.deleted(file));
        entries.iter().for_each(|entry| self.compare_one(entry));
    }

    fn compare_one(&mut self, entry: &Entry) {
        if self.told.get(&entry.file) != Some(&entry.hash) {
            self.told.insert(entry.file.clone(), entry.hash.clone());
            self.readers.retain_mut(|reader| reader.tell(entry));
        }
    }

    fn deleted(&mut self, file: &str) {
        if self.told.remove(file).is_some() {
            let key = object_key(file);
            self.readers.retain_mut(|reader| reader.deleted(&key));
        }
    }
}

/// Each answers `false` when the reader is gone.
impl Reader {
    fn tell_all(&mut self, entries: &[Arc<Entry>]) -> bool {
        self.known.clear();
        self.sender.send(Event::Init);
        for entry in entries {
            self.tell(entry);
        }
        self.sender.send(Event::InSync)
    }

    fn tell(&mut self, entry: &Entry) -> bool {
        let key = object_key(&entry.file);
        match entry.concerns(&self.only) {
            true => {
                self.known.insert(key);
                self.sender.send(event(entry))
            }
            false => self.deleted(&key),
        }
    }

    fn deleted(&mut self, key: &str) -> bool {
        match self.known.remove(key) {
            true => self.sender.send(Event::Deleted(key.to_owned())),
            false => !self.sender.is_closed(),
        }
    }
}

fn event(entry: &Entry) -> Event {
    match &entry.object {
        Ok(object) => Event::Object(Object::clone(object)),
        Err(invalid) => Event::Invalid(invalid.clone()),
    }
}

/// What inotify says next; without one, that it is time to try again.
async fn next_changes(inotify: Option<&Inotify>) -> Changes {
    let everything = Changes { everything: true, ..Changes::default() };
    let Some(inotify) = inotify else {
        sleep(RETRY).await;
        return everything;
    };
    loop {
        let Ok(mut ready) = inotify.descriptor.readable().await else { return everything };
        match ready.try_io(|descriptor| inotify.read(descriptor.get_ref())) {
            Ok(changes) => return changes.unwrap_or(everything),
            Err(_would_block) => {}
        }
    }
}

impl Inotify {
    /// Listens to the files of the kinds that are `watched`. Of other kinds nobody is to be woken, whatever we write; but
    /// their directories must not be missing.
    fn new(directory: &Directory, watched: &[Kind]) -> Result<Self, Error> {
        directory.make_kinds()?;
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        // The root itself: moved, deleted, or without its lock, it is no datastore any more.
        let root = itself() | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        inotify::add_watch(&descriptor, directory.root(), root).map_err(|error| failed(error.into()))?;
        for kind in Kind::ALL {
            inotify::add_watch(&descriptor, directory.path(kind), itself())
                .map_err(|error| failed(error.into()))?;
        }
        #[expect(
            deprecated,
            reason = "an OwnedFd is what the unsafe `register` asks for: one descriptor, open until dropped"
        )]
        let descriptor = AsyncFd::new(descriptor).map_err(failed)?;
        let mut listening = Self { descriptor, kinds: HashMap::new() };
        watched.iter().try_for_each(|kind| listening.add(directory, *kind))?;
        Ok(listening)
    }

    /// Listens to the files of one more kind.
    fn add(&mut self, directory: &Directory, kind: Kind) -> Result<(), Error> {
        let files = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE;
        // The directory has a watch already, which is given another mask.
        let watch = inotify::add_watch(self.descriptor.get_ref(), directory.path(kind), itself() | files);
        self.kinds.insert(watch.map_err(|error| failed(error.into()))?, kind);
        Ok(())
    }

    /// Reads all events that there are now.
    fn read(&self, descriptor: &OwnedFd) -> io::Result<Changes> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(descriptor, &mut buffer);
        let mut changes = Changes::default();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::WOULDBLOCK) if changes.is_empty() => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(changes),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let file = event.file_name().and_then(|name| name.to_str().ok());
            match (self.kinds.get(&event.wd()), file) {
                (Some(kind), Some(file)) => changes.note(*kind, file, event.events()),
                // Overflow, or about a directory itself.
                _ => changes.everything = true,
            }
            if reader.is_buffer_empty() {
                return Ok(changes);
            }
        }
    }
}

/// What becomes of a directory.
fn itself() -> WatchFlags {
    WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR
}

fn failed(error: io::Error) -> Error {
    Error::Unavailable(format!("inotify: {error} (limits: /proc/sys/fs/inotify, or fs.file-max)"))
}

impl Changes {
    fn note(&mut self, kind: Kind, file: &str, events: ReadFlags) {
        if is_manifest(file) {
            let only_created = self.files.entry((kind, file.to_owned())).or_insert(true);
            *only_created &= events == ReadFlags::CREATE;
        }
    }

    fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.everything
    }
}
