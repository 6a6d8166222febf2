//! Pods, attached by the real CNI binary exactly as a container runtime calls it.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Lab, Program, cni_binary, netns};

/// A pod that was attached, as the lab remembers it (`pods/POD.json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// The pod's name, which also names its network namespace.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// The node that it is on.
    pub node: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// The whole result of ADD, which CHECK and DEL are given as `prevResult`.
    pub result: Value,
}

/// One call of the plugin. [`Lab::pod_add`] and its sisters make the usual ones; change the fields for others.
#[derive(Debug, Clone)]
pub struct Cni {
    /// The plugin; `None` is the one under test ([`cni_binary`]).
    pub binary: Option<PathBuf>,
    /// `CNI_COMMAND`: ADD, DEL, CHECK, VERSION, GC or STATUS.
    pub command: String,
    /// The node in whose namespace it runs.
    pub node: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// The network configuration on stdin.
    pub config: Value,
}

/// What the plugin answered.
#[derive(Debug, Clone, PartialEq)]
pub struct CniReply {
    /// Its exit code; `None` when a signal ended it.
    pub exit: Option<i32>,
    /// The JSON on its stdout: a result, or an error with `code`, `msg` and `details`. Null when there was none.
    pub json: Value,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl CniReply {
    /// The result, or the plugin's error in words.
    pub fn ok(self) -> Result<Value> {
        match self.error_code() {
            _ if self.exit == Some(0) => Ok(self.json),
            Some(code) => bail!("CNI error {code}: {} {}", self.json["msg"], self.json["details"]),
            None => bail!("the CNI plugin ended with {:?} and no error object: {}", self.exit, self.stderr),
        }
    }

    /// The `code` of an error object, for instance 11 for "try again later".
    pub fn error_code(&self) -> Option<u64> {
        if self.exit == Some(0) { None } else { self.json["code"].as_u64() }
    }
}

impl Lab {
    /// The network configuration of a node: CNI 1.0.0, `k8s-pod-network`, with the node's socket and spool.
    pub fn cni_config(&self, node: &str) -> Result<Value> {
        let node = self.node(node)?;
        Ok(json!({
            "cniVersion": "1.0.0",
            "name": "k8s-pod-network",
            "type": "manx-cni",
            "socket": node.cni_socket(),
            "spool": node.cni_spool(),
        }))
    }

    /// The usual call for a pod; for DEL and CHECK with the `prevResult` of a pod that was attached.
    pub fn cni_call(&self, command: &str, node: &str, pod: &str, namespace: &str) -> Result<Cni> {
        let mut config = self.cni_config(node)?;
        let known = self.pod(pod).ok();
        if let Some(known) = known.as_ref().filter(|_| command != "ADD") {
            config["prevResult"] = known.result.clone();
        }
        let container_id = format!("{}-{pod}", self.name());
        let mut args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod};\
             K8S_POD_INFRA_CONTAINER_ID={container_id}"
        );
        if let Ok(uid) = fs::read_to_string(self.pod_uid_file(pod)) {
            args += &format!(";K8S_POD_UID={uid}");
        }
        Ok(Cni {
            binary: None,
            command: command.to_owned(),
            node: node.to_owned(),
            container_id,
            netns: netns::path(&self.netns(pod)),
            ifname: "eth0".to_owned(),
            args,
            config,
        })
    }

    /// Executes the plugin in the node's namespace, whatever its answer.
    pub fn cni(&self, call: &Cni) -> Result<CniReply> {
        let binary = call.binary.clone().map_or_else(cni_binary, Ok)?;
        let mut command = Program::new(&binary)
            .env("CNI_COMMAND", &call.command)
            .env("CNI_CONTAINERID", &call.container_id)
            .env("CNI_NETNS", &call.netns)
            .env("CNI_IFNAME", &call.ifname)
            .env("CNI_ARGS", &call.args)
            .env("CNI_PATH", binary.parent().unwrap_or(&binary))
            .command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = netns::within(&self.netns(&call.node), || command.spawn())?
            .with_context(|| format!("cannot run {}", binary.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that refuses its environment may end without reading.
            let _ = stdin.write_all(call.config.to_string().as_bytes());
        }
        let output = child.wait_with_output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let json = match stdout.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).with_context(|| format!("the plugin answered {text:?}"))?,
        };
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(CniReply { exit: output.status.code(), json, stderr })
    }

    /// Makes a pod's namespace and attaches it. When the plugin fails, the namespace is removed, after a DEL as a
    /// runtime sends it.
    pub fn pod_add(&self, node: &str, pod: &str, namespace: &str) -> Result<Pod> {
        self.pod_namespace(pod)?;
        let attached = self.pod_attach(node, pod, namespace);
        if attached.is_err() {
            let _ = self.cni_call("DEL", node, pod, namespace).and_then(|call| self.cni(&call));
            netns::remove(&[self.netns(pod)])?;
        }
        attached.with_context(|| format!("attaching pod {namespace}/{pod} on {node}"))
    }

    /// Makes the namespace of a pod, with `lo` up as the loopback plugin leaves it, and does not attach it.
    pub fn pod_namespace(&self, pod: &str) -> Result<()> {
        let plain =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-.".contains(letter);
        ensure!(
            !pod.is_empty() && pod.chars().all(plain),
            "pod {pod:?} is not a name that Kubernetes allows"
        );
        let netns = self.netns(pod);
        netns::add(&[&netns])?;
        netns::ip_lines(&netns, &["link set lo up".to_owned()])
    }

    /// Attaches a pod whose namespace is there.
    pub fn pod_attach(&self, node: &str, pod: &str, namespace: &str) -> Result<Pod> {
        let call = self.cni_call("ADD", node, pod, namespace)?;
        let result = self.cni(&call)?.ok()?;
        let pod = Pod {
            name: pod.to_owned(),
            namespace: namespace.to_owned(),
            node: node.to_owned(),
            container_id: call.container_id,
            address: first_address(&result)?,
            result,
        };
        fs::write(self.pod_file(&pod.name), serde_json::to_vec_pretty(&pod)?)?;
        Ok(pod)
    }

    /// Detaches a pod and removes its namespace.
    pub fn pod_del(&self, pod: &str) -> Result<()> {
        let known = self.pod(pod)?;
        let call = self.cni_call("DEL", &known.node, pod, &known.namespace)?;
        self.cni(&call)?.ok().with_context(|| format!("detaching pod {pod}"))?;
        netns::remove(&[self.netns(pod)])?;
        fs::remove_file(self.pod_file(pod)).with_context(|| format!("forgetting pod {pod}"))
    }

    /// Runs CHECK for a pod; an error says what is wrong with it.
    pub fn pod_check(&self, pod: &str) -> Result<()> {
        let known = self.pod(pod)?;
        let call = self.cni_call("CHECK", &known.node, pod, &known.namespace)?;
        self.cni(&call)?.ok().map(|_| ()).with_context(|| format!("checking pod {pod}"))
    }

    /// A pod that was attached, by name.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let bytes = fs::read(self.pod_file(name))
            .with_context(|| format!("lab {} has no pod {name}", self.name()))?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged", self.pod_file(name).display()))
    }

    /// All pods that are attached, by name.
    pub fn pods(&self) -> Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for entry in fs::read_dir(self.dir().join("pods"))? {
            let file = entry?.file_name();
            if let Some(name) = file.to_str().and_then(|name| name.strip_suffix(".json")) {
                pods.push(self.pod(name)?);
            }
        }
        pods.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(pods)
    }

    /// Gives a pod the uid of its object in Kubernetes, which the plugin is told from now on.
    pub(crate) fn set_pod_uid(&self, pod: &str, uid: &str) -> Result<()> {
        Ok(fs::write(self.pod_uid_file(pod), uid)?)
    }

    fn pod_uid_file(&self, name: &str) -> PathBuf {
        self.dir().join("pods").join(format!("{name}.uid"))
    }

    fn pod_file(&self, name: &str) -> PathBuf {
        self.dir().join("pods").join(format!("{name}.json"))
    }
}

/// The first IPv4 address of a CNI result of version 0.3.0 or later: `ips[].address`.
fn first_address(result: &Value) -> Result<Ipv4Addr> {
    let addresses = result["ips"].as_array().into_iter().flatten();
    let first = addresses.filter_map(|ip| ip["address"].as_str()).find_map(|text| {
        let (address, _) = text.split_once('/')?;
        address.parse().ok()
    });
    first.with_context(|| format!("the CNI result has no IPv4 address: {result}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_pod_is_the_first_ipv4_of_its_result() {
        let result = json!({"ips": [{"address": "fd00::1/128"}, {"address": "192.168.7.1/32"}]});
        assert_eq!(first_address(&result).unwrap(), Ipv4Addr::new(192, 168, 7, 1));
        assert!(first_address(&json!({})).is_err());
    }

    #[test]
    fn an_error_object_is_told_in_words() {
        let json = json!({"code": 11, "msg": "try again later", "details": "the agent is away"});
        let reply = CniReply { exit: Some(1), json, stderr: String::new() };
        assert_eq!(reply.error_code(), Some(11));
        let words = reply.ok().unwrap_err().to_string();
        assert!(words.contains("11") && words.contains("the agent is away"), "{words}");
    }
}
