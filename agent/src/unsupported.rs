//! Fields of objects that ask for something that Manx does not do yet: named, never ignored silently.

use manx_model::{
    AllowedUse, Complaint, FelixConfigurationSpec, IpPool, IpPoolSpec, IpamConfigSpec, Kind, Object,
};

/// Each field of a pool that asks for something, and has no effect.
pub fn of_pool(object: &Object, pool: &IpPool) -> Vec<Complaint> {
    let Ok(spec) = object.spec::<IpPoolSpec>() else { return Vec::new() };
    let known = [
        (!matches!(spec.vxlan_mode.as_deref(), None | Some("" | "Never")), "vxlanMode"),
        (pool.nat_outgoing && pool.cidr.addr().is_ipv6(), "natOutgoing"),
        (pool.allows(AllowedUse::LoadBalancer), "allowedUses"),
    ];
    let known = known.into_iter().filter(|(asked, _)| *asked).map(|(_, field)| field);
    let unknown = spec.rest.iter().filter(|(_, value)| !value.is_null()).map(|(field, _)| field.as_str());
    unknown
        .chain(known)
        .map(|field| {
            Complaint::not_supported(Kind::IPPool, &pool.name, format!("{field}: {}", object.spec[field]))
        })
        .collect()
}

/// Each field of a FelixConfiguration that asks for something, and has no effect.
pub fn of_felix(name: &str, spec: &FelixConfigurationSpec) -> Vec<Complaint> {
    let fields = spec.not_acted_on().into_iter();
    fields.map(|field| Complaint::not_supported(Kind::FelixConfiguration, name, field)).collect()
}

/// Each field of an IPAMConfig that asks for something, and has no effect.
pub fn of_ipam(name: &str, spec: &IpamConfigSpec) -> Vec<Complaint> {
    let persistent = spec.kubevirt_vm_address_persistence.as_deref() == Some("Enabled");
    let field = persistent.then_some("kubeVirtVMAddressPersistence: Enabled");
    field.map(|field| Complaint::not_supported(Kind::IPAMConfig, name, field)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn of_a_felix_configuration_what_is_acted_on_is_not_said_to_have_no_effect() {
        let spec = json!({"ipipMTU": 1400, "ipForwarding": "Disabled", "ipipEnabled": true, "interfacePrefix": "azv",
            "natPortRange": "1:2", "vxlanPort": 1, "floatingIPs": "Disabled"});
        let object = Object::new(Kind::FelixConfiguration, "default", &spec);
        let said = of_felix("default", &FelixConfigurationSpec::from_object(&object).0);
        let fields: Vec<_> = said.iter().map(|said| said.message.split(' ').next().unwrap()).collect();
        assert_eq!(fields, ["vxlanPort"]);
    }

    #[test]
    fn virtual_machines_that_are_to_keep_their_addresses_are_told_that_they_do_not() {
        let said = |value: &str| {
            let object =
                Object::new(Kind::IPAMConfig, "default", &json!({"kubeVirtVMAddressPersistence": value}));
            of_ipam("default", &IpamConfigSpec::from_object(&object).0).len()
        };
        assert_eq!((said("Enabled"), said("Disabled")), (1, 0));
    }

    fn named(spec: Value) -> Vec<String> {
        let object = Object::new(Kind::IPPool, "p", &spec);
        of_pool(&object, &IpPool::from_object(&object).unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pool_with_calicos_defaults_has_nothing_without_effect() {
        let spec = json!({"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Never", "nodeSelector": "all()",
            "allowedUses": ["Workload", "Tunnel"], "natOutgoing": false});
        assert_eq!(named(spec), Vec::<String>::new());
    }

    #[test]
    fn what_a_pool_asks_for_in_vain_is_named_with_its_value() {
        let spec =
            json!({"cidr": "10.0.0.0/16", "shade": "green", "vxlanMode": "Always", "natOutgoing": true});
        let of_ipv6 = json!({"cidr": "fd00::/64", "natOutgoing": true});
        assert_eq!(
            named(spec),
            [
                "IPPool p: shade: \"green\" is not supported yet and has no effect",
                "IPPool p: vxlanMode: \"Always\" is not supported yet and has no effect",
            ]
        );
        assert_eq!(named(of_ipv6), ["IPPool p: natOutgoing: true is not supported yet and has no effect"]);
        assert_eq!(named(json!({"cidr": "fd00::/64"})), Vec::<String>::new());
    }
}
