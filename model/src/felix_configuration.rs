//! Felix' parameters as a FelixConfiguration gives them: `default` for the cluster, `node.NAME` for one node.
//!
//! What we act on is typed; of the rest, what differs from Calico's default is told, since it has no effect.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::read::{lenient, misnamed};
use crate::{Invalid, Object, absent};

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
    /// All other fields.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
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
        "natOutgoingExclusions" => json!("IPPoolsOnly"),
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
            "wireguardEnabledV6": true, "natPortRange": "1000:2000", "routeSource": "WorkloadIPs",
        }));
        assert_eq!(spec.not_acted_on(), ["natPortRange", "routeSource", "wireguardEnabledV6"]);
    }
}
