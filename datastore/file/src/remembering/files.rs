//! The answers as files: small enough to be written again whenever one changes.
//!
//! Each answer has two files, written by turns: whatever happens to a write, the one before it is whole. Each begins with a
//! hash of the rest, so that half a write is known. Making a file for each write and renaming it, the usual way to the same
//! end, costs a file system more than the write.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use manx_datastore::Only;
use manx_model::{Kind, Object};
use serde_json::{Value, json};

use super::memory::{Answer, Question, by_key};
use crate::identity::hash;

/// The folder of the answers.
pub(super) struct Files {
    directory: PathBuf,
    /// Which write of an answer was the last one.
    turns: HashMap<Question, u64>,
}

impl Files {
    /// The files in `directory`, which is created, and every answer in them that can be read. What cannot is not known, and
    /// asked for again.
    pub(super) fn open(directory: PathBuf) -> io::Result<(Self, HashMap<Question, Answer>)> {
        fs::create_dir_all(&directory)?;
        let mut newest: HashMap<Question, (u64, Answer)> = HashMap::new();
        for entry in fs::read_dir(&directory)? {
            let page = fs::read(entry?.path()).ok().and_then(|bytes| read(&bytes));
            let Some((turn, question, answer)) = page else { continue };
            if newest.get(&question).is_none_or(|(known, _)| *known < turn) {
                newest.insert(question, (turn, answer));
            }
        }
        let turns = newest.iter().map(|(question, (turn, _))| (question.clone(), *turn)).collect();
        let known = newest.into_iter().map(|(question, (_, answer))| (question, answer)).collect();
        Ok((Self { directory, turns }, known))
    }

    /// Writes one answer.
    pub(super) fn write(&mut self, question: &Question, answer: &Answer) -> io::Result<()> {
        self.take_turn(question, answer).map(drop)
    }

    /// Writes one answer so that it survives a loss of power; [`Self::settle`] is to follow.
    pub(super) fn write_durably(&mut self, question: &Question, answer: &Answer) -> io::Result<()> {
        self.take_turn(question, answer)?.sync_all()
    }

    fn take_turn(&mut self, question: &Question, answer: &Answer) -> io::Result<File> {
        let turn = self.turns.get(question).map_or(0, |last| last + 1);
        let page = page(turn, question, answer)?;
        let path = self.directory.join(file_name(question, turn));
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.write_all_at(page.as_bytes(), 0)?;
        file.set_len(page.len() as u64)?;
        self.turns.insert(question.clone(), turn);
        Ok(file)
    }

    /// Removes the files of one answer.
    pub(super) fn remove(&mut self, question: &Question) -> io::Result<()> {
        let Some(last) = self.turns.get(question).copied() else { return Ok(()) };
        // The older one first: it must not be what is left.
        for turn in [last + 1, last] {
            match fs::remove_file(self.directory.join(file_name(question, turn))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.turns.remove(question);
        Ok(())
    }

    /// Waits until the disk has the names of all files.
    pub(super) fn settle(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

fn file_name((kind, only): &Question, turn: u64) -> String {
    let (kind, turn) = (kind.plural(), turn % 2);
    match only {
        Only::All => format!("{kind}.{turn}.json"),
        Only::Node(_) => format!("{kind}.node.{turn}.json"),
        Only::Key(key) => format!("{kind}.{}.{turn}.json", hash(key.as_bytes())),
    }
}

fn page(turn: u64, (kind, only): &Question, answer: &Answer) -> io::Result<String> {
    let only = match only {
        Only::All => Value::Null,
        Only::Node(node) => json!({"node": node.as_str()}),
        Only::Key(key) => json!({"key": key}),
    };
    let objects = serde_json::to_string(&answer.values().collect::<Vec<_>>())?;
    let page = format!(r#"{{"turn":{turn},"kind":{},"only":{only},"objects":{objects}}}"#, json!(kind));
    Ok(format!("{}\n{page}\n", hash(page.as_bytes())))
}

fn read(bytes: &[u8]) -> Option<(u64, Question, Answer)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (known, page) = text.strip_suffix('\n')?.split_once('\n')?;
    if hash(page.as_bytes()) != known {
        return None;
    }
    let page: Value = serde_json::from_str(page).ok()?;
    let turn = page["turn"].as_u64()?;
    let kind: Kind = serde_json::from_value(page["kind"].clone()).ok()?;
    let only = match (page["only"]["node"].as_str(), page["only"]["key"].as_str()) {
        (Some(node), _) => Only::Node(node.parse().ok()?),
        (None, Some(key)) => Only::Key(key.to_owned()),
        (None, None) => Only::All,
    };
    let objects = page["objects"].as_array()?.iter();
    let objects: Option<Vec<Object>> =
        objects.map(|object| Object::from_value(kind, object.clone()).ok()).collect();
    Some((turn, (kind, only), by_key(objects?)))
}
