use std::collections::BTreeSet;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

struct Node {
    root: TempDir,
    installer: Installer,
}

impl Node {
    /// A node whose agent is to install a plugin, with a portmap that speaks these versions.
    fn new(portmap: Option<&str>) -> Self {
        let root = TempDir::new().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        fs::write(at("manx-cni"), "the plugin").unwrap();
        if let Some(versions) = portmap {
            let script = format!(
                "#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && echo '{{\"supportedVersions\": [{versions}]}}'\n"
            );
            replace(&at("bin/portmap"), script.as_bytes(), 0o755).unwrap();
        }
        let files = CniFiles {
            net_dir: at("net.d"),
            bin_dir: at("bin"),
            conf_name: "10-manx.conflist".into(),
            template: None,
            mtu: None,
            skip: BTreeSet::new(),
            update: true,
        };
        let installer = Installer {
            files,
            node: "n1".parse().unwrap(),
            socket: "/run/manx/cni.sock".into(),
            spool: "/var/lib/manx/cni-spool".into(),
            program: at("manx-cni"),
        };
        Self { root, installer }
    }

    fn list(&self) -> Value {
        serde_json::from_slice(&fs::read(self.root.path().join("net.d/10-manx.conflist")).unwrap()).unwrap()
    }

    fn files(&self, directory: &str) -> Vec<String> {
        let mut names = names(&self.root.path().join(directory)).unwrap();
        names.sort();
        names
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.root.path().join("net.d")).unwrap();
        fs::write(self.root.path().join(name), text).unwrap();
    }

    fn remove(&self, whole: Whole) -> Removed {
        remove(&self.installer.files.net_dir, &self.installer.files.bin_dir, whole)
    }
}

const MODERN: &str = r#""0.3.1", "0.4.0", "1.0.0", "1.1.0""#;

#[tokio::test]
async fn the_runtime_finds_a_network_that_leads_to_the_installed_plugin() {
    let node = Node::new(Some(MODERN));
    assert_eq!(node.installer.install().await, [""; 0]);
    let program = node.root.path().join("bin/manx-cni");
    assert_eq!(fs::read(&program).unwrap(), b"the plugin");
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    let list = node.list();
    assert_eq!(list["name"], "k8s-pod-network");
    assert_eq!(conflist::types(&list).collect::<Vec<_>>(), ["manx-cni", "portmap"]);
    assert_eq!(list["plugins"][1]["capabilities"]["portMappings"], true);
    assert_eq!((node.files("net.d").len(), node.files("bin").len()), (1, 2), "nothing unfinished is left");
}

#[tokio::test]
async fn a_runtime_that_knows_cni_1_1_chooses_it_and_an_older_one_gets_what_it_understands() {
    let node = Node::new(Some(MODERN));
    node.installer.install().await;
    assert_eq!(node.list()["cniVersion"], "1.0.0");
    assert_eq!(node.list()["cniVersions"].as_array().unwrap().last().unwrap(), "1.1.0");
}

#[tokio::test]
async fn the_network_is_offered_in_no_version_that_a_chained_plugin_does_not_speak() {
    let node = Node::new(Some(r#""0.3.1", "0.4.0""#));
    assert_eq!(node.installer.install().await, [""; 0]);
    assert_eq!(node.list()["cniVersion"], "0.4.0");
    assert_eq!(node.list()["cniVersions"], serde_json::json!(["0.3.1", "0.4.0"]));
}

#[tokio::test]
async fn without_a_portmap_that_works_pods_have_a_network_and_hostport_is_said_to_have_no_effect() {
    for portmap in [None, Some(r#""0.1.0""#)] {
        let node = Node::new(portmap);
        let problems = node.installer.install().await;
        assert!(problems.len() == 1 && problems[0].contains("hostPort"), "{problems:?}");
        assert_eq!(conflist::types(&node.list()).collect::<Vec<_>>(), ["manx-cni"]);
    }
}

#[tokio::test]
async fn a_portmap_that_needs_the_nodes_libraries_is_chained_in_an_old_version_and_is_no_problem() {
    let node = Node::new(None);
    replace(&node.root.path().join("bin/portmap"), b"#!/no/loader\n", 0o755).unwrap();
    assert_eq!(node.installer.install().await, [""; 0]);
    assert_eq!(node.list()["cniVersion"], "0.4.0");
    assert_eq!(node.list()["plugins"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_portmap_that_answers_nonsense_is_chained_in_an_old_version_and_named() {
    let node = Node::new(None);
    replace(&node.root.path().join("bin/portmap"), b"#!/bin/sh\necho nonsense\n", 0o755).unwrap();
    let problems = node.installer.install().await;
    assert!(problems.len() == 1 && problems[0].contains("its answer"), "{problems:?}");
    assert_eq!(node.list()["cniVersion"], "0.4.0");
}

#[tokio::test]
async fn a_configuration_that_sorts_before_ours_is_named_and_stays() {
    let node = Node::new(Some(MODERN));
    node.write("net.d/10-calico.conflist", "{}");
    node.write("net.d/05-note.txt", "");
    node.write("net.d/99-bridge.conf", "{}");
    let problems = node.installer.install().await;
    assert!(
        problems.len() == 1 && problems[0].contains("net.d/10-calico.conflist sorts before"),
        "{problems:?}"
    );
    assert_eq!(node.files("net.d").len(), 4);
}

#[tokio::test]
async fn nothing_makes_the_node_look_ready_while_the_plugin_cannot_be_installed() {
    let mut node = Node::new(Some(MODERN));
    node.installer.program = "/nowhere/manx-cni".into();
    let problems = node.installer.install().await;
    assert!(problems[0].contains("/nowhere/manx-cni"), "{problems:?}");
    assert!(!node.root.path().join("net.d").exists());
}

#[tokio::test]
async fn an_operator_who_installs_the_plugin_or_keeps_an_old_one_is_left_to_it() {
    let mut node = Node::new(Some(MODERN));
    node.installer.files.skip.insert("manx-cni".into());
    assert!(node.installer.install().await[0].contains("SKIP_CNI_BINARIES"));
    fs::write(node.root.path().join("bin/manx-cni"), "another").unwrap();
    assert_eq!(node.installer.install().await, [""; 0]);
    node.installer.files.skip.clear();
    node.installer.files.update = false;
    assert_eq!(node.installer.install().await, [""; 0]);
    assert_eq!(fs::read(node.root.path().join("bin/manx-cni")).unwrap(), b"another");
    node.installer.files.update = true;
    node.installer.install().await;
    assert_eq!(fs::read(node.root.path().join("bin/manx-cni")).unwrap(), b"the plugin");
}

#[tokio::test]
async fn an_operators_own_configuration_is_filled_in_and_must_lead_to_us() {
    let mut node = Node::new(Some(MODERN));
    node.installer.files.mtu = Some(1400);
    let own = r#"{"name": "n", "plugins": [{"type": "manx-cni", "mtu": __CNI_MTU__, "nodename": "__KUBERNETES_NODE_NAME__"}, {"type": "tuning"}]}"#;
    node.installer.files.template = Some(Template::Text(own.into()));
    let problems = node.installer.install().await;
    assert!(problems.len() == 1 && problems[0].contains("names tuning, which is not in"), "{problems:?}");
    assert_eq!(
        (&node.list()["plugins"][0]["mtu"], &node.list()["plugins"][0]["nodename"]),
        (&1400.into(), &"n1".into())
    );
    for wrong in ["{", r#"{"plugins": [{"type": "calico"}]}"#] {
        node.installer.files.template = Some(Template::Text(wrong.into()));
        let problems = node.installer.install().await;
        assert!(problems[0].starts_with("CNI_NETWORK_CONFIG: "), "{problems:?}");
    }
    assert_eq!(node.list()["name"], "n", "what it said before stays");
}

#[tokio::test]
async fn the_configuration_comes_only_when_pods_are_served_and_comes_back_when_it_is_deleted() {
    let node = Node::new(Some(MODERN));
    let path = node.root.path().join("net.d/10-manx.conflist");
    let (ready, not_ready) = watch::channel(Some("it is starting".to_owned()));
    let keeper = tokio::spawn(node.installer.clone().keep(not_ready, Problems::default()));
    tokio::task::yield_now().await;
    assert!(!path.exists());
    ready.send_replace(None);
    until(|| path.exists()).await;
    fs::remove_file(&path).unwrap();
    tokio::time::pause();
    until(|| path.exists()).await;
    keeper.abort();
}

/// With paused time, idle waiting lets the next minute come at once.
async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn removing_takes_what_is_ours_under_any_name_and_nothing_else() {
    let mut node = Node::new(Some(MODERN));
    node.write("net.d/20-calico.conflist", r#"{"plugins": [{"type": "calico"}]}"#);
    node.installer.install().await;
    node.installer.files.conf_name = "05-other.conflist".into();
    node.installer.install().await;
    assert_eq!(node.remove(Whole::PodsRemain).gone.len(), 2);
    assert_eq!(
        (node.files("net.d"), node.files("bin")),
        (vec!["20-calico.conflist".into()], vec!["manx-cni".into(), "portmap".into()])
    );
    assert_eq!(node.remove(Whole::Yes).gone.len(), 1);
    assert_eq!(node.files("bin"), ["portmap"]);
    assert_eq!(node.remove(Whole::Yes), Removed::default(), "a second time there is nothing to do");
}
