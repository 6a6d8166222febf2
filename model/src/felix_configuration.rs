//! Felix' parameters as a FelixConfiguration gives them: `default` for the cluster, `node.NAME` for one node.
//!
//! What we act on is typed; of the rest, what differs from Calico's default is told, since it has no effect.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::read::{lenient, misnamed};
use crate::{Invalid, Object, PortRange, absent};

/// `spec` of a FelixConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FelixConfigurationSpec {
    /// The beginning of the names of pods' host ends; a list in Calico, of which the first counts.
    #[serde(deserialize_with = "absent::empty")]
    pub interface_prefix: Option<String>,
    /// Whether there may be a tunnel at all; as the pools say when absent.
    pub ipip_enabled: Option<bool>,
    /// The MTU of `tunl0`; found out when absent or 0.
    #[serde(rename = "ipipMTU", deserialize_with = "absent::zero")]
    pub ipip_mtu: Option<u32>,
    /// Whether forwarding is switched on; `Enabled` when absent.
    #[serde(rename = "ipForwarding", deserialize_with = "absent::empty")]
    pub ip_forwarding: Option<crate::Switch>,
    /// Whether probes are answered; they are not when absent.
    pub health_enabled: Option<bool>,
    /// Where probes are answered: an address or a name of this host; `localhost` when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub health_host: Option<String>,
    /// The TCP port where probes are answered; 9099 when absent.
    pub health_port: Option<u16>,
    /// Whether metrics are told; they are not when absent.
    pub prometheus_metrics_enabled: Option<bool>,
    /// Where metrics are told: an address or a name of this host; all addresses when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub prometheus_metrics_host: Option<String>,
    /// The TCP port where metrics are told; 9091 when absent.
    pub prometheus_metrics_port: Option<u16>,
    /// The source that pods' packets get outside the cluster; that of the interface by which they leave when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub nat_outgoing_address: Option<Ipv4Addr>,
    /// The ports that their TCP and UDP get; any when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub nat_port_range: Option<PortRange>,
    /// Besides pools, what keeps pods' addresses; nothing when absent.
    #[serde(deserialize_with = "absent::empty")]
    pub nat_outgoing_exclusions: Option<NatExclusions>,
    /// Who may send protocol 4 to a node, besides nodes.
    pub external_nodes_list: Option<Vec<Network>>,
    /// Whether pods may send protocol 4 through a node; not when absent.
    #[serde(rename = "allowIPIPPacketsFromWorkloads")]
    pub allow_ipip_packets_from_workloads: Option<bool>,
    /// All other fields.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What is not translated although it leaves a pool with `natOutgoing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum NatExclusions {
    /// What goes to a pool.
    IPPoolsOnly,
    /// What goes to a pool or to a node.
    IPPoolsAndHostIPs,
}

impl FromStr for NatExclusions {
    type Err = String;

    /// The grammar of `FELIX_NATOUTGOINGEXCLUSIONS`: case does not matter.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "ippoolsonly" => Ok(Self::IPPoolsOnly),
            "ippoolsandhostips" => Ok(Self::IPPoolsAndHostIPs),
            _ => Err(format!("{text:?} is none of IPPoolsOnly, IPPoolsAndHostIPs")),
        }
    }
}

/// A network, or one address alone, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        let net = text.parse::<IpNet>().or_else(|_| address());
        net.map(|net| Self(net.trunc())).map_err(|_| format!("{text:?} is neither a CIDR nor an address"))
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FelixConfigurationSpec {
    /// Reads a FelixConfiguration, without the fields that cannot be read.
    pub fn from_object(object: &Object) -> (Self, Vec<Invalid>) {
        let (spec, mut refused) = lenient(object);
        refused.extend(misnamed(object));
        (spec, refused)
    }

    /// The fields that ask for something else than Calico's default, and that we do not act on.
    pub fn not_acted_on(&self) -> Vec<&str> {
        let differs = |(field, value): &(&String, &Value)| !is_default(field, value);
        self.rest.iter().filter(differs).map(|(field, _)| field.as_str()).collect()
    }
}

/// Whether this is what Calico does anyway. Reporting and logging to nowhere is asked of everybody's manifests, and what
/// is not there cannot be missed.
fn is_default(field: &str, value: &Value) -> bool {
    if value.is_null() || *value == json!("") || *value == json!([]) {
        return true;
    }
    let default = match field {
        "interfaceExclude" => json!("kube-ipvs0"),
        "deviceRouteProtocol" => json!(3),
        "removeExternalRoutes" | "usageReportingEnabled" | "ipv6Support" => json!(true),
        "routeRefreshInterval" | "interfaceRefreshInterval" | "ipsetsRefreshInterval" => json!("90s"),
        "iptablesRefreshInterval" => json!("180s"),
        "dataplaneWatchdogTimeout" => json!("90s"),
        "netlinkTimeout" => json!("10s"),
        "reportingInterval" => json!("0s"),
        "nftablesMode" | "iptablesBackend" => json!("Auto"),
        "chainInsertMode" => json!("Insert"),
        "vxlanMTU" => json!(0),
        "vxlanPort" => json!(4789),
        "vxlanVNI" => json!(4096),
        "serviceLoopPrevention" => json!("Drop"),
        "workloadSourceSpoofing" | "floatingIPs" => json!("Disabled"),
        "routeSource" => json!("CalicoIPAM"),
        "ipv4NormalRoutePriority" | "ipv6NormalRoutePriority" => json!(1024),
        "ipv4ElevatedRoutePriority" | "ipv6ElevatedRoutePriority" => json!(512),
        "awsSrcDstCheck" => json!("DoNothing"),
        "defaultEndpointToHostAction" => json!("Drop"),
        "logSeverityScreen" => json!("Info"),
        "mtuIfacePattern" => json!("^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)"),
        _ => json!(false),
    };
    let same_interval = || {
        let seconds = |value: &Value| value.as_str()?.parse::<crate::Interval>().ok();
        seconds(value).is_some_and(|interval| Some(interval) == seconds(&default))
    };
    *value == default || same_interval()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn read(spec: &Value) -> (FelixConfigurationSpec, Vec<Invalid>) {
        FelixConfigurationSpec::from_object(&Object::new(Kind::FelixConfiguration, "default", spec))
    }

    #[test]
    fn what_we_act_on_is_read_and_a_mistake_is_named() {
        let (spec, refused) = read(&json!({
            "interfacePrefix": "azv", "ipipEnabled": true, "ipipMTU": 1400, "ipForwarding": "Disabled"
        }));
        assert_eq!((spec.interface_prefix.as_deref(), spec.ipip_mtu), (Some("azv"), Some(1400)));
        assert_eq!((spec.ipip_enabled, spec.ip_forwarding), (Some(true), Some(crate::Switch::Disabled)));
        assert_eq!((refused.len(), spec.not_acted_on().len()), (0, 0));
        let (spec, refused) = read(&json!({"ipipMTU": "big", "ipipEnabled": false}));
        assert_eq!((spec.ipip_mtu, spec.ipip_enabled), (None, Some(false)));
        assert_eq!(refused[0].field, "spec.ipipMTU");
    }

    #[test]
    fn what_calico_does_anyway_is_not_worth_a_word_and_what_it_would_not_is() {
        let (spec, _) = read(&json!({
            "bpfLogLevel": "", "floatingIPs": "Disabled", "logSeverityScreen": "Info", "reportingInterval": "0s",
            "vxlanPort": 4789, "wireguardEnabled": false, "routeRefreshInterval": "1m30s", "vxlanVNI": null,
            "wireguardEnabledV6": true, "vxlanMTU": 1400, "routeSource": "WorkloadIPs",
        }));
        assert_eq!(spec.not_acted_on(), ["routeSource", "vxlanMTU", "wireguardEnabledV6"]);
    }

    #[test]
    fn what_is_said_of_nat_and_of_protocol_4_is_read_and_each_mistake_is_named() {
        let (spec, refused) = read(&json!({
            "natOutgoingAddress": "203.0.113.7", "natPortRange": "32768:65535",
            "natOutgoingExclusions": "IPPoolsAndHostIPs", "externalNodesList": ["10.0.0.1", "10.1.0.0/16", "10.1.0/16"],
            "allowIPIPPacketsFromWorkloads": true,
        }));
        assert_eq!(spec.nat_outgoing_address, Some(Ipv4Addr::new(203, 0, 113, 7)));
        assert_eq!(spec.nat_port_range, PortRange::new(32768, 65535));
        assert_eq!(spec.nat_outgoing_exclusions, Some(NatExclusions::IPPoolsAndHostIPs));
        let external = spec.external_nodes_list.unwrap();
        let external: Vec<_> = external.iter().map(|network| network.0.to_string()).collect();
        assert_eq!(
            (external, spec.allow_ipip_packets_from_workloads),
            (vec!["10.0.0.1/32".into(), "10.1.0.0/16".to_owned()], Some(true))
        );
        assert_eq!(
            refused.iter().map(|wrong| wrong.field.as_str()).collect::<Vec<_>>(),
            ["spec.externalNodesList[2]"]
        );
        let (spec, refused) =
            read(&json!({"natPortRange": "2:1", "natOutgoingAddress": "", "natOutgoingExclusions": "None"}));
        assert_eq!(
            (spec.nat_port_range, spec.nat_outgoing_address, spec.nat_outgoing_exclusions),
            (None, None, None)
        );
        assert_eq!(refused.len(), 2, "{refused:?}");
    }
}
