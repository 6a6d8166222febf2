//! Calico's objects on the API server, as bare JSON, each write a compare-and-swap.

use anyhow::{Context as _, Result, bail};
use manx_kubernetes::{Answer, Client};
use serde_json::{Value, json};

/// Calico's storage group.
const GROUP: &str = "/apis/crd.projectcalico.org/v1";

/// The objects of the group. May be used from many threads.
#[derive(Debug, Clone)]
pub struct Api(Client);

/// How a write ended.
#[derive(Debug)]
pub enum Write {
    /// The object as it is now.
    Done(Value),
    /// Somebody else was faster: the name is taken, the object has changed, or it is gone.
    Lost,
}

impl Api {
    /// As this user.
    pub fn new(client: Client) -> Api {
        Api(client)
    }

    /// One object.
    pub fn get(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let answer = self.0.ask("GET", &format!("{GROUP}/{kind}/{name}"), "")?;
        match answer.status {
            404 => Ok(None),
            _ => read(&answer).map(Some),
        }
    }

    /// All of a kind.
    pub fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let list = read(&self.0.ask("GET", &format!("{GROUP}/{kind}"), "")?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Stores a new object: `IPAMBlock` in `ipamblocks`, say.
    pub fn create(&self, plural: &str, kind: &str, name: &str, spec: Value) -> Result<Write> {
        let object = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        });
        wrote(&self.0.ask("POST", &format!("{GROUP}/{plural}"), &object.to_string())?)
    }

    /// Replaces the version that `object` is.
    pub fn update(&self, plural: &str, object: &Value) -> Result<Write> {
        wrote(&self.0.ask("PUT", &path(plural, object)?, &object.to_string())?)
    }

    /// Deletes in two steps, as Calico does: marks the object as deleted (where it wins the race to), then removes it.
    pub fn delete(&self, plural: &str, object: &Value, mark: Value) -> Result<Write> {
        let mut marked = object.clone();
        marked["spec"]["deleted"] = mark;
        let Write::Done(marked) = self.update(plural, &marked)? else { return Ok(Write::Lost) };
        let options = json!({"preconditions": {"uid": marked["metadata"]["uid"]}});
        wrote(&self.0.ask("DELETE", &path(plural, object)?, &options.to_string())?)
    }
}

fn path(plural: &str, object: &Value) -> Result<String> {
    let name = object["metadata"]["name"].as_str().context("an object without a name")?;
    Ok(format!("{GROUP}/{plural}/{name}"))
}

fn read(answer: &Answer) -> Result<Value> {
    match answer.status {
        200 | 201 => Ok(serde_json::from_str(&answer.body)?),
        status => bail!("{status}: {}", answer.body.trim()),
    }
}

fn wrote(answer: &Answer) -> Result<Write> {
    match answer.status {
        404 | 409 => Ok(Write::Lost),
        _ => read(answer).map(Write::Done),
    }
}
