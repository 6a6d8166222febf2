//! What the network configuration says. Pure.

use manx_cni::CniVersion;
use manx_cni::config::{DEFAULT_SOCKET, DEFAULT_SPOOL};
use serde_json::{Value, json};

/// The network's name: part of each address's handle, and the one that Calico's manifests use.
const NETWORK: &str = "k8s-pod-network";

/// The plugin itself.
pub(super) const PLUGIN: &str = "manx-cni";

/// What serves `hostPort`.
pub(super) const PORTMAP: &str = "portmap";

/// The newest version that every runtime in use understands. Runtimes that know 1.1.0 read `cniVersions`, which was new
/// in it (CNI specification 1.1.0, section 1), and choose; older ones read `cniVersion`, and fail on 1.1.0.
const FOR_OLD_RUNTIMES: CniVersion = CniVersion::V1_0_0;

/// What is put into a configuration.
pub(super) struct Contents<'a> {
    pub(super) socket: &'a str,
    pub(super) spool: &'a str,
    pub(super) mtu: Option<u32>,
    /// The versions that the `portmap` of this node speaks, where it has one that [`can_be_chained`].
    pub(super) portmap: Option<&'a [CniVersion]>,
}

/// Whether a plugin of these versions can be chained so that every runtime understands the whole.
pub(super) fn can_be_chained(versions: &[CniVersion]) -> bool {
    versions.iter().any(|version| *version <= FOR_OLD_RUNTIMES)
}

/// Our own configuration, for the versions that every plugin in it speaks.
pub(super) fn render(contents: &Contents<'_>) -> String {
    let speaks = |version: &CniVersion| contents.portmap.is_none_or(|its| its.contains(version));
    let common: Vec<CniVersion> = CniVersion::ALL.into_iter().filter(speaks).collect();
    let version = common.iter().copied().filter(|version| *version <= FOR_OLD_RUNTIMES).max();
    let mut plugins = vec![plugin(contents)];
    if contents.portmap.is_some() {
        plugins.push(json!({"type": PORTMAP, "snat": true, "capabilities": {"portMappings": true}}));
    }
    let list = json!({
        "name": NETWORK,
        "cniVersion": version.unwrap_or(FOR_OLD_RUNTIMES).as_str(),
        "cniVersions": common.iter().map(|version| version.as_str()).collect::<Vec<_>>(),
        "plugins": plugins,
    });
    format!("{list:#}\n")
}

fn plugin(contents: &Contents<'_>) -> Value {
    let mut plugin = json!({"type": PLUGIN});
    if contents.socket != DEFAULT_SOCKET {
        plugin["socket"] = contents.socket.into();
    }
    if contents.spool != DEFAULT_SPOOL {
        plugin["spool"] = contents.spool.into();
    }
    if let Some(mtu) = contents.mtu {
        plugin["mtu"] = mtu.into();
    }
    plugin
}

/// Fills an operator's template in, and checks that it leads to us.
pub(super) fn fill(template: &str, node: &str, mtu: Option<u32>) -> Result<String, String> {
    let text = template
        .replace("__CNI_MTU__", &mtu.unwrap_or(0).to_string())
        .replace("__KUBERNETES_NODE_NAME__", node);
    let list: Value = serde_json::from_str(&text).map_err(|error| format!("it is no JSON: {error}"))?;
    match types(&list).any(|name| name == PLUGIN) {
        true => Ok(text),
        false => Err(format!("none of its `plugins` has the type {PLUGIN}")),
    }
}

/// The plugins that a configuration names, in order.
pub(super) fn types(list: &Value) -> impl Iterator<Item = &str> {
    list["plugins"].as_array().into_iter().flatten().filter_map(|plugin| plugin["type"].as_str())
}

/// Whether a file of this text is ours: its pods would come to us.
pub(super) fn is_ours(text: &str) -> bool {
    serde_json::from_str(text).is_ok_and(|list: Value| types(&list).any(|name| name == PLUGIN))
}

/// Among the names of a directory, the configurations that a runtime takes before `ours`: it reads `.conf`, `.conflist`
/// and `.json`, in the order of their bytes, and mostly only the first.
pub(super) fn earlier<'a>(names: &'a [String], ours: &str) -> Vec<&'a str> {
    let read = |name: &str| [".conf", ".conflist", ".json"].iter().any(|ending| name.ends_with(ending));
    let mut earlier: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| read(name) && *name < ours).collect();
    earlier.sort_unstable();
    earlier
}
