//! Addresses that are given to nobody new.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::read::lenient;
use crate::{Invalid, Object};

/// So many wrong entries are named, and no more.
const MAX_REFUSED: usize = 20;

/// `spec` of an IPReservation as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IpReservationSpec {
    /// CIDRs or single addresses.
    #[serde(rename = "reservedCIDRs", default)]
    pub reserved_cidrs: Vec<String>,
    /// Fields that we do not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Addresses that are not given out any more; who has one keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpReservation {
    /// Its name.
    pub name: String,
    /// What is reserved; no host bits.
    pub cidrs: Vec<IpNet>,
}

impl IpReservation {
    /// Reads an IPReservation. An entry that cannot be read is handed back, and the others stay reserved. As in Calico
    /// a single address is an entry, and host bits do not count.
    pub fn from_object(object: &Object) -> (Self, Vec<Invalid>) {
        let (spec, mut refused) = lenient::<IpReservationSpec>(object);
        let mut cidrs = Vec::new();
        for (index, text) in spec.reserved_cidrs.iter().enumerate() {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            match text.parse::<IpNet>().or_else(|_| address()) {
                Ok(cidr) => cidrs.push(cidr.trunc()),
                // Whoever wrote so much nonsense knows by now.
                Err(_) if refused.len() >= MAX_REFUSED => {}
                Err(_) => refused.push(object.invalid(
                    format!("spec.reservedCIDRs[{index}]"),
                    format!("{text:?} is neither a CIDR, as 10.0.0.0/28, nor an address"),
                )),
            }
        }
        (Self { name: object.name().to_owned(), cidrs }, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use serde_json::json;

    fn read(spec: &Value) -> (Vec<String>, Vec<String>) {
        let (reservation, refused) = IpReservation::from_object(&Object::new(Kind::IPReservation, "r", spec));
        let text = |invalid: &Invalid| invalid.to_string();
        (reservation.cidrs.iter().map(ToString::to_string).collect(), refused.iter().map(text).collect())
    }

    #[test]
    fn networks_and_single_addresses_can_be_reserved() {
        let spec = json!({"reservedCIDRs": ["10.0.0.0/28", "10.0.1.7", "10.0.2.9/30", "fd00::1"]});
        let cidrs = ["10.0.0.0/28", "10.0.1.7/32", "10.0.2.8/30", "fd00::1/128"].map(String::from);
        assert_eq!(read(&spec), (cidrs.to_vec(), vec![]));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_named_and_the_others_stay_reserved() {
        let (cidrs, refused) = read(&json!({"reservedCIDRs": ["ten", "10.0.0.0/28"]}));
        assert_eq!(cidrs, ["10.0.0.0/28"]);
        assert!(refused[0].starts_with("IPReservation r: spec.reservedCIDRs[0]: \"ten\""), "{refused:?}");
        assert!(read(&json!({"reservedCIDRs": "10.0.0.0/28"})).1[0].contains("spec.reservedCIDRs: "));
        assert_eq!(read(&Value::Null), (vec![], vec![]));
    }
}
