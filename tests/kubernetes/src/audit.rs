//! What was asked of the API server, and by whom, from its audit log.
//!
//! The API server writes a line when a request comes in and before it does anything else, and another when the answer
//! is out. The first is what counts: whoever has an answer is in the log, and a watch is there as soon as it has begun.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

pub(crate) const POLICY_FILE: &str = "audit-policy.yaml";
pub(crate) const LOG_FILE: &str = "audit.log";
const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted]
rules: [{level: Metadata}]
";

/// The audit log of a control plane. It goes on over outages.
#[derive(Debug, Clone)]
pub struct Audit {
    log: PathBuf,
}

/// A moment, to count from.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asked: `admin`, the name of a token's user, or `system:…` for Kubernetes itself.
    pub user: String,
    /// The program that asked, as it calls itself: `kubectl/v1.35.4 (linux/amd64) …`.
    pub agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// What was asked for, as roles spell it: `ippools`, `nodes/status`; or a path, for instance `/readyz`.
    pub resource: String,
    /// The object's namespace; empty where there is none.
    pub namespace: String,
    /// The object's name; empty where many are meant, or where the server is to choose it.
    pub name: String,
    /// Path and query.
    pub uri: String,
    /// The status of the answer, once that is out: 409, say. A watch has one when it has ended.
    pub code: Option<u16>,
}

/// Requests, in the order in which they came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests(Vec<Request>);

impl Audit {
    pub(crate) fn write(dir: &Path) -> Result<Self> {
        let policy = dir.join(POLICY_FILE);
        std::fs::write(&policy, POLICY).with_context(|| format!("cannot write {}", policy.display()))?;
        Ok(Audit { log: dir.join(LOG_FILE) })
    }

    /// Now: every request that has been answered is before it.
    pub fn mark(&self) -> Result<Mark> {
        let metadata = self.log.metadata().with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(Mark(metadata.len()))
    }

    /// The requests that came in after `mark`, those of Kubernetes itself left out.
    pub fn since(&self, mark: Mark) -> Result<Requests> {
        let mut text = String::new();
        let mut log = File::open(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        log.seek(SeekFrom::Start(mark.0))?;
        log.read_to_string(&mut text)?;
        parse(&text).with_context(|| format!("{} is damaged", self.log.display()))
    }
}

impl Requests {
    /// Those that `condition` holds of.
    pub fn filter(&self, condition: impl Fn(&Request) -> bool) -> Requests {
        Requests(self.0.iter().filter(|request| condition(request)).cloned().collect())
    }

    /// Those of a user.
    pub fn by_user(&self, user: &str) -> Requests {
        self.filter(|request| request.user == user)
    }

    /// Those of a program whose user agent begins with `agent`.
    pub fn by_agent(&self, agent: &str) -> Requests {
        self.filter(|request| request.agent.starts_with(agent))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How many there are of a verb and a resource.
    pub fn count_of(&self, verb: &str, resource: &str) -> usize {
        self.filter(|request| request.verb == verb && request.resource == resource).count()
    }

    /// How many there are of each verb and resource.
    pub fn table(&self) -> BTreeMap<(&str, &str), usize> {
        let mut table = BTreeMap::new();
        for request in &self.0 {
            *table.entry((request.verb.as_str(), request.resource.as_str())).or_default() += 1;
        }
        table
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Request> {
        self.0.iter()
    }
}

/// The table, one line per verb and resource.
impl fmt::Display for Requests {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table()
            .iter()
            .try_for_each(|((verb, resource), count)| writeln!(out, "{count:6}  {verb:16} {resource}"))
    }
}

/// A line of the log (`Event` of group audit.k8s.io/v1), as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "auditID")]
    id: String,
    stage: String,
    #[serde(rename = "requestURI")]
    uri: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: Option<u16>,
}

/// The requests that come in within `text`; their answers may be in it or not.
fn parse(text: &str) -> Result<Requests> {
    let mut requests: Vec<Request> = Vec::new();
    let mut places = BTreeMap::new();
    // What follows the last line break is still being written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for text in whole.lines() {
        let line: Line = serde_json::from_str(text).with_context(|| format!("this line: {text}"))?;
        if line.stage == "RequestReceived" {
            places.insert(line.id.clone(), requests.len());
            requests.push(line.into());
        } else if let Some(&place) = places.get(&line.id) {
            requests[place].code = line.response_status.and_then(|status| status.code);
        }
    }
    requests.retain(|request| request.user != "system:apiserver");
    Ok(Requests(requests))
}

impl From<Line> for Request {
    fn from(line: Line) -> Self {
        let path = line.uri.split('?').next().unwrap_or_default().to_owned();
        let object = line.object_ref.unwrap_or_default();
        let resource = match (object.resource, object.subresource) {
            (resource, _) if resource.is_empty() => path,
            (resource, subresource) if subresource.is_empty() => resource,
            (resource, subresource) => format!("{resource}/{subresource}"),
        };
        Request {
            user: line.user.username,
            agent: line.user_agent,
            verb: line.verb,
            resource,
            namespace: object.namespace,
            name: object.name,
            uri: line.uri,
            code: None,
        }
    }
}

#[cfg(test)]
mod tests;
