//! The control plane does what the tests that are built on it take for granted.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use manx_kubernetes::{ControlPlane, Options};
use manx_lab::eventually;

const SOON: Duration = Duration::from_secs(20);
const CATS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: cats.manx.test}
spec:
  group: manx.test
  scope: Cluster
  names: {kind: Cat, plural: cats, singular: cat}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {tail: {type: integer, maximum: 1}}}}
";
const NODE_AND_POD: &str = "
{apiVersion: v1, kind: Node, metadata: {name: n1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeName: n1, containers: [{name: c, image: c}]}}
";
/// Set in a test program that is to be killed while it has a control plane.
const VICTIM: &str = "MANX_KUBERNETES_VICTIM";

fn cat(name: &str, tail: u32) -> String {
    format!("{{apiVersion: manx.test/v1, kind: Cat, metadata: {{name: {name}}}, spec: {{tail: {tail}}}}}")
}

fn with_cats(options: Options) -> Result<ControlPlane> {
    let control_plane = ControlPlane::start(options)?;
    control_plane.apply(CATS)?;
    control_plane.kubectl(&["wait", "--for=condition=Established", "crd/cats.manx.test"])?;
    // The API server serves a new kind a moment after it has said so.
    eventually(SOON, "cats to be served", || control_plane.get("/apis/manx.test/v1/cats"))?;
    Ok(control_plane)
}

fn cats(control_plane: &ControlPlane) -> Result<String> {
    control_plane.kubectl(&["get", "cats", "-o", "jsonpath={.items[*].metadata.name}"])
}

#[test]
fn objects_of_a_custom_kind_are_read_back_and_bad_ones_refused() {
    let control_plane = with_cats(Options::new()).unwrap();
    control_plane.apply(&cat("mo", 0)).unwrap();
    assert_eq!(cats(&control_plane).unwrap(), "mo");
    let refusal = control_plane.apply(&cat("felix", 2)).unwrap_err().to_string();
    assert!(refusal.contains("spec.tail"), "{refusal}");
    assert_eq!(cats(&control_plane).unwrap(), "mo");
}

/// What a test does in place of the scheduler and the kubelet, of which there are none.
#[test]
fn nodes_and_pods_come_and_go_without_a_kubelet() {
    let control_plane = ControlPlane::shared().unwrap();
    let kubectl = |args: &str| control_plane.kubectl(&args.split(' ').collect::<Vec<_>>());
    control_plane.apply(NODE_AND_POD).unwrap();
    let status = r#"{"status":{"phase":"Running","podIP":"192.168.0.1","podIPs":[{"ip":"192.168.0.1"}]}}"#;
    kubectl(&format!("patch pod p --subresource=status -p {status}")).unwrap();
    let address = "get pods --field-selector=spec.nodeName=n1 -o jsonpath={.items[*].status.podIP}";
    assert_eq!(kubectl(address).unwrap(), "192.168.0.1");

    // Nobody else confirms the end of a pod.
    kubectl("delete pod p --force").unwrap();
    kubectl("delete node n1").unwrap();
    assert_eq!(kubectl("get pods,nodes -o name").unwrap(), "");
}

#[test]
fn the_audit_log_counts_what_each_user_asks_for() {
    let control_plane = with_cats(Options::new().user("system:node:n1", &["system:nodes"])).unwrap();
    let node = control_plane.kubeconfig("system:node:n1").unwrap();
    let as_node =
        |args: &[&str]| control_plane.kubectl(&[&["--kubeconfig", node.to_str().unwrap()], args].concat());
    let mark = control_plane.audit().mark().unwrap();

    control_plane.apply(&cat("mo", 0)).unwrap();
    as_node(&["get", "node", "n1"]).unwrap_err();
    let refusal = as_node(&["get", "cats"]).unwrap_err().to_string();
    assert!(refusal.contains("Forbidden"), "{refusal}");

    let requests = control_plane.audit().since(mark).unwrap();
    let admin = requests.by_user("admin");
    assert_eq!((admin.count_of("create", "cats"), admin.count_of("list", "cats")), (1, 0), "{requests}");
    let node = requests.by_user("system:node:n1");
    assert_eq!((node.count_of("create", "cats"), node.count_of("list", "cats")), (0, 1), "{requests}");
    assert_eq!(requests.by_agent("kubectl/v1.35").count(), requests.count(), "{requests}");
    eventually(SOON, "the status of the refused request", || {
        let requests = control_plane.audit().since(mark)?.by_user("system:node:n1");
        ensure!(requests.iter().any(|request| request.resource == "cats" && request.code == Some(403)));
        Ok(())
    })
    .unwrap();
}

#[test]
fn after_outages_address_tokens_and_objects_are_the_same() {
    let mut control_plane = with_cats(Options::new()).unwrap();
    control_plane.apply(&cat("mo", 0)).unwrap();
    let mark = control_plane.audit().mark().unwrap();

    control_plane.pause().unwrap();
    let silence = control_plane.kubectl(&["get", "cats", "--request-timeout=1s"]).unwrap_err().to_string();
    assert!(silence.contains("imeout") || silence.contains("deadline"), "{silence}");
    control_plane.resume().unwrap();
    assert_eq!(cats(&control_plane).unwrap(), "mo");

    control_plane.kill().unwrap();
    let refusal = control_plane.kubectl(&["get", "cats"]).unwrap_err().to_string();
    assert!(refusal.contains("refused"), "{refusal}");
    control_plane.restart().unwrap();
    assert_eq!(cats(&control_plane).unwrap(), "mo");
    let lists = control_plane.audit().since(mark).unwrap().by_agent("kubectl").count_of("list", "cats");
    assert!(lists >= 2, "the audit log goes on after a restart: {lists}");
}

#[test]
fn two_control_planes_stand_side_by_side() {
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| with_cats(Options::new()).unwrap());
        let two = scope.spawn(|| with_cats(Options::new()).unwrap());
        (one.join().unwrap(), two.join().unwrap())
    });
    one.apply(&cat("mo", 0)).unwrap();
    assert_eq!(cats(&one).unwrap(), "mo");
    assert_eq!(cats(&two).unwrap(), "");
    assert!(one.cpu().unwrap().api_server > Duration::ZERO);

    let dir = one.dir().to_owned();
    drop(one);
    assert!(!dir.exists() && processes_in(&dir).is_empty());
    assert_eq!(cats(&two).unwrap(), "");
}

#[test]
fn tests_take_turns_on_the_shared_one_and_find_it_running() {
    let first = {
        let mut shared = ControlPlane::shared().unwrap();
        shared.kubectl(&["create", "configmap", "left-behind"]).unwrap();
        shared.kill().unwrap();
        shared.url()
    };
    let shared = ControlPlane::shared().unwrap();
    assert_eq!(shared.url(), first);
    shared.kubectl(&["get", "configmap", "left-behind"]).unwrap();
}

#[test]
fn a_killed_test_leaves_no_process() {
    if std::env::var_os(VICTIM).is_some() {
        return wait_to_be_killed().unwrap();
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_test_leaves_no_process", "--nocapture"])
        .env(VICTIM, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let dir = lines.map_while(Result::ok).find_map(|line| Some(line.split_once("files in ")?.1.to_owned()));
    let dir = PathBuf::from(dir.expect("the victim says where its control plane is"));
    assert_eq!(processes_in(&dir).len(), 2);

    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually(SOON, "the processes to end", || {
        let left = processes_in(&dir);
        ensure!(left.is_empty(), "{left:?} are there");
        Ok(())
    })
    .unwrap();
}

fn wait_to_be_killed() -> Result<()> {
    let control_plane = ControlPlane::start(Options::new())?;
    println!("files in {}", control_plane.dir().display());
    // Nobody writes; should the other test end first, so does this one.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// The processes that run in a folder.
fn processes_in(dir: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes.filter(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == dir)).collect()
}
