//! The control plane of the demo: in a lab, where its nodes reach it, and left there for people.

use std::process::Command;

use manx_kubernetes::{ControlPlane, Options};
use manx_lab::{Lab, Topology};

#[test]
fn a_control_plane_in_a_lab_is_reached_from_its_nodes_and_can_be_left_there() {
    let lab = Lab::up(manx_lab::Options::unique("kube", Topology::founding())).unwrap();
    let options = Options::new()
        .namespace(&lab.netns("outside"), "10.99.0.10".parse().unwrap())
        .outliving(lab.dir().join("kubernetes"));
    let control_plane = ControlPlane::start(options).unwrap();
    assert_eq!(control_plane.url(), "https://10.99.0.10:6443");
    let script = control_plane.dir().join("kubectl");
    control_plane.leave().unwrap();

    let output = Command::new(&script).args(["get", "namespaces", "-o", "name"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("namespace/default"), "{output:?}");
    let kubeconfig = script.with_file_name("admin.kubeconfig");
    let kubectl = manx_lab::target_dir().join("kubernetes/bin/kubectl");
    let command =
        [kubectl.to_str().unwrap(), "--kubeconfig", kubeconfig.to_str().unwrap(), "get", "--raw=/readyz"];
    assert_eq!(lab.exec("node1", &command).unwrap(), "ok");

    let namespace = lab.netns("outside");
    lab.down().unwrap();
    assert!(manx_lab::netns::pids(&namespace).is_empty() && !script.exists());
}
