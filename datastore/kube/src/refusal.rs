//! What the API server says instead of doing what was asked: its Status objects, in the terms of the datastore trait.

use std::fmt;

use http::StatusCode;
use manx_datastore::Error;
use manx_model::{Kind, Object};
use serde::Deserialize;

use crate::call::Answer;

/// How much of a message is passed on, in bytes.
const LONGEST: usize = 2048;

/// Why the API server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such object (any more).
    NotFound,
    /// The namespace that the object should live in is not there.
    NoNamespace(String),
    /// There is one already.
    Exists,
    /// It has another version or another uid.
    Conflict,
    /// What a list or watch wants to continue is forgotten.
    Expired,
    /// The server cannot do what the request asks for.
    Unsupported(String),
    /// The object is not as it must be: the field, and why.
    Invalid(String, String),
    /// Everything else: a sentence.
    Unavailable(String),
}

/// Kubernetes' `Status`, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    kind: String,
    message: String,
    reason: String,
    code: u16,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    kind: String,
    causes: Vec<Cause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    field: String,
    message: String,
}

impl Refusal {
    /// Reads an answer whose status code is none of success.
    pub(crate) fn read(kind: Kind, answer: &Answer) -> Self {
        let status = serde_json::from_slice::<Status>(&answer.body).ok().filter(|read| read.kind == "Status");
        match status {
            Some(status) => Self::of(kind, answer.status, status),
            None => Self::unexplained(kind, answer.status),
        }
    }

    /// Reads the Status that ends a watch.
    pub(crate) fn in_watch(kind: Kind, status: Status) -> Self {
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::of(kind, code, status)
    }

    fn of(kind: Kind, code: StatusCode, status: Status) -> Self {
        let Status { message, reason, details, .. } = status;
        let details = details.unwrap_or_default();
        match code {
            // Without an object's kind it is about the path: there is no such resource.
            StatusCode::NOT_FOUND if details.kind.is_empty() => Self::unexplained(kind, code),
            StatusCode::NOT_FOUND if details.kind == "namespaces" && kind != Kind::Namespace => {
                Self::NoNamespace(shortened(message))
            }
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::CONFLICT if reason == "AlreadyExists" => Self::Exists,
            StatusCode::CONFLICT => Self::Conflict,
            StatusCode::GONE => Self::Expired,
            // How a server refuses parameters of a list or watch that it does not know.
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST if details.kind == "ListOptions" => {
                Self::Unsupported(shortened(message))
            }
            StatusCode::UNPROCESSABLE_ENTITY => invalid(message, details.causes),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                Self::Invalid("the object".into(), shortened(message))
            }
            StatusCode::FORBIDDEN => Self::Unavailable(format!(
                "the API server does not allow it (403), a right (RBAC) is missing: {}",
                shortened(message)
            )),
            StatusCode::UNAUTHORIZED => Self::unexplained(kind, code),
            code => Self::Unavailable(format!("{} ({}): {}", why(code), code.as_u16(), shortened(message))),
        }
    }

    /// What a status code alone says.
    fn unexplained(kind: Kind, code: StatusCode) -> Self {
        Self::Unavailable(match code {
            StatusCode::NOT_FOUND if kind.is_calicos() => {
                format!("the CustomResourceDefinition {}.{} is not installed", kind.plural(), kind.group())
            }
            StatusCode::NOT_FOUND => {
                format!("the API server does not know {} of {}", kind.plural(), kind.api_version())
            }
            StatusCode::UNAUTHORIZED => {
                "the API server does not know who asks (401): the token or the client \
                 certificate is missing, expired or wrong"
                    .to_owned()
            }
            code => format!("{} ({})", why(code), code.as_u16()),
        })
    }

    /// As an error of a call that was about `object`.
    pub(crate) fn about(self, object: &Object) -> Error {
        match self {
            Self::NotFound => Error::gone(object),
            Self::Exists => Error::exists(object),
            Self::Conflict => Error::conflict(object),
            Self::NoNamespace(message) => Error::Invalid(object.invalid("metadata.namespace", message)),
            Self::Invalid(field, reason) => Error::Invalid(object.invalid(field, reason)),
            Self::Expired | Self::Unsupported(_) | Self::Unavailable(_) => {
                Error::Unavailable(self.to_string())
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such object"),
            Self::Exists => f.write_str("there is one already"),
            Self::Conflict => f.write_str("it was changed by another writer"),
            Self::Expired => f.write_str("what was to be continued is forgotten (410)"),
            Self::Invalid(field, reason) => write!(f, "{field}: {reason}"),
            Self::NoNamespace(message) | Self::Unsupported(message) | Self::Unavailable(message) => {
                f.write_str(message)
            }
        }
    }
}

/// All causes in one sentence; the field is that of the first. One without a field says that rules were not looked at
/// because of the others, which helps nobody.
fn invalid(message: String, mut causes: Vec<Cause>) -> Refusal {
    causes.retain(|cause| cause.field != "<nil>");
    let Some(first) = causes.first().filter(|cause| !cause.field.is_empty()) else {
        return Refusal::Invalid("the object".into(), shortened(message));
    };
    let mut reason = first.message.clone();
    for cause in &causes[1..] {
        reason = format!("{reason}; {}: {}", cause.field, cause.message);
    }
    Refusal::Invalid(first.field.clone(), shortened(reason))
}

fn why(code: StatusCode) -> &'static str {
    match code {
        StatusCode::TOO_MANY_REQUESTS => "the API server is overloaded",
        StatusCode::SERVICE_UNAVAILABLE => "the API server is not ready",
        StatusCode::GATEWAY_TIMEOUT => "the API server was too slow",
        code if code.is_server_error() => "the API server failed",
        _ => "the API server refuses",
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
        message.push('…');
    }
    message
}
