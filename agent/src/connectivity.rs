//! What `helm test` finds out: whether pods of different nodes reach each other, a service, DNS and the API server.
//!
//! Some pods *serve*: one a node, as many as the chart is told. Another one *checks*: it finds them by the name of their
//! headless service, reaches out to everything from where it is, and has each of them do the same from its own place. So
//! nothing has to be asked of the API server, and no test pod needs any right there.
//!
//! What is here only judges and tells; [`survey`] reaches out, [`server`] answers.

mod calls;
pub mod server;
pub mod survey;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A test pod, and its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The node's name.
    pub node: String,
    /// The pod's.
    pub pod: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.pod, self.node)
    }
}

/// What is reached out to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The cluster's DNS.
    Dns,
    /// A pod at its own address.
    Pod,
    /// Pods behind the address of a service.
    Service,
    /// The API server behind the address of its service.
    ApiServer,
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// From where.
    pub from: Place,
    /// To what.
    pub target: Target,
    /// Which one: a name or an address.
    pub to: String,
    /// What answered; or what is wrong, and what to do.
    pub seen: Result<String, String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match self.target {
            Target::Dns => "DNS",
            Target::Pod => "pod",
            Target::Service => "service",
            Target::ApiServer => "API server",
        };
        let (verdict, words) = match &self.seen {
            Ok(words) => ("ok  ", words),
            Err(words) => ("FAIL", words),
        };
        write!(f, "{verdict}  {} -> {target} {}: {words}", self.from.node, self.to)
    }
}

/// All findings, a line each, below the place from which they were made.
pub fn page(findings: &[Finding]) -> String {
    let mut page = String::new();
    for group in findings.chunk_by(|one, next| one.from == next.from) {
        page += &format!("From {}:\n", group[0].from);
        group.iter().for_each(|finding| page += &format!("{finding}\n"));
    }
    page
}

/// Why a check failed, as far as the one who reached out can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A name could not be looked up.
    Unresolved(String),
    /// A name was looked up, and what was found is not what should be.
    Wrong(String),
    /// There is no connection.
    Unconnected(String),
    /// There is one, and not even a few bytes came back.
    Unanswered(String),
    /// A few bytes came back, and a body of many full packets did not.
    LargeLost(String),
}

impl Trouble {
    /// What is wrong, and what to do; `nameservers` are those that were asked.
    pub fn told(&self, target: Target, nameservers: &str) -> String {
        match (self, target) {
            (Self::Unresolved(why), _) => format!(
                "{nameservers} gave no answer ({why}). Is DNS up, and reached from this node? \
                 `kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide`"
            ),
            (Self::Wrong(why), Target::Dns) => why.clone(),
            (Self::LargeLost(why), _) => format!(
                "a few bytes come back, and 64 KiB do not ({why}): full packets are lost. Compare the MTU of the pods \
                 (`cni.mtu`) with that of every link between the nodes, less 20 bytes where there is IP-in-IP"
            ),
            (Self::Unconnected(why) | Self::Unanswered(why) | Self::Wrong(why), target) => {
                let remedy = match target {
                    Target::Pod => {
                        "`manx status` in the agent's pod of either node says which route or peer is missing; what else \
                         stands between the nodes may drop their packets"
                    }
                    _ => {
                        "Is kube-proxy up on this node (or what stands in for it)? If pods are not reached either, begin \
                         with them"
                    }
                };
                format!("{why}. {remedy}")
            }
        }
    }
}

/// The addresses that the name of the test pods must have.
pub fn judge_pods(found: &[IpAddr], wanted: usize) -> Result<(), Trouble> {
    if found.len() >= wanted {
        return Ok(());
    }
    Err(Trouble::Wrong(format!(
        "{} of {wanted} test pods are ready. `kubectl get pods -A -l app.kubernetes.io/name=manx-test -o wide` says what \
         the others wait for",
        found.len()
    )))
}

/// The address that a service's name must have, where it is known from elsewhere.
pub fn judge_service(found: &[IpAddr], known: Option<IpAddr>) -> Result<(), Trouble> {
    match known {
        Some(known) if !found.contains(&known) => Err(Trouble::Wrong(format!(
            "it is {}, and the service has {known}: DNS is behind, or another cluster's",
            list(found)
        ))),
        _ => Ok(()),
    }
}

/// Addresses or names, as people read them.
pub fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How it went as a whole: whether all is well, and the last line for the operator. `servers` are those that were found.
pub fn verdict(findings: &[Finding], servers: &BTreeSet<Place>) -> (bool, String) {
    let failed = findings.iter().filter(|finding| finding.seen.is_err()).count();
    if failed > 0 || findings.is_empty() {
        return (false, format!("{failed} of {} checks failed", findings.len()));
    }
    let nodes: BTreeSet<&str> = servers.iter().map(|place| place.node.as_str()).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let passed = format!("all {} checks passed", findings.len());
    match nodes[..] {
        [only] => (
            true,
            format!(
                "{passed}; but test pods were only on {only}, so whether nodes reach each other was NOT tried: no other \
                 node takes pods"
            ),
        ),
        _ => (true, format!("{passed}, with pods on {}", list(&nodes))),
    }
}

#[cfg(test)]
mod tests;
