//! What stands for "not given" in Calico's objects, whose writer knows empty texts and zeros where others leave out.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `None` for a field that is null or the empty text.
pub(crate) fn empty<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    present(Value::deserialize(deserializer)?, |value| value.as_str() == Some(""))
}

/// `None` for a field that is null or zero.
pub(crate) fn zero<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    present(Value::deserialize(deserializer)?, |value| value.as_u64() == Some(0))
}

/// The default for a field that is null.
pub(crate) fn null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn present<T, E>(value: Value, absent: impl Fn(&Value) -> bool) -> Result<Option<T>, E>
where
    T: DeserializeOwned,
    E: Error,
{
    match value {
        Value::Null => Ok(None),
        value if absent(&value) => Ok(None),
        value => serde_json::from_value(value).map(Some).map_err(E::custom),
    }
}
