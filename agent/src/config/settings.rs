//! The texts behind a configuration: the environment, and flags laid over it.

use std::collections::BTreeMap;

/// Variables by name, each with where it came from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, Setting>,
}

#[derive(Clone, Debug)]
struct Setting {
    value: String,
    flag: Option<&'static str>,
}

impl Settings {
    /// The environment. What is not UTF-8 is none of our variables.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = variables.into_iter().map(|(name, value)| (name, Setting { value, flag: None }));
        Self { values: values.collect() }
    }

    /// Lays the value of `flag` over `variable`.
    pub fn set_flag(&mut self, variable: &str, flag: &'static str, value: String) {
        self.values.insert(variable.to_owned(), Setting { value, flag: Some(flag) });
    }

    /// The value of `variable`, if it is set.
    pub fn get(&self, variable: &str) -> Option<&str> {
        self.values.get(variable).map(|setting| setting.value.as_str())
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// `variable` as the operator wrote it: its own name, or the flag.
    pub fn spelling(&self, variable: &str) -> String {
        match self.values.get(variable).and_then(|setting| setting.flag) {
            Some(flag) => format!("{variable} (from {flag})"),
            None => variable.to_owned(),
        }
    }
}
