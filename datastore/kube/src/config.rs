//! Where the API server is and who we are: kubeconfig or service account. What goes wrong here is told without showing
//! what the files hold: their parsers quote what they could not read, and that may be a token.

use std::env;
use std::path::Path;

use http::HeaderValue;
use kube::client::AuthError;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Config, Error};
use secrecy::{ExposeSecret as _, SecretString};

/// The configuration, without a word to the API server.
///
/// # Errors
/// A sentence that says what is missing and where.
pub(crate) async fn load(kubeconfig: Option<&Path>) -> Result<Config, String> {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let (place, found) = if let Some(path) = kubeconfig {
        (path.display().to_string(), named(path).await)
    } else if !set("KUBECONFIG") && set("KUBERNETES_SERVICE_HOST") {
        return Config::incluster().map_err(|error| format!("the pod's service account: {error}"));
    } else {
        let found = Config::from_kubeconfig(&KubeConfigOptions::default()).await;
        ("the kubeconfig of $KUBECONFIG or ~/.kube/config".to_owned(), found)
    };
    let config = found.map_err(|error| format!("{place}: {}", problem(&error)))?;
    match token_can_be_sent(&config) {
        true => Ok(config),
        false => Err(format!("{place}: the token holds characters that no token has (a line break?)")),
    }
}

/// What makes the header of a token panics where it cannot.
fn token_can_be_sent(config: &Config) -> bool {
    let sendable = |token: &SecretString| HeaderValue::from_str(token.expose_secret()).is_ok();
    config.auth_info.token.as_ref().is_none_or(sendable)
}

async fn named(path: &Path) -> Result<Config, KubeconfigError> {
    let read = Kubeconfig::read_from(path)?;
    Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await
}

pub(crate) fn problem(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(_) => {
            "is no kubeconfig: not YAML, or a field is not what it should be (not quoted here, for it may be secret)"
                .to_owned()
        }
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        other => other.to_string(),
    }
}

/// What is wrong with the credentials. Of a program that makes them (exec) the output is left out.
pub(crate) fn auth_problem(error: &AuthError) -> String {
    let detail = match error {
        AuthError::ReadTokenFile(error, path) => format!("{}: {error}", path.display()),
        AuthError::AuthExecStart(error) => format!("the program that makes them does not start: {error}"),
        AuthError::AuthExecRun { cmd, out } => format!("{cmd} failed with {}", out.status),
        AuthError::AuthExecParse(_) => "what the program that makes them says cannot be read".to_owned(),
        AuthError::InvalidBearerToken(_) => "the token holds characters that no token has".to_owned(),
        AuthError::MissingCommand => "exec names no command".to_owned(),
        _ => "their kind is not supported, or they cannot be refreshed".to_owned(),
    };
    format!("no credentials: {detail}")
}

/// What is wrong with a client's configuration or its call, in one sentence without credentials.
pub(crate) fn client_problem(error: &Error) -> String {
    match error {
        Error::Auth(error) => auth_problem(error),
        Error::InferKubeconfig(error) => problem(error),
        other => chain(other),
    }
}

/// An error and what caused it; each says something of its own. Credentials that fail in between are told as such.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(auth) = error.downcast_ref::<AuthError>() {
            return auth_problem(auth);
        }
        // It only wraps.
        if let Some(Error::Service(inner)) = error.downcast_ref::<Error>() {
            next = Some(&**inner);
            continue;
        }
        let words = error.to_string();
        if !text.contains(&words) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{words}");
        }
        next = error.source();
    }
    text
}
