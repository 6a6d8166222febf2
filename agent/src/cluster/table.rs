//! What the watch of one kind has said, each object read once when it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use manx_datastore::Event;
use manx_model::{Invalid, Object};

/// What is read from one object: a value, unless it cannot be used at all, and what in it is wrong.
pub(crate) type Read<T> = (Option<T>, Vec<Invalid>);

/// Values by the key of their object. Who holds a copy of [`Table::values`] keeps it: a change makes another.
#[derive(Debug)]
pub(crate) struct Table<T> {
    values: Arc<BTreeMap<String, Arc<T>>>,
    invalid: BTreeMap<String, Vec<Invalid>>,
    /// What the list that is under way has named. The old values stay: nothing is gone before the list is whole.
    listing: Option<BTreeSet<String>>,
    in_sync: bool,
    lost: Option<String>,
}

// Not derived: that would ask for `T: Default`.
impl<T> Default for Table<T> {
    fn default() -> Self {
        let (values, invalid) = Default::default();
        Self { values, invalid, listing: None, in_sync: false, lost: None }
    }
}

impl<T: PartialEq> Table<T> {
    /// Takes one event; `read` is asked about each object once.
    pub(crate) fn take(&mut self, event: Event, read: impl FnOnce(Object) -> Read<T>) {
        match event {
            Event::Init => self.listing = Some(BTreeSet::new()),
            Event::Object(object) => {
                let key = object.key();
                let (value, invalid) = read(object);
                self.name(key, value, invalid);
            }
            Event::Invalid(invalid) => self.name(invalid.name.clone(), None, vec![invalid]),
            Event::Deleted(key) => {
                if let Some(listing) = &mut self.listing {
                    listing.remove(&key);
                }
                self.forget(|known| *known == key);
            }
            Event::InSync => {
                if let Some(listing) = self.listing.take() {
                    self.forget(|known| !listing.contains(known));
                }
                self.in_sync = true;
                self.lost = None;
            }
            Event::Lost(reason) => self.lost = Some(reason),
        }
    }

    /// An object that cannot be used keeps its last word: damage to a pool deletes no pool.
    fn name(&mut self, key: String, value: Option<T>, invalid: Vec<Invalid>) {
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        // A node says all the time that it is alive: what means the same as before is no change.
        if let Some(value) = value.filter(|value| self.values.get(&key).is_none_or(|known| **known != *value))
        {
            self.values_mut().insert(key.clone(), Arc::new(value));
        }
        match invalid.is_empty() {
            true => drop(self.invalid.remove(&key)),
            false => drop(self.invalid.insert(key, invalid)),
        }
    }

    fn forget(&mut self, gone: impl Fn(&String) -> bool) {
        self.invalid.retain(|key, _| !gone(key));
        if self.values.keys().any(&gone) {
            self.values_mut().retain(|key, _| !gone(key));
        }
    }

    fn values_mut(&mut self) -> &mut BTreeMap<String, Arc<T>> {
        Arc::make_mut(&mut self.values)
    }
}

impl<T> Table<T> {
    /// The values now.
    pub(crate) fn values(&self) -> Arc<BTreeMap<String, Arc<T>>> {
        Arc::clone(&self.values)
    }

    /// The value of one key.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<T>> {
        self.values.get(key).cloned()
    }

    /// What is wrong with which objects.
    pub(crate) fn invalid(&self) -> impl Iterator<Item = &Invalid> {
        self.invalid.values().flatten()
    }

    /// The kind has been listed whole at least once.
    pub(crate) fn in_sync(&self) -> bool {
        self.in_sync
    }

    /// Why the datastore cannot be reached, while it cannot.
    pub(crate) fn lost(&self) -> Option<&String> {
        self.lost.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_model::Kind;
    use serde_json::json;

    fn object(name: &str, n: u32) -> Object {
        Object::new(Kind::IPPool, name, &json!({"n": n}))
    }

    fn take(table: &mut Table<u64>, event: Event) {
        table.take(event, |object| match object.spec["n"].as_u64() {
            Some(0) | None => (None, vec![object.invalid("spec.n", "is nothing")]),
            Some(n) => (Some(n), Vec::new()),
        });
    }

    fn known(table: &Table<u64>) -> Vec<(String, u64)> {
        table.values().iter().map(|(key, value)| (key.clone(), **value)).collect()
    }

    fn listed(objects: &[Object]) -> Table<u64> {
        let mut table = Table::default();
        take(&mut table, Event::Init);
        objects.iter().for_each(|object| take(&mut table, Event::Object(object.clone())));
        take(&mut table, Event::InSync);
        table
    }

    #[test]
    fn what_a_new_list_does_not_name_is_gone_when_it_is_whole_and_not_before() {
        let mut table = listed(&[object("a", 1), object("b", 2)]);
        take(&mut table, Event::Lost("connection refused".into()));
        take(&mut table, Event::Init);
        take(&mut table, Event::Object(object("b", 3)));
        assert_eq!(known(&table), [("a".into(), 1), ("b".into(), 3)]);
        assert!(table.lost().is_some());
        take(&mut table, Event::InSync);
        assert_eq!(known(&table), [("b".into(), 3)]);
        assert!(table.lost().is_none());
    }

    #[test]
    fn an_object_that_cannot_be_used_keeps_its_last_word_and_is_reported_until_it_is_mended() {
        let mut table = listed(&[object("a", 1)]);
        let damage = object("a", 1).invalid("line 3", "no YAML");
        for event in [Event::Object(object("a", 0)), Event::Invalid(damage)] {
            take(&mut table, event);
            assert_eq!(known(&table), [("a".into(), 1)]);
            assert_eq!(table.invalid().count(), 1);
        }
        take(&mut table, Event::Object(object("a", 2)));
        assert_eq!((known(&table), table.invalid().count()), (vec![("a".into(), 2)], 0));
        take(&mut table, Event::Object(object("a", 0)));
        take(&mut table, Event::Deleted("a".into()));
        assert_eq!((known(&table), table.invalid().count()), (vec![], 0));
    }

    #[test]
    fn who_holds_the_values_keeps_them_while_the_table_goes_on() {
        let mut table = listed(&[object("a", 1)]);
        let before = table.values();
        take(&mut table, Event::Deleted("a".into()));
        assert_eq!((before.len(), table.values().len()), (1, 0));
    }

    #[test]
    fn an_object_that_means_the_same_as_before_is_no_change() {
        let mut table = Table::default();
        take(&mut table, Event::Object(object("a", 1)));
        let before = table.values();
        let mut again = object("a", 1);
        again.metadata.resource_version = Some("2".into());
        take(&mut table, Event::Object(again));
        assert!(Arc::ptr_eq(&before, &table.values()));
        take(&mut table, Event::Object(object("a", 2)));
        assert!(!Arc::ptr_eq(&before, &table.values()));
    }
}
