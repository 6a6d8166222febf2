//! Which version of which object a file is.

use std::time::{SystemTime, UNIX_EPOCH};

use manx_model::{Kind, Object};
use sha2::{Digest, Sha256};

/// The object with the version that this file gives it, and, where a person put it there without one, a uid.
pub(crate) fn identify(mut object: Object, hash: &str) -> Object {
    let number = object.metadata.resource_version.unwrap_or_else(|| "0".into());
    let number = number.split('-').next().unwrap_or_default();
    object.metadata.resource_version = Some(format!("{number}-{hash}"));
    let name = &object.metadata.name;
    object.metadata.uid.get_or_insert_with(|| uid_from(format!("{} {name}", object.kind).as_bytes()));
    object
}

/// The uid of an object that is made now.
pub(crate) fn new_uid(version: u64, kind: Kind, name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    uid_from(format!("{version} {now} {} {kind} {name}", std::process::id()).as_bytes())
}

/// A UUID of version 8 (RFC 9562 §5.8: made by the rules of the application), from a hash.
fn uid_from(seed: &[u8]) -> String {
    let mut bytes: [u8; 16] = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(seed)[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// By which two contents of a file are told apart.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
