//! Lists, page by page.

use futures::future::try_join;
use manx_datastore::{Error, Listed, Only};
use manx_model::{Kind, Object};
use serde::Deserialize;
use serde_json::Value;

use crate::connection::Connection;
use crate::decode::{self, Whole};
use crate::refusal::Refusal;
use crate::request::Call;
use crate::selection::{Selection, is_coarse};

/// Objects of one page; client-go asks for as many.
const PAGE: &str = "500";

/// A whole list, and the version from which a watch goes on.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) rows: Vec<Listed>,
    pub(crate) version: String,
}

#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    // Go writes an empty list as null.
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

/// [`manx_datastore::Datastore::list`]: one request for each page, and for a node's BlockAffinities as many again for
/// those that nobody has labelled yet.
pub(crate) async fn list(connection: &Connection, kind: Kind, only: &Only) -> Result<Vec<Listed>, Error> {
    let Some(selection) = Selection::new(kind, only) else { return Ok(Vec::new()) };
    let mut rows = match (kind, only) {
        (Kind::BlockAffinity, Only::Node(_)) => {
            let unlabelled = Selection::unlabelled();
            let labelled = pages(connection, kind, &selection, Whole::Whole);
            let (mut labelled, rest) =
                try_join(labelled, pages(connection, kind, &unlabelled, Whole::Whole)).await?;
            labelled.rows.extend(rest.rows);
            labelled.rows
        }
        _ => pages(connection, kind, &selection, Whole::Whole).await?.rows,
    };
    if is_coarse(kind, only) {
        rows.retain(|row| row.as_ref().map_or(true, |object| only.selects(object)));
    }
    rows.sort_by_cached_key(key);
    rows.dedup_by(|a, b| key(a) == key(b));
    Ok(rows)
}

fn key(row: &Listed) -> String {
    row.as_ref().map_or_else(|invalid| invalid.name.clone(), Object::key)
}

/// All pages of what `selection` selects. When the server forgets in between where we were, the list starts over once,
/// as one page.
pub(crate) async fn pages(
    connection: &Connection,
    kind: Kind,
    selection: &Selection,
    whole: Whole,
) -> Result<List, Error> {
    let mut call = selection.narrow(Call::list(selection.path(kind)));
    if whole == Whole::Used && kind == Kind::Node {
        call = call.metadata_only();
    }
    match follow(connection, kind, &call.clone().with("limit", PAGE), whole).await {
        Err(Trouble::Expired) => follow(connection, kind, &call, whole).await.map_err(Trouble::into_error),
        other => other.map_err(Trouble::into_error),
    }
}

enum Trouble {
    Expired,
    Other(Error),
}

impl Trouble {
    fn into_error(self) -> Error {
        match self {
            Self::Expired => Error::Unavailable(Refusal::Expired.to_string()),
            Self::Other(error) => error,
        }
    }
}

async fn follow(connection: &Connection, kind: Kind, call: &Call, whole: Whole) -> Result<List, Trouble> {
    let mut rows = Vec::new();
    let mut next = call.clone();
    loop {
        let answer = connection.call(Some(kind), &next).await.map_err(Trouble::Other)?;
        if !answer.status.is_success() {
            return Err(match Refusal::read(kind, &answer) {
                Refusal::Expired => Trouble::Expired,
                refusal => Trouble::Other(Error::Unavailable(refusal.to_string())),
            });
        }
        let page: Page = serde_json::from_slice(&answer.body).map_err(|error| {
            let place = decode::place(&error);
            Trouble::Other(Error::Unavailable(format!("the answer is no list of {kind}s: {place}")))
        })?;
        rows.extend(page.items.unwrap_or_default().into_iter().map(|item| decode::object(kind, item, whole)));
        if page.metadata.r#continue.is_empty() {
            return Ok(List { rows, version: page.metadata.resource_version });
        }
        next = call.clone().with("continue", page.metadata.r#continue);
    }
}
