//! A container runtime: the Go driver, built when the first test needs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{Cluster, Fabric, Lab, Options, Program, Topology, cni_binary, netns};
use serde_json::{Value, json};

/// Where Debian's containernetworking-plugins are.
const DEBIAN: &str = "/usr/lib/cni";

/// One node with an agent that speaks no BGP.
pub(crate) fn cluster() -> Cluster {
    let lab = Lab::up(Options::unique("cni", Topology::one_subnet(1))).unwrap();
    Cluster::start(lab, &[("CALICO_NETWORKING_BACKEND", "none")]).unwrap()
}

/// The same with its objects in Kubernetes.
pub(crate) fn cluster_on_kubernetes() -> Cluster {
    let topology = Topology::founding().keeping(&["node1"]).fabric(Fabric::Router);
    let mut cluster = Cluster::on_kubernetes(Lab::up(Options::unique("cni", topology)).unwrap()).unwrap();
    cluster.start_agents(&["node1"], &[("CALICO_NETWORKING_BACKEND", "none")]).unwrap();
    cluster
}

/// The driver's program.
fn driver() -> &'static Path {
    static DRIVER: OnceLock<PathBuf> = OnceLock::new();
    DRIVER.get_or_init(|| build().unwrap_or_else(|error| panic!("{error:#}")))
}

fn build() -> Result<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/driver");
    let module = std::fs::read_to_string(format!("{source}/go.mod"))?;
    let wanted = module.lines().find(|line| line.starts_with("go ")).unwrap_or("go");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cni-driver");
    let built = Command::new("go")
        .args(["build", "-C", source, "-mod=readonly", "-trimpath", "-buildvcs=false", "-o"])
        .arg(&program)
        .arg(".")
        .output()
        .with_context(|| {
            format!("the tests of CNI need Go ({wanted} or later, https://go.dev/dl); there is no `go`")
        })?;
    let words = String::from_utf8_lossy(&built.stderr).into_owned();
    ensure!(built.status.success(), "the driver, which needs {wanted} or later, does not build: {words}");
    Ok(program)
}

/// A runtime on `node1` with one network.
pub(crate) struct Runtime<'a> {
    lab: &'a Lab,
    /// The network configuration list.
    pub(crate) list: Value,
    /// The library's memory.
    cache: PathBuf,
}

/// A container and its device.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) pod: String,
    pub(crate) id: String,
    pub(crate) netns: String,
    pub(crate) device: String,
}

/// What the library made of a call.
#[derive(Clone, Debug)]
pub(crate) struct Answer(Value);

impl Answer {
    /// The result of ADD, or the error in words.
    pub(crate) fn ok(self) -> Result<Value> {
        ensure!(self.0["error"].is_null(), "{}", self.0["error"]);
        Ok(self.0["result"].clone())
    }

    /// The plugin's error code; 0 is an error of the library itself.
    pub(crate) fn code(&self) -> Option<u64> {
        self.0["error"].as_object().map(|error| error["code"].as_u64().unwrap_or(0))
    }

    /// Any other field.
    pub(crate) fn field(&self, name: &str) -> &Value {
        &self.0[name]
    }
}

impl<'a> Runtime<'a> {
    /// A network of one plugin: ours, in the newest version.
    pub(crate) fn new(lab: &'a Lab) -> Self {
        let mut plugin = lab.cni_config("node1").unwrap();
        plugin.as_object_mut().unwrap().retain(|key, _| key != "cniVersion" && key != "name");
        let list = json!({ "cniVersion": "1.1.0", "name": "k8s-pod-network", "plugins": [plugin] });
        Self { lab, list, cache: lab.dir().join("cni-cache") }
    }

    /// The same in another version.
    pub(crate) fn version(mut self, version: &str) -> Self {
        self.list["cniVersion"] = json!(version);
        self
    }

    /// The same with more plugins behind ours.
    pub(crate) fn chained(mut self, plugins: &[Value]) -> Self {
        self.list["plugins"].as_array_mut().unwrap().extend_from_slice(plugins);
        self
    }

    /// The same without memory of what was attached.
    pub(crate) fn forgetful(mut self) -> Self {
        self.cache = self.lab.dir().join("cni-no-cache");
        self
    }

    /// A sandbox for a new pod.
    pub(crate) fn sandbox(&self, pod: &str) -> Container {
        self.lab.pod_namespace(pod).unwrap();
        let netns = netns::path(&self.lab.netns(pod)).display().to_string();
        Container { pod: pod.to_owned(), id: format!("{pod}-1"), netns, device: "eth0".to_owned() }
    }

    /// A call for a container.
    pub(crate) fn call(&self, verb: &str, container: &Container) -> Answer {
        self.ask(verb, container, json!({}))
    }

    /// A call with capabilities.
    pub(crate) fn ask(&self, verb: &str, container: &Container, capabilities: Value) -> Answer {
        let args = [
            ["IgnoreUnknown", "1"],
            ["K8S_POD_NAMESPACE", "default"],
            ["K8S_POD_NAME", &container.pod],
            ["K8S_POD_INFRA_CONTAINER_ID", &container.id],
        ];
        self.drive(json!({
            "verb": verb, "containerID": container.id, "netns": container.netns, "ifname": container.device,
            "args": args, "capabilities": capabilities,
        }))
    }

    /// GC, with the containers that are valid.
    pub(crate) fn gc(&self, valid: &[&Container]) -> Answer {
        let valid: Vec<Value> = valid
            .iter()
            .map(|container| json!({ "containerID": container.id, "ifname": container.device }))
            .collect();
        self.drive(json!({ "verb": "GC", "valid": valid }))
    }

    /// A verb that is about no container.
    pub(crate) fn network(&self, verb: &str) -> Answer {
        self.drive(json!({ "verb": verb }))
    }

    fn drive(&self, mut call: Value) -> Answer {
        let plugin = cni_binary().unwrap();
        call["list"] = self.list.clone();
        call["path"] = json!([plugin.parent().unwrap(), DEBIAN]);
        call["cache"] = json!(self.cache);
        let output = self.lab.output("node1", &Program::new(driver()).arg(call.to_string())).unwrap();
        assert!(output.status.success(), "{call}: {}", String::from_utf8_lossy(&output.stderr));
        Answer(serde_json::from_slice(&output.stdout).unwrap())
    }
}
