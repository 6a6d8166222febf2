//! The answers as files, one each: small enough to be written again whenever one changes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use manx_datastore::Only;
use manx_model::{Kind, Object};
use serde_json::{Value, json};

use super::memory::{Answer, Question, by_key};
use crate::identity::hash;

fn file_name((kind, only): &Question) -> String {
    match only {
        Only::All => format!("{}.json", kind.plural()),
        Only::Node(_) => format!("{}.node.json", kind.plural()),
        Only::Key(key) => format!("{}.{}.json", kind.plural(), hash(key.as_bytes())),
    }
}

/// Replaces the file of one answer.
pub(super) fn write(directory: &Path, question: &Question, answer: &Answer) -> io::Result<()> {
    replace(directory, question, answer, |_| Ok(()))
}

/// Replaces the file of one answer by one whose content survives a loss of power; [`settle`] is to follow.
pub(super) fn write_durably(directory: &Path, question: &Question, answer: &Answer) -> io::Result<()> {
    replace(directory, question, answer, fs::File::sync_all)
}

/// Waits until the disk has the names of all files.
pub(super) fn settle(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

fn replace(
    directory: &Path,
    question: &Question,
    answer: &Answer,
    finish: impl FnOnce(&fs::File) -> io::Result<()>,
) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let (kind, only) = question;
    let only = match only {
        Only::All => Value::Null,
        Only::Node(node) => json!({"node": node.as_str()}),
        Only::Key(key) => json!({"key": key}),
    };
    let objects = serde_json::to_string(&answer.values().collect::<Vec<_>>())?;
    let page = format!(r#"{{"kind":{},"only":{only},"objects":{objects}}}"#, json!(kind));
    let path = directory.join(file_name(question));
    let temporary = path.with_extension("tmp");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    io::Write::write_all(&mut file, page.as_bytes())?;
    finish(&file)?;
    fs::rename(temporary, path)
}

/// Removes the file of one answer.
pub(super) fn remove(directory: &Path, question: &Question) -> io::Result<()> {
    fs::remove_file(directory.join(file_name(question)))
}

/// Every answer that can be read. What cannot is not known, and asked for again.
pub(super) fn read_all(directory: &Path) -> io::Result<HashMap<Question, Answer>> {
    let mut known = HashMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            known.extend(fs::read(&path).ok().and_then(|bytes| read_answer(&bytes)));
        }
    }
    Ok(known)
}

fn read_answer(bytes: &[u8]) -> Option<(Question, Answer)> {
    let page: Value = serde_json::from_slice(bytes).ok()?;
    let kind: Kind = serde_json::from_value(page["kind"].clone()).ok()?;
    let only = match (page["only"]["node"].as_str(), page["only"]["key"].as_str()) {
        (Some(node), _) => Only::Node(node.parse().ok()?),
        (None, Some(key)) => Only::Key(key.to_owned()),
        (None, None) => Only::All,
    };
    let objects = page["objects"].as_array()?.iter();
    let objects: Option<Vec<Object>> =
        objects.map(|object| Object::from_value(kind, object.clone()).ok()).collect();
    Some(((kind, only), by_key(objects?)))
}
