//! What becomes of the node's CNI files: `MANX_INSTALL_CNI`, and the variables of Calico's installer.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::parse::{Reader, directory, felix_bool, file, mtu, startup_bool};

/// How the agent installs the plugin, where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniFiles {
    /// Where the container runtime looks for network configurations (`CNI_NET_DIR`).
    pub net_dir: PathBuf,
    /// Where it looks for plugins (`CNI_BIN_DIR`).
    pub bin_dir: PathBuf,
    /// The name of our network configuration (`CNI_CONF_NAME`); it ends with `.conflist`.
    pub conf_name: String,
    /// A configuration to write instead of our own (`CNI_NETWORK_CONFIG`, or the text of the file
    /// `CNI_NETWORK_CONFIG_FILE`).
    pub template: Option<Template>,
    /// MTU of pods in bytes (`CNI_MTU`); `None`: the agent decides.
    pub mtu: Option<u32>,
    /// The programs that somebody else installs (`SKIP_CNI_BINARIES`).
    pub skip: BTreeSet<String>,
    /// Whether a program that is there already is replaced by ours (`UPDATE_CNI_BINARIES`).
    pub update: bool,
}

/// A network configuration with Calico's placeholders (`__CNI_MTU__`, `__KUBERNETES_NODE_NAME__`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// This text.
    Text(String),
    /// The text of this file.
    File(PathBuf),
}

impl CniFiles {
    /// Our network configuration.
    pub fn conflist(&self) -> PathBuf {
        self.net_dir.join(&self.conf_name)
    }

    /// `None` where the agent installs nothing, which is the default.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let wanted = reader.parse("MANX_INSTALL_CNI", felix_bool).unwrap_or(false);
        let files = Self {
            net_dir: reader.parse("CNI_NET_DIR", directory).unwrap_or_else(|| "/etc/cni/net.d".into()),
            bin_dir: reader.parse("CNI_BIN_DIR", directory).unwrap_or_else(|| "/opt/cni/bin".into()),
            conf_name: reader.parse("CNI_CONF_NAME", conf_name).unwrap_or_else(|| "10-manx.conflist".into()),
            template: template(reader),
            mtu: reader.parse("CNI_MTU", mtu).flatten(),
            skip: reader.text("SKIP_CNI_BINARIES").map(words).unwrap_or_default(),
            update: reader.text("UPDATE_CNI_BINARIES").is_none_or(startup_bool),
        };
        wanted.then_some(files)
    }
}

fn template(reader: &mut Reader<'_>) -> Option<Template> {
    let named = reader.parse("CNI_NETWORK_CONFIG_FILE", file).map(Template::File);
    named.or_else(|| reader.text("CNI_NETWORK_CONFIG").map(|text| Template::Text(text.to_owned())))
}

fn conf_name(text: &str) -> Result<String, &'static str> {
    match text.ends_with(".conflist") && !text.starts_with('.') && !text.contains('/') {
        true => Ok(text.to_owned()),
        false => Err("it is no file name that ends with .conflist, as 10-manx.conflist"),
    }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
