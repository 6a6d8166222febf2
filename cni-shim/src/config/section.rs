//! Reading one object of the configuration, with messages that name the key.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::{CniError, Code};

/// An error about the configuration's content.
pub fn invalid(details: String) -> CniError {
    CniError::new(Code::CONFIG, "invalid network configuration", details)
}

/// An object of the configuration and its place, for messages. An absent or `null` object is an empty one.
pub(crate) struct Section<'a> {
    prefix: String,
    value: Option<&'a Value>,
}

impl<'a> Section<'a> {
    /// The whole configuration.
    pub(crate) fn of(conf: &'a Value) -> Self {
        Self { prefix: String::new(), value: Some(conf) }
    }

    /// What stands under `key`, if it is not `null`.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.value?.get(key).filter(|value| !value.is_null())
    }

    /// The object under `key`.
    pub(crate) fn section(&self, key: &str) -> Result<Section<'a>, CniError> {
        let value = self.value(key);
        if value.is_some_and(|value| !value.is_object()) {
            return Err(self.unfit(key, "an object"));
        }
        Ok(Section { prefix: format!("{}{key}.", self.prefix), value })
    }

    /// The list of objects under `key`.
    pub(crate) fn sections(&self, key: &str) -> Result<Vec<Section<'a>>, CniError> {
        let list = |value: &'a Value| -> Option<Vec<Section<'a>>> {
            let section = |(index, value): (usize, &'a Value)| {
                let prefix = format!("{}{key}[{index}].", self.prefix);
                value.is_object().then_some(Section { prefix, value: Some(value) })
            };
            value.as_array()?.iter().enumerate().map(section).collect()
        };
        Ok(self.read(key, "a list of objects", list)?.unwrap_or_default())
    }

    /// The string under `key`.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, CniError> {
        self.read(key, "a string", Value::as_str)
    }

    /// The string under `key`, unless it is empty: many generators write what is not set as "".
    pub(crate) fn filled(&self, key: &str) -> Result<Option<&'a str>, CniError> {
        Ok(self.text(key)?.filter(|text| !text.is_empty()))
    }

    /// A boolean, or as Calico's `assign_ipv4` has it, `"true"` or `"false"`.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, CniError> {
        self.read(key, "true or false", |value| value.as_bool().or_else(|| value.as_str()?.parse().ok()))
    }

    /// A whole number within `range`.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, CniError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, &expected, |value| {
            value
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| range.contains(number))
        })
    }

    /// A list of strings.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, CniError> {
        let texts = |value: &Value| -> Option<Vec<String>> {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        };
        Ok(self.read(key, "a list of strings", texts)?.unwrap_or_default())
    }

    /// Whatever `read` makes of what stands under `key`; `expected` says what that is.
    pub(crate) fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CniError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.unfit(key, expected)),
        }
    }

    /// What stands under `key` is refused, since nothing here can do what it asks; `remedy` says what to write instead.
    pub(crate) fn unsupported(&self, key: &str, remedy: &str) -> CniError {
        let (key, value) = (format!("{}{key}", self.prefix), self.shown(key));
        CniError::new(
            Code::UNSUPPORTED_FIELD,
            format!("unsupported field in the network configuration: {key} is {value}"),
            format!("{key} is {value}: {remedy}"),
        )
    }

    /// What stands under `key` is let pass, and does nothing.
    pub(crate) fn in_vain(&self, key: &str, reason: &str) -> String {
        format!("{}{key} is {} and has no effect: {reason}", self.prefix, self.shown(key))
    }

    fn unfit(&self, key: &str, expected: &str) -> CniError {
        invalid(format!("{}{key} is {}; it must be {expected}", self.prefix, self.shown(key)))
    }

    fn shown(&self, key: &str) -> String {
        let value = self.value(key).map(Value::to_string).unwrap_or_default();
        value.chars().take(80).collect()
    }
}
