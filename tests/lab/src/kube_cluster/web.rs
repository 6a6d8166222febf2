//! What runs on the cluster: a web server on every node, and what reaches it and what it reaches.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};

use super::{KubeCluster, KubePod, PATIENCE, get};
use crate::topology::OUTSIDE_HOST;
use crate::{DNS_SERVICE, eventually, netns};

/// A Deployment `web` of two pods on two nodes, and its service.
const MANIFEST: &str = include_str!("web.yaml");
/// Where its pods listen.
pub const PORT: u16 = 8080;
/// Where each node forwards to the pod on it.
pub const HOST_PORT: u16 = 8888;
/// The address of its service, on port 80.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 80);
/// The API server's, on port 443, and where it is in truth.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Something that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Who reached it, and what.
    pub way: String,
    /// What was seen there.
    pub seen: String,
}

impl KubeCluster {
    /// Applies the Deployment and its service, waits for the pods, and attaches them to the lab.
    pub fn web(&self) -> Result<Vec<KubePod>> {
        self.control_plane.apply(MANIFEST)?;
        self.wait_rolled_out("default", "deployment/web")?;
        let mut pods = self.pods("default", "app=web")?;
        pods.sort_by(|one, other| one.node.cmp(&other.node));
        pods.iter().try_for_each(|pod| self.attach(pod))?;
        Ok(pods)
    }

    /// Goes every way that a cluster's network is there for, from and to these two pods on two nodes; fails at the first
    /// that does not lead there.
    pub fn reach_everything(&self, pods: &[KubePod]) -> Result<Vec<Reached>> {
        let [one, other] = pods else { anyhow::bail!("two pods are needed, and there are {}", pods.len()) };
        let mut ways = Vec::new();
        for (from, to) in [(one, other), (other, one)] {
            self.pod_reaches_pod(from, to, &mut ways)?;
            self.pod_reaches(from, &mut ways)?;
            self.pod_is_reached(to, &mut ways)?;
        }
        Ok(ways)
    }

    fn pod_reaches_pod(&self, from: &KubePod, to: &KubePod, ways: &mut Vec<Reached>) -> Result<()> {
        let seen = self.source_seen(&from.name, &to.name, to.address)?;
        ensure!(
            seen == from.address,
            "{} sees {seen} when {} comes from {}",
            to.name,
            from.name,
            from.address
        );
        note(
            ways,
            format!("{} on {} → {} on {}", from.name, from.node, to.name, to.node),
            &format!("it comes from {seen}"),
        );
        Ok(())
    }

    fn pod_reaches(&self, pod: &KubePod, ways: &mut Vec<Reached>) -> Result<()> {
        let answers: Vec<String> = self.both(&pod.name, (SERVICE, 80).into())?;
        note(ways, format!("{} → service {SERVICE}, itself too (hairpin)", pod.name), &answers.join(", "));
        let name = "web.default.svc.cluster.local";
        let found = self.resolve(pod, name)?;
        ensure!(found.contains(&SERVICE.to_string()), "{name} is {found}");
        note(ways, format!("{} → DNS {DNS_SERVICE}: {name}", pod.name), &SERVICE.to_string());
        netns::within(&self.lab.netns(&pod.name), || {
            std::net::TcpStream::connect_timeout(&(API_SERVICE, 443).into(), get::PATIENCE)
        })?
        .with_context(|| format!("{} cannot reach the API server at {API_SERVICE}:443", pod.name))?;
        note(ways, format!("{} → the API server {API_SERVICE}:443", pod.name), "it answers");
        let node = self.lab.node(&pod.node)?.address();
        let seen = self.source_seen(&pod.name, "outside", OUTSIDE_HOST)?;
        ensure!(seen == node, "outside sees {seen} when {} of {} ({node}) comes", pod.name, pod.node);
        note(
            ways,
            format!("{} → the host outside", pod.name),
            &format!("it comes from {seen}, the node (NAT)"),
        );
        Ok(())
    }

    fn pod_is_reached(&self, pod: &KubePod, ways: &mut Vec<Reached>) -> Result<()> {
        for from in ["outside", &pod.node] {
            let answer = self.get(from, (pod.address, PORT).into())?;
            ensure!(answer == pod.name, "{from} asks {} and {answer} answers", pod.name);
            note(ways, format!("{from} → {} at its own address {}", pod.name, pod.address), "it answers");
        }
        let node = self.lab.node(&pod.node)?.address();
        let answer = self.get("outside", (node, HOST_PORT).into())?;
        ensure!(answer == pod.name, "{node}:{HOST_PORT} answers as {answer}, and not as {}", pod.name);
        note(
            ways,
            format!("outside → port {HOST_PORT} of {} (hostPort)", pod.node),
            &format!("{answer} answers"),
        );
        Ok(())
    }

    /// Who answers at the service, asked until both have: kube-proxy learns of a pod a moment after it is ready.
    fn both(&self, from: &str, service: SocketAddr) -> Result<Vec<String>> {
        let mut answers = Vec::new();
        eventually(PATIENCE, &format!("both pods to answer {from} at {service}"), || {
            let answer = self.get(from, service)?;
            if !answers.contains(&answer) {
                answers.push(answer);
            }
            ensure!(answers.len() == 2, "so far {answers:?} did");
            Ok(answers.clone())
        })
    }

    /// What the pod itself finds for a name.
    fn resolve(&self, pod: &KubePod, name: &str) -> Result<String> {
        self.kubectl(&["exec", &pod.name, "-n", &pod.namespace, "--", "nslookup", name])
    }

    /// From which address something in one namespace of the lab comes, as seen in another.
    pub fn source_seen(&self, from: &str, to: &str, address: Ipv4Addr) -> Result<Ipv4Addr> {
        get::source_seen(&self.lab.netns(from), &self.lab.netns(to), address)
    }
}

fn note(ways: &mut Vec<Reached>, way: String, seen: &str) {
    ways.push(Reached { way, seen: seen.to_owned() });
}
