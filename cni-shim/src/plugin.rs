//! One call of the plugin, from the environment and stdin to the answer.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use manx_cni::client::{NoAnswer, ask};
use manx_cni::config::{invalid, settings, valid_attachments, wishes};
use manx_cni::environment::Environment;
use manx_cni::previous::{Previous, convert};
use manx_cni::protocol::MAX_FRAME;
use manx_cni::{
    CniError, CniVersion, Code, Command, Conf, Container, Reply, Request, Settings, Verb, result, spool,
};
use serde_json::{Value, json};

use crate::netns;

/// Why a call failed, and the version in which the caller wants to read it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) version: CniVersion,
    pub(crate) error: CniError,
}

/// Carries one call out. The answer, if there is one, is what belongs on stdout.
pub(crate) fn run(environment: &Environment<'_>, stdin: &mut dyn Read) -> Result<Option<Value>, Failure> {
    let early = |error| Failure { version: CniVersion::LATEST, error };
    let verb = verb(environment).map_err(early)?;
    if verb == Verb::Version {
        return Ok(Some(versions(stdin)));
    }
    let config = read(stdin).and_then(|text| Conf::decode(&text)).map_err(early)?;
    let version = Conf::version(&config).map_err(early)?;
    let late = |error| Failure { version, error };
    verb.exists_in(version).map_err(late)?;
    Call::new(verb, environment, &config).and_then(Call::answer).map_err(late)
}

fn verb(environment: &Environment<'_>) -> Result<Verb, CniError> {
    environment.verb()?.ok_or_else(|| {
        let verbs = Verb::ALL.map(Verb::as_str).join(", ");
        CniError::new(
            Code::ENVIRONMENT,
            "CNI_COMMAND is missing",
            format!("the runtime must set it: {verbs}"),
        )
    })
}

/// The answer to VERSION. It repeats the caller's `cniVersion`, whatever that is: this is how a caller finds out.
fn versions(stdin: &mut dyn Read) -> Value {
    let asked: Option<Value> = read(stdin).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let asked = asked.as_ref().and_then(|conf| conf.get("cniVersion")).and_then(Value::as_str);
    json!({
        "cniVersion": asked.unwrap_or(CniVersion::LATEST.as_str()),
        "supportedVersions": CniVersion::ALL.map(CniVersion::as_str),
    })
}

fn read(stdin: &mut dyn Read) -> Result<Vec<u8>, CniError> {
    let mut text = Vec::new();
    let read = stdin.take(MAX_FRAME as u64 + 1).read_to_end(&mut text);
    read.map_err(|error| CniError::new(Code::IO, "stdin cannot be read", error.to_string()))?;
    if text.len() > MAX_FRAME {
        return Err(too_long());
    }
    Ok(text)
}

fn too_long() -> CniError {
    CniError::new(
        Code::CONFIG,
        "the network configuration is too long",
        format!(
            "the configuration and what belongs to the call may have {MAX_FRAME} octets of JSON together"
        ),
    )
}

/// A call that was understood, ready to be sent.
struct Call {
    verb: Verb,
    conf: Conf,
    request: Request,
    netns: Option<OwnedFd>,
    /// The result of the plugins before us, in the caller's version.
    before: Option<Value>,
}

impl Call {
    fn new(verb: Verb, environment: &Environment<'_>, config: &Value) -> Result<Self, CniError> {
        let conf = Conf::from_value(config)?;
        let command = command(verb, environment, config)?;
        let (netns, before) = match command.container() {
            Some(container) => (netns::open(verb, container)?, before(verb, &conf, config, container)?),
            None => (None, None),
        };
        let settings = match verb {
            Verb::Add | Verb::Check | Verb::Status => settings(config)?,
            Verb::Del | Verb::Gc | Verb::Version => Settings::default(),
        };
        let request = Request { network: conf.name.clone(), command, settings };
        Ok(Self { verb, conf, request, netns, before })
    }

    fn answer(self) -> Result<Option<Value>, CniError> {
        let netns = self.netns.as_ref().map(AsFd::as_fd);
        match (ask(&self.conf.socket, &self.request, netns, self.timeout()), &self.request.command) {
            (Ok(Reply::Attached(attached)), Command::Add(container)) => {
                let sandbox = container.netns.as_deref().unwrap_or_default();
                Ok(Some(result::render(self.conf.version, &attached, sandbox, self.before)))
            }
            (
                Ok(Reply::Done),
                Command::Check { .. } | Command::Del(_) | Command::Gc { .. } | Command::Status,
            ) => Ok(None),
            (Ok(Reply::Error(error)), _) => Err(error),
            (Ok(reply), _) => {
                Err(self.misunderstood(format!("{} was answered with {reply:?}", self.verb.as_str())))
            }
            (Err(NoAnswer::TooLong), _) => Err(too_long()),
            (Err(NoAnswer::Garbled(error)), _) => Err(self.misunderstood(error.to_string())),
            (Err(NoAnswer::Away(reason)), Command::Del(container)) => self.spool(container, &reason),
            (Err(NoAnswer::Away(reason)), Command::Status) => Err(self.away(Code::NOT_AVAILABLE, &reason)),
            (Err(NoAnswer::Away(reason)), _) => Err(self.away(Code::TRY_AGAIN_LATER, &reason)),
        }
    }

    fn timeout(&self) -> Duration {
        let default = if self.verb == Verb::Add { 90 } else { 60 };
        self.conf.timeout.unwrap_or(Duration::from_secs(default))
    }

    /// The pod may go though the agent is away: the agent finds the DEL when it is back.
    fn spool(&self, container: &Container, reason: &str) -> Result<Option<Value>, CniError> {
        spool::store(&self.conf.spool, &self.request, container).map(|()| None).map_err(|error| {
            let mut away = self.away(Code::TRY_AGAIN_LATER, reason);
            let spool = self.conf.spool.display();
            away.details.push_str(&format!(" The DEL could not be left in {spool} either: {error}."));
            away
        })
    }

    fn away(&self, code: Code, reason: &str) -> CniError {
        let socket = self.conf.socket.display();
        CniError::new(
            code,
            "the manx agent does not answer",
            format!(
                "{socket}: {reason}. Is the manx agent running on this node? Its log says more; if it listens \
                 elsewhere, name its socket in the CNI configuration (\"socket\")."
            ),
        )
    }

    fn misunderstood(&self, what: String) -> CniError {
        let socket = self.conf.socket.display();
        CniError::new(
            Code::PROTOCOL,
            "the CNI plugin and the agent do not understand each other",
            format!(
                "{socket}: {what}. Is it the socket of a manx agent, of the same release as this plugin?"
            ),
        )
    }
}

fn command(verb: Verb, environment: &Environment<'_>, config: &Value) -> Result<Command, CniError> {
    Ok(match verb {
        Verb::Add => {
            let mut container = environment.container(verb)?;
            container.wishes = wishes(config)?.or(container.wishes);
            Command::Add(container)
        }
        Verb::Check => {
            let container = environment.container(verb)?;
            let previous = previous(config, &container)?;
            Command::Check { container, previous }
        }
        Verb::Del => Command::Del(environment.container(verb)?),
        Verb::Gc => Command::Gc { valid: valid_attachments(config)? },
        Verb::Status | Verb::Version => Command::Status,
    })
}

/// What CHECK compares with. DEL is given the same and does not look: it takes away whatever is there.
fn previous(config: &Value, container: &Container) -> Result<Previous, CniError> {
    let Some(result) = prev_result(config) else {
        return Err(invalid("CHECK needs prevResult: what ADD reported".to_owned()));
    };
    Previous::read(result, &container.pod_device).map_err(invalid)
}

/// What ADD puts its own result after: mostly nothing, since the pod's device comes first.
fn before(verb: Verb, conf: &Conf, config: &Value, container: &Container) -> Result<Option<Value>, CniError> {
    let result = prev_result(config).filter(|_| verb == Verb::Add);
    result.map(|result| convert(result, conf.version, &container.pod_device).map_err(invalid)).transpose()
}

fn prev_result(config: &Value) -> Option<&Value> {
    config.get("prevResult").filter(|result| !result.is_null())
}
