//! What an agent is told at its start: flags and environment, read once into types that cannot be wrong.
//!
//! Calico's variables keep their names, grammar and defaults; flags are other spellings of the same variables and win.
//! Everything wrong is found in one pass and said in one message. A variable of Calico's that is not acted on yet is a
//! [`Notice`], an unknown `FELIX_…` is a warning as it is for Felix, an unknown one of Manx's own is an error.

mod cni;
mod known;
mod parse;
mod pool;
mod router_id;
mod settings;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use manx_felix::Detection;
use manx_model::{Asn, InterfaceAddress, NatExclusions, Network, NodeName, PortRange};

pub use cni::{CniFiles, Template};
use parse::Reader;
pub use parse::{datastore, mtu, prefix};
pub use pool::{DefaultPool, DefaultPool6};
pub use router_id::RouterId;
pub use settings::Settings;

/// Calico's default of `AUTODETECT_POLL_INTERVAL`.
const ADDRESS_POLL: Duration = Duration::from_secs(60);

/// Everything that an agent is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's name.
    pub node: NodeName,
    /// Where this node's address comes from.
    pub address: AddressSource,
    /// Who carries routes between nodes.
    pub backend: Backend,
    /// This node's AS, where it is not the cluster's.
    pub asn: Option<Asn>,
    /// Its BGP identifier.
    pub router_id: RouterId,
    /// The pool that is created when there is none.
    pub default_pool: DefaultPool,
    /// The same of IPv6.
    pub default_pool6: Option<DefaultPool6>,
    /// The address is looked for again this often, where it is found out (`AUTODETECT_POLL_INTERVAL`).
    pub address_poll: Duration,
    /// Another node may have the same address (`DISABLE_NODE_IP_CHECK`).
    pub shared_address_allowed: bool,
    /// Felix' parameters, as far as the environment has them.
    pub felix: FelixEnvironment,
    /// The node's podCIDRs are its to originate, and its tunnel's address is there (`USE_POD_CIDR`).
    pub use_pod_cidr: bool,
    /// Where the cluster's objects are.
    pub datastore: DatastoreChoice,
    /// How the agent installs the CNI plugin; `None`: it does not.
    pub cni: Option<CniFiles>,
    /// The agent's own namespace: where Secrets of BGP peers are.
    pub namespace: String,
    /// Sockets live here.
    pub run_dir: PathBuf,
    /// What must survive a reboot lives here: the CNI spool.
    pub state_dir: PathBuf,
    /// How many addresses of one block are held back at most, for pods that do not wait for the datastore.
    pub reserve: usize,
    /// What was set and has no effect yet, or is not known.
    pub notices: Vec<Notice>,
}

/// Where a node's IPv4 address comes from (`IP`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressSource {
    /// The one that is found so.
    Autodetect(Detection),
    /// This one; its subnet is that of the interface which carries it.
    Address(Ipv4Addr),
    /// This one, with its subnet.
    Interface(InterfaceAddress),
}

/// Who carries routes between nodes (`CALICO_NETWORKING_BACKEND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The built-in BGP speaker; the name is that of the speaker which it replaces.
    Bird,
    /// Nobody: pods of this node only.
    None,
}

/// Where the cluster's objects are (`MANX_DATASTORE`, `DATASTORE_TYPE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatastoreChoice {
    /// In this process, and gone with it: a node of its own.
    Memory,
    /// In a directory of manifests, shared by the agents of one machine.
    File(PathBuf),
    /// In Kubernetes, as Calico stores them.
    Kubernetes {
        /// How to reach it (`KUBECONFIG`); otherwise as a pod of the cluster does.
        kubeconfig: Option<PathBuf>,
    },
}

impl std::fmt::Display for DatastoreChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::File(directory) => write!(f, "file:{}", directory.display()),
            Self::Kubernetes { .. } => f.write_str("kubernetes"),
        }
    }
}

/// What the environment says of Felix' parameters (`FELIX_…`); the objects say the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FelixEnvironment {
    /// MTU of `tunl0`, bytes.
    pub ipip_mtu: Option<u32>,
    /// Whether there may be a tunnel at all.
    pub ipip_enabled: Option<bool>,
    /// The beginning of the name of every pod's host end.
    pub interface_prefix: Option<String>,
    /// Whether `net.ipv4.ip_forward` is switched on.
    pub ip_forwarding: Option<bool>,
    /// Whether probes are answered.
    pub health_enabled: Option<bool>,
    /// Where.
    pub health_host: Option<String>,
    /// On which TCP port.
    pub health_port: Option<u16>,
    /// Whether metrics are told.
    pub metrics_enabled: Option<bool>,
    /// Where.
    pub metrics_host: Option<String>,
    /// On which TCP port.
    pub metrics_port: Option<u16>,
    /// The source that pods' packets get outside the cluster.
    pub nat_address: Option<Ipv4Addr>,
    /// The ports that their TCP and UDP get.
    pub nat_ports: Option<PortRange>,
    /// What keeps pods' addresses.
    pub nat_exclusions: Option<NatExclusions>,
    /// Who may send protocol 4 to this node, besides nodes.
    pub external_nodes: Option<Vec<Network>>,
    /// Whether pods may send protocol 4 through this node.
    pub ipip_from_pods: Option<bool>,
}

/// Something about the configuration that the operator should know, and that stops nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// Calico acts on this variable, Manx not yet.
    NotSupportedYet {
        /// The variable.
        variable: String,
    },
    /// Neither Felix nor Manx knows this parameter.
    UnknownFelix {
        /// The variable.
        variable: String,
    },
    /// A known variable has a value of Calico's that Manx does not act on yet.
    ValueNotSupportedYet {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What happens instead.
        instead: &'static str,
    },
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSupportedYet { variable } => {
                write!(f, "{variable} is not supported yet and has no effect")
            }
            Self::UnknownFelix { variable } => {
                write!(f, "{variable} is no parameter of Felix; is it misspelt?")
            }
            Self::ValueNotSupportedYet { variable, value, instead } => {
                write!(f, "{variable}={value} is not supported yet: {instead}")
            }
        }
    }
}

/// Why an agent does not start: every variable that is wrong, each with its value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is wrong:\n{}", .0.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads every setting.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn read(settings: &Settings) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(settings);
        let node = node_name(&mut reader);
        let backend = backend(&mut reader);
        let config = Self {
            address: address(&mut reader),
            asn: reader.parse("AS", str::parse),
            router_id: reader.parse("CALICO_ROUTER_ID", str::parse).unwrap_or(RouterId::Address),
            address_poll: reader.parse("AUTODETECT_POLL_INTERVAL", parse::interval).unwrap_or(ADDRESS_POLL),
            shared_address_allowed: reader.text("DISABLE_NODE_IP_CHECK").is_some_and(parse::startup_bool),
            default_pool6: DefaultPool6::read(&mut reader),
            default_pool: DefaultPool::read(&mut reader),
            felix: FelixEnvironment::read(&mut reader),
            use_pod_cidr: reader.parse("USE_POD_CIDR", parse::felix_bool).unwrap_or(false),
            datastore: DatastoreChoice::read(&mut reader),
            cni: CniFiles::read(&mut reader),
            namespace: reader
                .parse("MANX_NAMESPACE", parse::namespace)
                .unwrap_or_else(|| "kube-system".into()),
            run_dir: reader.parse("MANX_RUN_DIR", parse::directory).unwrap_or_else(|| "/run/manx".into()),
            state_dir: reader
                .parse("MANX_STATE_DIR", parse::directory)
                .unwrap_or_else(|| "/var/lib/manx".into()),
            reserve: reader.parse("MANX_IPAM_RESERVE", parse::reserve).unwrap_or(manx_ipam::DEFAULT_RESERVE),
            notices: reader.take_notices(),
            backend,
            node: node.unwrap_or_else(|| "unknown".parse().expect("a constant node name")),
        };
        reader.finish(config)
    }
}

impl DatastoreChoice {
    /// Whether there is a Kubernetes, with Nodes and Pods that others make.
    pub fn is_kubernetes(&self) -> bool {
        matches!(self, Self::Kubernetes { .. })
    }

    /// `MANX_DATASTORE`, else Calico's `DATASTORE_TYPE`, else the directory of this machine.
    fn read(reader: &mut Reader<'_>) -> Self {
        let kubeconfig = reader.parse("KUBECONFIG", parse::file);
        let named = reader.parse("DATASTORE_TYPE", parse::datastore_type);
        match reader.parse("MANX_DATASTORE", parse::datastore).or(named) {
            Some(Self::Kubernetes { .. }) => Self::Kubernetes { kubeconfig },
            Some(other) => other,
            None => Self::File("/var/lib/manx/datastore".into()),
        }
    }
}

/// `NODENAME`, else `HOSTNAME` in lower case, as Calico does it.
fn node_name(reader: &mut Reader<'_>) -> Option<NodeName> {
    if let Some(name) = reader.parse("NODENAME", str::parse) {
        return Some(name);
    }
    match reader.parse("HOSTNAME", |text| text.trim().to_ascii_lowercase().parse()) {
        Some(name) => Some(name),
        None => {
            reader.missing("NODENAME", "the name of this node, as Kubernetes knows it");
            None
        }
    }
}

/// `IP`, and if that is to be found out, `IP_AUTODETECTION_METHOD`, which is read in any case: a mistake in it is one.
fn address(reader: &mut Reader<'_>) -> AddressSource {
    let method = reader.parse("IP_AUTODETECTION_METHOD", str::parse).unwrap_or_default();
    match reader.parse("IP", parse::address).flatten() {
        Some(given) => given,
        None => AddressSource::Autodetect(method),
    }
}

fn backend(reader: &mut Reader<'_>) -> Backend {
    const VARIABLE: &str = "CALICO_NETWORKING_BACKEND";
    match reader.text(VARIABLE) {
        Some("none") => Backend::None,
        Some("vxlan") => {
            let instead = "nodes are not connected by this agent (use bird)";
            reader.notice(Notice::ValueNotSupportedYet {
                variable: VARIABLE,
                value: "vxlan".into(),
                instead,
            });
            Backend::None
        }
        None | Some("bird") => Backend::Bird,
        Some(other) => {
            let other = other.to_owned();
            reader.wrong(VARIABLE, &other, "it is none of bird, none, vxlan");
            Backend::Bird
        }
    }
}

impl FelixEnvironment {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            ipip_mtu: reader.parse("FELIX_IPINIPMTU", parse::mtu).flatten(),
            ipip_enabled: reader.parse("FELIX_IPINIPENABLED", parse::felix_bool),
            interface_prefix: reader.parse("FELIX_INTERFACEPREFIX", parse::prefix),
            ip_forwarding: reader.parse("FELIX_IPFORWARDING", parse::enabled),
            health_enabled: reader.parse("FELIX_HEALTHENABLED", parse::felix_bool),
            health_host: reader.text("FELIX_HEALTHHOST").map(str::to_owned),
            health_port: reader.parse("FELIX_HEALTHPORT", parse::port),
            metrics_enabled: reader.parse("FELIX_PROMETHEUSMETRICSENABLED", parse::felix_bool),
            metrics_host: reader.text("FELIX_PROMETHEUSMETRICSHOST").map(str::to_owned),
            metrics_port: reader.parse("FELIX_PROMETHEUSMETRICSPORT", parse::port),
            nat_address: reader.parse("FELIX_NATOUTGOINGADDRESS", parse::nat_address).flatten(),
            nat_ports: reader.parse("FELIX_NATPORTRANGE", str::parse),
            nat_exclusions: reader.parse("FELIX_NATOUTGOINGEXCLUSIONS", str::parse),
            external_nodes: reader.parse("FELIX_EXTERNALNODESCIDRLIST", parse::networks),
            ipip_from_pods: reader.parse("FELIX_ALLOWIPIPPACKETSFROMWORKLOADS", parse::felix_bool),
        }
    }
}

impl Config {
    /// Where CNI plugins leave the DELs that no agent took.
    pub fn spool(&self) -> PathBuf {
        self.state_dir.join("cni-spool")
    }

    /// The socket of the CNI plugin.
    pub fn cni_socket(&self) -> PathBuf {
        self.run_dir.join("cni.sock")
    }

    /// The socket of `manx status`.
    pub fn status_socket(&self) -> PathBuf {
        self.run_dir.join("status.sock")
    }
}

#[cfg(test)]
mod tests;
