//! Passwords of BGP sessions: read from the Secrets that BGPPeers and BGPConfiguration refer to, and kept up to date.
//!
//! A password that cannot be read holds its session down, with the reason in its status: a session is never opened
//! unsigned because a Secret is missing. What a Secret said last stays in force while the datastore is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use data_encoding::BASE64;
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use manx_bgp::session::{Password, Secret};
use manx_datastore::{Datastore, Event, Only};
use manx_model::{Kind, Object};
use serde_json::Value;
use tokio::sync::watch;

use crate::latest;

/// Where a password is: a key of a Secret in the agent's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretRef {
    /// The Secret's name.
    pub name: String,
    /// The key in its data.
    pub key: String,
}

/// The passwords that are wanted; one whose Secret has not been looked for yet is not among them.
pub type Passwords = BTreeMap<SecretRef, Password>;

/// Keeps passwords as their Secrets say, for ever.
pub struct Keeper {
    /// Where the Secrets are.
    pub store: Arc<dyn Datastore>,
    /// The agent's own namespace.
    pub namespace: String,
    /// Which passwords somebody needs.
    pub wanted: watch::Receiver<BTreeSet<SecretRef>>,
    /// Told of all of them whenever one changes.
    pub passwords: watch::Sender<Passwords>,
}

/// The watch of one Secret.
#[derive(Clone, Debug, Default)]
struct Watched {
    known: Known,
    /// The list that is under way has named it.
    listed: bool,
}

/// What is known of one Secret.
#[derive(Clone, Debug, Default)]
enum Known {
    #[default]
    NotRead,
    Absent,
    Damaged(String),
    /// Its `data` (base64) and `stringData`, which are never shown.
    Data(Hidden),
}

#[derive(Clone)]
struct Hidden(Box<Object>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a Secret")
    }
}

impl Keeper {
    /// Runs until nobody wants passwords any more.
    pub async fn run(mut self) {
        let mut secrets: BTreeMap<String, Watched> = BTreeMap::new();
        let mut events = SelectAll::new();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let names: BTreeSet<&String> = wanted.iter().map(|reference| &reference.name).collect();
            for name in names.iter().filter(|name| !secrets.contains_key(**name)) {
                events.push(self.watch(name));
            }
            // A Secret that is wanted no longer stays watched: it is rare, and may be wanted again.
            for name in names {
                secrets.entry(name.clone()).or_default();
            }
            let passwords = wanted.into_iter().filter_map(|reference| {
                let password = self.password(&reference, &secrets.get(&reference.name)?.known)?;
                Some((reference, password))
            });
            latest::set(&self.passwords, passwords.collect());
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                Some((name, event)) = events.next() => {
                    take(&mut secrets, name, event);
                    // A burst is one change.
                    while let Some(Some((name, event))) = events.next().now_or_never() {
                        take(&mut secrets, name, event);
                    }
                }
            }
        }
    }

    fn watch(&self, name: &str) -> BoxStream<'static, (String, Event)> {
        let only = Only::Key(format!("{}/{name}", self.namespace));
        let name = name.to_owned();
        self.store.watch(Kind::Secret, only).map(move |event| (name.clone(), event)).boxed()
    }

    /// `None` while the Secret has not been read.
    fn password(&self, reference: &SecretRef, known: &Known) -> Option<Password> {
        let SecretRef { name, key } = reference;
        let secret = format!("Secret {}/{name}", self.namespace);
        Some(match known {
            Known::NotRead => return None,
            Known::Absent => Password::Missing(format!("{secret} does not exist")),
            Known::Damaged(reason) => Password::Missing(format!("{secret}: {reason}")),
            Known::Data(object) => match value(&object.0, key) {
                Ok(octets) => match Secret::new(&octets) {
                    Ok(secret) => Password::Key(secret),
                    Err(error) => Password::Missing(format!("{secret}: key {key}: {error}")),
                },
                Err(reason) => Password::Missing(format!("{secret}: {reason}")),
            },
        })
    }
}

fn take(secrets: &mut BTreeMap<String, Watched>, name: String, event: Event) {
    let watched = secrets.entry(name).or_default();
    // What it said last stays while the datastore is away, and until a whole list does not name it.
    match event {
        Event::Init => watched.listed = false,
        Event::InSync if !watched.listed => watched.known = Known::Absent,
        Event::InSync | Event::Lost(_) => {}
        Event::Deleted(_) => watched.known = Known::Absent,
        Event::Object(object) => watched.say(Known::Data(Hidden(Box::new(object)))),
        Event::Invalid(invalid) => watched.say(Known::Damaged(invalid.reason)),
    }
}

impl Watched {
    fn say(&mut self, known: Known) {
        self.known = known;
        self.listed = true;
    }
}

/// The octets under `key`. The error never shows a value.
fn value(secret: &Object, key: &str) -> Result<Vec<u8>, String> {
    let text = |field: &str| secret.rest.get(field).and_then(|data| data.get(key)).and_then(Value::as_str);
    if let Some(plain) = text("stringData") {
        return Ok(plain.as_bytes().to_vec());
    }
    let encoded = text("data").ok_or_else(|| format!("it has no key {key}"))?;
    BASE64.decode(encoded.as_bytes()).map_err(|_| format!("key {key} is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_datastore::Memory;
    use manx_datastore::testing::{Faults, Faulty};
    use serde_json::json;

    fn secret(data: Value) -> Object {
        let mut object = Object::new_in(Kind::Secret, "kube-system", "bgp", &Value::Null);
        object.rest.insert("data".into(), data);
        object
    }

    fn reference() -> SecretRef {
        SecretRef { name: "bgp".into(), key: "password".into() }
    }

    struct Fixture {
        store: Faulty<Memory>,
        passwords: watch::Receiver<Passwords>,
        _wanted: watch::Sender<BTreeSet<SecretRef>>,
    }

    fn fixture() -> Fixture {
        let store = Faulty::new(Memory::new(), 1, Faults::default());
        let (sender, wanted) = watch::channel([reference()].into());
        let (passwords, receiver) = watch::channel(Passwords::new());
        let door = Arc::new(store.clone());
        tokio::spawn(Keeper { store: door, namespace: "kube-system".into(), wanted, passwords }.run());
        Fixture { store, passwords: receiver, _wanted: sender }
    }

    impl Fixture {
        async fn becomes(&mut self, like: impl Fn(&Password) -> bool) {
            let reached = self.passwords.wait_for(|all| all.get(&reference()).is_some_and(&like));
            tokio::time::timeout(std::time::Duration::from_secs(60), reached).await.unwrap().unwrap();
        }

        async fn is_missing(&mut self, why: &str) {
            self.becomes(|password| matches!(password, Password::Missing(reason) if reason.contains(why)))
                .await;
        }
    }

    fn key(text: &str) -> Password {
        Password::Key(Secret::new(text.as_bytes()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_follows_its_secret_and_without_one_it_says_why() {
        let mut fixture = fixture();
        fixture.is_missing("Secret kube-system/bgp does not exist").await;
        let stored = fixture.store.create(secret(json!({"password": "aHVudGVyMg=="}))).await.unwrap();
        fixture.becomes(|password| *password == key("hunter2")).await;
        let mut rotated = stored;
        rotated.rest.insert("data".into(), json!({"password": "bmV4dA=="}));
        let rotated = fixture.store.update(rotated).await.unwrap();
        fixture.becomes(|password| *password == key("next")).await;
        fixture.store.delete(&rotated).await.unwrap();
        fixture.is_missing("does not exist").await;
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_datastore_is_away_a_password_stays_and_afterwards_it_is_what_the_secret_says() {
        let mut fixture = fixture();
        let stored = fixture.store.create(secret(json!({"password": "aHVudGVyMg=="}))).await.unwrap();
        fixture.becomes(|password| *password == key("hunter2")).await;
        fixture.store.delete(&stored).await.unwrap();
        fixture.store.down();
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(fixture.passwords.borrow()[&reference()], key("hunter2"));
        fixture.store.up();
        fixture.is_missing("does not exist").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_has_no_such_key_or_no_text_is_named_and_never_shown() {
        let mut fixture = fixture();
        let stored = fixture.store.create(secret(json!({"other": "aHVudGVyMg=="}))).await.unwrap();
        fixture.is_missing("no key password").await;
        let mut damaged = stored;
        damaged.rest.insert("data".into(), json!({"password": "hunter2!"}));
        fixture.store.update(damaged).await.unwrap();
        fixture.is_missing("not base64").await;
        assert!(!format!("{:?}", fixture.passwords.borrow()).contains("hunter2"));
    }
}
