//! The parameters that the runtime passes in the plugin's environment (CNI specification, section 2, "Parameters").

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::config::{address, is_identifier};
use crate::protocol::Pod;
use crate::settings::Wishes;
use crate::{CniError, CniVersion, Code, Container, Mac};

/// The longest `CNI_CONTAINERID`: see [`crate::config::MAX_NAME`].
pub const MAX_CONTAINER_ID: usize = 128;

/// The longest name of a network device: `IFNAMSIZ` less its closing zero.
const MAX_DEVICE: usize = 15;

/// What the runtime asks for: `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Connect a container.
    Add,
    /// Check a container.
    Check,
    /// Disconnect a container.
    Del,
    /// Release what belongs to no valid attachment.
    Gc,
    /// Can an ADD be served?
    Status,
    /// Which versions of the specification are spoken?
    Version,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 6] = [Self::Add, Self::Check, Self::Del, Self::Gc, Self::Status, Self::Version];

    /// The verb as `CNI_COMMAND` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The version of the specification that brought the verb.
    pub fn since(self) -> CniVersion {
        match self {
            Self::Add | Self::Del | Self::Version => CniVersion::V0_3_1,
            Self::Check => CniVersion::V0_4_0,
            Self::Gc | Self::Status => CniVersion::V1_1_0,
        }
    }

    /// Errors: [`Code::INCOMPATIBLE_VERSION`] if a configuration of `version` has no such verb.
    pub fn exists_in(self, version: CniVersion) -> Result<(), CniError> {
        if version >= self.since() {
            return Ok(());
        }
        Err(CniError::new(
            Code::INCOMPATIBLE_VERSION,
            "incompatible CNI version",
            format!(
                "cniVersion {version} does not have {}, which began with {}",
                self.as_str(),
                self.since()
            ),
        ))
    }
}

/// The environment, looked up by name, so that a test brings its own.
pub struct Environment<'a>(pub &'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// `CNI_COMMAND`; `None` if there is none, as when a person runs the plugin by hand.
    pub fn verb(&self) -> Result<Option<Verb>, CniError> {
        let Some(text) = self.text("CNI_COMMAND")? else { return Ok(None) };
        let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == text);
        verb.map(Some).ok_or_else(|| {
            let verbs = Verb::ALL.map(Verb::as_str).join(", ");
            invalid("CNI_COMMAND", format!("{text:?} is none of {verbs}"))
        })
    }

    /// The container of ADD, CHECK or DEL. `CNI_NETNS` may be missing for DEL: the namespace may be gone.
    pub fn container(&self, verb: Verb) -> Result<Container, CniError> {
        let netns = self.text("CNI_NETNS")?;
        if netns.is_none() && verb != Verb::Del {
            return Err(missing("CNI_NETNS", "the path of the container's network namespace"));
        }
        let mut args = arguments(&self.text("CNI_ARGS")?.unwrap_or_default())?;
        let pod = pod(&mut args)?;
        // A DEL must not fail for what only an ADD needs.
        let wishes = if verb == Verb::Add { wishes(&mut args)? } else { Wishes::default() };
        let (container_id, pod_device) = (self.container_id()?, self.pod_device()?);
        Ok(Container { container_id, pod_device, netns, pod, wishes, args })
    }

    fn container_id(&self) -> Result<String, CniError> {
        let id = self.required("CNI_CONTAINERID", "the container's id")?;
        if id.len() > MAX_CONTAINER_ID || !is_identifier(&id) {
            return Err(invalid(
                "CNI_CONTAINERID",
                format!(
                    "{id:?} must begin with a letter or digit, go on with letters, digits, '_', '.' or '-', and have at \
                     most {MAX_CONTAINER_ID} of them"
                ),
            ));
        }
        Ok(id)
    }

    fn pod_device(&self) -> Result<String, CniError> {
        let device = self.required("CNI_IFNAME", "the name of the device inside the container")?;
        let forbidden = |letter: char| letter == '/' || letter == ':' || letter.is_whitespace();
        if device.len() > MAX_DEVICE || device == "." || device == ".." || device.contains(forbidden) {
            return Err(invalid(
                "CNI_IFNAME",
                format!(
                    "{device:?} is no name of a device: at most {MAX_DEVICE} octets, no '/', ':' or white space, and \
                     not \".\" or \"..\""
                ),
            ));
        }
        Ok(device)
    }

    fn required(&self, name: &str, meaning: &str) -> Result<String, CniError> {
        self.text(name)?.ok_or_else(|| missing(name, meaning))
    }

    /// A variable; an empty one counts as missing, as in the specification's own library.
    fn text(&self, name: &str) -> Result<Option<String>, CniError> {
        match (self.0)(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(Err(octets)) => Err(invalid(name, format!("{octets:?} is no UTF-8"))),
        }
    }
}

/// `CNI_ARGS`: `KEY=VALUE` pairs joined by `;`. Empty pairs are skipped. Keys that we do not know are kept and not
/// refused, whether or not `IgnoreUnknown` is among them: they are the runtime's, and no operator could change them.
fn arguments(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(invalid("CNI_ARGS", format!("{pair:?} is not KEY=VALUE"))),
        })
        .collect()
}

/// Takes the pod out of the arguments. A name without a namespace, or the reverse, is an error: it would give the pod's
/// device and address to a pod that does not exist.
fn pod(args: &mut BTreeMap<String, String>) -> Result<Option<Pod>, CniError> {
    let mut take = |key: &str| args.remove(key).filter(|value| !value.is_empty());
    let (namespace, name) = (take("K8S_POD_NAMESPACE"), take("K8S_POD_NAME"));
    let (infra_container_id, uid) = (take("K8S_POD_INFRA_CONTAINER_ID"), take("K8S_POD_UID"));
    match (namespace, name) {
        (Some(namespace), Some(name)) => Ok(Some(Pod { namespace, name, infra_container_id, uid })),
        (None, None) => Ok(None),
        _ => {
            Err(invalid("CNI_ARGS", "K8S_POD_NAMESPACE and K8S_POD_NAME only make sense together".to_owned()))
        }
    }
}

/// Takes `IP` (one address, or several joined by `,`; a prefix length says nothing) and `MAC` out of the arguments.
fn wishes(args: &mut BTreeMap<String, String>) -> Result<Wishes, CniError> {
    let mut take = |key: &str| args.remove(key).filter(|value| !value.is_empty());
    let wrong =
        |key: &str, value: &str, kind: &str| invalid("CNI_ARGS", format!("{key}={value}: this is no {kind}"));
    let addresses = take("IP").unwrap_or_default();
    let addresses = addresses.split(',').filter(|text| !text.is_empty());
    let addresses = addresses.map(|text| address(text).ok_or_else(|| wrong("IP", text, "address")));
    let mac = |text: String| Mac::try_from(text.clone()).map_err(|_| wrong("MAC", &text, "MAC address"));
    Ok(Wishes {
        addresses: addresses.collect::<Result<_, _>>()?,
        mac: take("MAC").map(mac).transpose()?,
        bandwidth: None,
    })
}

fn missing(name: &str, meaning: &str) -> CniError {
    CniError::new(
        Code::ENVIRONMENT,
        format!("{name} is missing"),
        format!("the runtime must set {name}: {meaning}"),
    )
}

/// An error about the variable `name`.
pub fn invalid(name: &str, details: String) -> CniError {
    CniError::new(Code::ENVIRONMENT, format!("{name} is invalid"), details)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "4f2a"),
        ("CNI_NETNS", "/run/netns/pod"),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=nginx;K8S_POD_INFRA_CONTAINER_ID=4f2a",
        ),
    ];

    fn container(verb: Verb, name: &str, value: &str) -> Result<Container, CniError> {
        let look_up = |wanted: &str| {
            let good = GOOD.iter().find(|(name, _)| *name == wanted);
            let value = if wanted == name { Some(value) } else { good.map(|(_, value)| *value) };
            value.map(OsString::from)
        };
        Environment(&look_up).container(verb)
    }

    #[test]
    fn the_pod_is_found_in_the_arguments_that_kubernetes_gives() {
        let container = container(Verb::Add, "", "").unwrap();
        let pod = container.pod.unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "nginx"));
        assert_eq!(pod.infra_container_id.as_deref(), Some("4f2a"));
        assert_eq!(container.args, BTreeMap::from([("IgnoreUnknown".to_owned(), "1".to_owned())]));
    }

    #[test]
    fn a_wrong_variable_is_named() {
        for (name, value) in [
            ("CNI_CONTAINERID", ""),
            ("CNI_CONTAINERID", "_x"),
            ("CNI_CONTAINERID", "a/b"),
            ("CNI_CONTAINERID", "ä"),
            ("CNI_CONTAINERID", &"c".repeat(129)),
            ("CNI_NETNS", ""),
            ("CNI_IFNAME", ""),
            ("CNI_IFNAME", "."),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", "a:b"),
            ("CNI_IFNAME", "a b"),
            ("CNI_IFNAME", "sixteen-letters-"),
            ("CNI_ARGS", "K8S_POD_NAME"),
            ("CNI_ARGS", "=x"),
            ("CNI_ARGS", "K8S_POD_NAME=nginx"),
            ("CNI_ARGS", "K8S_POD_NAME=nginx;K8S_POD_NAMESPACE="),
        ] {
            let error = container(Verb::Add, name, value).unwrap_err();
            assert_eq!(error.code, Code::ENVIRONMENT, "{name}={value:?}");
            assert!(error.msg.contains(name), "{name}={value:?}: {}", error.msg);
        }
    }

    #[test]
    fn a_del_may_come_without_a_namespace_and_anybody_without_a_pod() {
        assert_eq!(container(Verb::Del, "CNI_NETNS", "").unwrap().netns, None);
        assert_eq!(container(Verb::Add, "CNI_ARGS", "A=B;;C=").unwrap().pod, None);
    }

    #[test]
    fn a_variable_that_is_no_text_is_named() {
        let look_up = |_: &str| Some(OsString::from_vec(vec![0xff]));
        let error = Environment(&look_up).verb().unwrap_err();
        assert!(error.msg.contains("CNI_COMMAND"), "{}", error.msg);
    }

    #[test]
    fn a_verb_is_refused_in_the_versions_that_do_not_have_it() {
        let refused =
            |verb: Verb| CniVersion::ALL.into_iter().filter(move |version| verb.exists_in(*version).is_err());
        assert_eq!(refused(Verb::Del).count(), 0);
        assert_eq!(refused(Verb::Check).collect::<Vec<_>>(), [CniVersion::V0_3_1]);
        assert_eq!(refused(Verb::Gc).count(), 3);
        assert_eq!(refused(Verb::Status).count(), 3);
    }
}
