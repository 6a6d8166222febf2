//! Fields of objects that ask for something that Manx does not do yet: named, never ignored silently.

use manx_model::{IpPool, IpPoolSpec, Object};
use serde_json::{Value, json};

/// Each field of a pool that is set to something other than its default, and has no effect.
pub fn of_pool(object: &Object, pool: &IpPool) -> Vec<String> {
    let Ok(spec) = object.spec::<IpPoolSpec>() else { return Vec::new() };
    let mut named: Vec<String> = spec
        .rest
        .iter()
        .filter(|(field, value)| !is_default(field, value))
        .map(|(field, _)| field.clone())
        .collect();
    if pool.nat_outgoing {
        named.push("natOutgoing".into());
    }
    let ipv6 = pool
        .cidr
        .addr()
        .is_ipv6()
        .then(|| format!("IPPool {}: IPv6 is not supported yet: no address is taken from it", pool.name));
    let fields = named.into_iter().map(|field| {
        let value = &object.spec[&field];
        format!("IPPool {}: {field}: {value} is not supported yet and has no effect", pool.name)
    });
    ipv6.into_iter().chain(fields).collect()
}

/// Calico's defaults of the fields that we do not act on.
fn is_default(field: &str, value: &Value) -> bool {
    match field {
        "nodeSelector" => *value == json!("all()") || *value == json!(""),
        "vxlanMode" => *value == json!("Never") || *value == json!(""),
        "assignmentMode" => *value == json!("Automatic") || *value == json!(""),
        "namespaceSelector" => *value == json!(""),
        "disableBGPExport" => *value == json!(false),
        "allowedUses" => {
            let uses = value.as_array().map(Vec::as_slice).unwrap_or_default();
            uses.is_empty() || ["Workload", "Tunnel"].iter().all(|name| uses.contains(&json!(name)))
        }
        _ => value.is_null(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_model::Kind;

    fn named(spec: Value) -> Vec<String> {
        let object = Object::new(Kind::IPPool, "p", &spec);
        of_pool(&object, &IpPool::from_object(&object).unwrap())
    }

    #[test]
    fn a_pool_with_calicos_defaults_has_nothing_without_effect() {
        let spec = json!({"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Never", "nodeSelector": "all()",
            "allowedUses": ["Workload", "Tunnel"], "natOutgoing": false});
        assert_eq!(named(spec), Vec::<String>::new());
    }

    #[test]
    fn what_a_pool_asks_for_in_vain_is_named_with_its_value() {
        let spec = json!({"cidr": "10.0.0.0/16", "nodeSelector": "zone == 'a'", "natOutgoing": true});
        assert_eq!(
            named(spec),
            [
                "IPPool p: nodeSelector: \"zone == 'a'\" is not supported yet and has no effect",
                "IPPool p: natOutgoing: true is not supported yet and has no effect",
            ]
        );
        assert!(named(json!({"cidr": "fd00::/64"}))[0].contains("IPv6"));
    }
}
