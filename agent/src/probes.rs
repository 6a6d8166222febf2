//! Whether an agent lives and is ready, as kubelet's probes and people ask.
//!
//! The answers are text in the manner of the API server's `/readyz?verbose`: a line a check, `[+]` or `[-]`, and the reason.

use std::fmt;

use crate::no_ipip;
use crate::status::{Bgp, Status};

/// What a reader asks of BGP before a node counts as ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BgpAsked {
    /// Nothing: that a peer is away is shown, and takes no node out.
    #[default]
    Nothing,
    /// One session is established at least.
    Any,
    /// All sessions are established.
    All,
}

impl BgpAsked {
    /// From the query of a URL: nothing, `bgp=any` or `bgp=all`.
    ///
    /// # Errors
    /// What is allowed.
    pub fn from_query(query: Option<&str>) -> Result<Self, String> {
        match query.unwrap_or_default() {
            "" => Ok(Self::Nothing),
            "bgp=any" => Ok(Self::Any),
            "bgp=all" => Ok(Self::All),
            other => Err(format!("?{other}: bgp=any and bgp=all can be asked for")),
        }
    }
}

/// What came of some checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict(Vec<Check>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    /// Why it failed.
    failed: Option<String>,
    /// Why the verdict does not depend on it.
    aside: Option<&'static str>,
}

impl Verdict {
    /// Whether every check that counts was passed.
    pub fn is_good(&self) -> bool {
        self.0.iter().all(|check| check.failed.is_none() || check.aside.is_some())
    }

    fn check(mut self, name: &'static str, failed: Option<String>) -> Self {
        self.0.push(Check { name, failed, aside: None });
        self
    }

    /// One that is shown, and on which nothing depends.
    fn show(mut self, name: &'static str, failed: Option<String>, aside: &'static str) -> Self {
        self.0.push(Check { name, failed, aside: Some(aside) });
        self
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, failed, aside } in &self.0 {
            match (failed, aside) {
                (None, _) => writeln!(f, "[+] {name}: ok")?,
                (Some(reason), None) => writeln!(f, "[-] {name}: {reason}")?,
                (Some(reason), Some(aside)) => writeln!(f, "[+] {name}: {reason} ({aside})")?,
            }
        }
        f.write_str(if self.is_good() { "ok\n" } else { "not ok\n" })
    }
}

/// An agent lives while its loops turn: `stuck` names those that do not.
pub fn alive(stuck: &[&str]) -> Verdict {
    let failed = |name: &str| stuck.contains(&name).then(|| "it does not answer".to_owned());
    let loops = [NODE_LOOP, ROUTE_LOOP];
    loops.into_iter().fold(Verdict::default(), |verdict, name| verdict.check(name, failed(name)))
}

/// The name of the loop that owns the kernel.
pub const NODE_LOOP: &str = "node loop";
/// The name of the loop that owns BGP.
pub const ROUTE_LOOP: &str = "route loop";

/// A node is ready when its pods can be attached and reached: the objects are known, the kernel is as it should be, pods are
/// served, and the runtime finds the plugin's configuration where the agent installs it. A kernel without ipip is shown:
/// what needs no tunnel works.
pub fn ready(status: &Status, asked: BgpAsked) -> Verdict {
    let datastore = (!status.in_sync).then(|| format!("{} is not read whole, or is away", status.datastore));
    let kernel = (!status.in_desired_state).then(|| "it is not yet as it should be".to_owned());
    let pods = (!status.ready).then(|| status.not_ready.clone().unwrap_or_else(|| "not served".into()));
    let mut verdict = Verdict::default()
        .check("datastore", datastore)
        .check("kernel", kernel.map(|reason| with_problems(reason, status)))
        .check("pods", pods)
        .check("cni", status.no_conflist.then(|| "the configuration is not written yet".to_owned()));
    if status.no_ipip {
        verdict = verdict.show("tunnel", Some(no_ipip::REMEDY.to_owned()), "the node is ready without it");
    }
    if let Some(bgp) = &status.bgp {
        let missing = missing_sessions(bgp, asked);
        verdict = match asked {
            BgpAsked::Nothing => verdict.show("bgp", missing, "not asked for"),
            BgpAsked::Any | BgpAsked::All => verdict.check("bgp", missing),
        };
    }
    verdict
}

/// A reason, and what the kernel refused.
fn with_problems(reason: String, status: &Status) -> String {
    let is_of_kernel =
        |problem: &&String| problem.starts_with("kernel: ") || problem.starts_with("nftables: ");
    let of_kernel = status.problems.iter().filter(is_of_kernel);
    of_kernel.fold(reason, |text, problem| format!("{text}; {problem}"))
}

fn missing_sessions(bgp: &Bgp, asked: BgpAsked) -> Option<String> {
    let down: Vec<String> = bgp
        .peers
        .iter()
        .filter(|peer| peer.state != ESTABLISHED)
        .map(|peer| format!("{} is {}", peer.name, peer.state))
        .collect();
    let enough = match asked {
        BgpAsked::Any => down.is_empty() || down.len() < bgp.peers.len(),
        BgpAsked::Nothing | BgpAsked::All => down.is_empty(),
    };
    (!enough).then(|| {
        format!(
            "{} of {} sessions established; {}",
            bgp.peers.len() - down.len(),
            bgp.peers.len(),
            down.join(", ")
        )
    })
}

/// The state in which routes are exchanged (RFC 4271 section 8.2.2).
pub(crate) const ESTABLISHED: &str = "Established";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Peer;

    fn status() -> Status {
        let peer = |name: &str, state: &str| Peer {
            name: name.into(),
            address: "10.0.0.2".into(),
            asn: 64512,
            state: state.into(),
            seconds: 1,
            received: 0,
            stale: 0,
            sent: 0,
            last_error: None,
        };
        Status {
            ready: true,
            in_sync: true,
            in_desired_state: true,
            datastore: "kubernetes".into(),
            bgp: Some(Bgp {
                asn: 64512,
                router_id: "10.0.0.1".into(),
                listening: String::new(),
                converged: true,
                peers: vec![peer("Mesh_10_0_0_2", ESTABLISHED), peer("Global_10_0_0_9", "Connect")],
            }),
            ..Status::default()
        }
    }

    #[test]
    fn a_peer_that_is_away_is_shown_and_takes_a_node_out_only_for_who_asks_for_all() {
        let verdict = |query| ready(&status(), BgpAsked::from_query(Some(query)).unwrap());
        let shown = "[+] datastore: ok\n[+] kernel: ok\n[+] pods: ok\n[+] cni: ok\n\
                     [+] bgp: 1 of 2 sessions established; Global_10_0_0_9 is Connect (not asked for)\nok\n";
        assert_eq!(verdict("").to_string(), shown);
        assert!(verdict("bgp=any").is_good());
        assert!(!verdict("bgp=all").is_good());
        assert!(
            verdict("bgp=all")
                .to_string()
                .contains("[-] bgp: 1 of 2 sessions established; Global_10_0_0_9 is Connect\n")
        );
        assert_eq!(
            BgpAsked::from_query(Some("bgp=most")).unwrap_err(),
            "?bgp=most: bgp=any and bgp=all can be asked for"
        );
    }

    #[test]
    fn a_node_is_not_ready_for_as_long_as_anything_is_missing_and_says_what() {
        let mut away = status();
        (away.in_sync, away.in_desired_state, away.ready) = (false, false, false);
        away.not_ready = Some("waiting for this node's address".into());
        away.no_conflist = true;
        let problems = ["kernel: cannot read routes", "nftables: refused", "bgp: none of its business"];
        away.problems = problems.map(String::from).to_vec();
        let said = ready(&away, BgpAsked::Nothing);
        assert!(!said.is_good());
        let said = said.to_string();
        assert!(said.contains("[-] datastore: kubernetes is not read whole, or is away\n"), "{said}");
        assert!(
            said.contains(
                "[-] kernel: it is not yet as it should be; kernel: cannot read routes; nftables: refused\n"
            ),
            "{said}"
        );
        assert!(said.contains("[-] pods: waiting for this node's address\n"), "{said}");
        assert!(said.contains("[-] cni: the configuration is not written yet\n"), "{said}");
        assert!(said.ends_with("not ok\n"), "{said}");
    }

    #[test]
    fn a_kernel_without_ipip_is_named_with_the_remedy_and_takes_no_node_out() {
        let said = ready(&Status { no_ipip: true, ..status() }, BgpAsked::Nothing);
        assert!(said.is_good());
        let said = said.to_string();
        assert!(said.contains("tunnel: this kernel has no ipip") && said.contains("or load ipip"), "{said}");
        assert!(!ready(&status(), BgpAsked::Nothing).to_string().contains("tunnel"));
    }

    #[test]
    fn an_agent_with_a_loop_that_does_not_turn_is_not_alive() {
        assert_eq!(alive(&[]).to_string(), "[+] node loop: ok\n[+] route loop: ok\nok\n");
        assert_eq!(
            alive(&[ROUTE_LOOP]).to_string(),
            "[+] node loop: ok\n[-] route loop: it does not answer\nnot ok\n"
        );
    }
}
