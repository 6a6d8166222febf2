//! The Helm chart against a real API server: what it takes of what Helm renders, and what an installation leaves alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use manx::config::{Config, Settings};
use manx_kubernetes::{ControlPlane, Options};
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-system";

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/manx")
}

fn values(name: &str) -> String {
    chart().join("ci").join(name).display().to_string()
}

/// Runs Helm against a control plane; its standard output.
fn helm(control_plane: &ControlPlane, namespace: &str, args: &[&str]) -> Result<String> {
    let program = manx_ground::target_dir().join("kubernetes/bin/helm");
    ensure!(program.is_file(), "{} is not built; run `make kubernetes`", program.display());
    let own = control_plane.dir().join("helm");
    let output = Command::new(program)
        .args(args)
        .args(["--namespace", namespace, "--kubeconfig"])
        .arg(control_plane.kubeconfig("admin")?)
        .envs(["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|name| (name, &own)))
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm {}: {}", args.join(" "), words.trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// The agents' container.
fn container(control_plane: &ControlPlane) -> Result<Value> {
    let daemon_set = control_plane.kubectl(&["get", "daemonset", "manx", "-n", NAMESPACE, "-o", "json"])?;
    let mut daemon_set: Value = serde_json::from_str(&daemon_set)?;
    Ok(daemon_set["spec"]["template"]["spec"]["containers"][0].take())
}

/// The variables of the agents, as far as the manifest itself says their values.
fn environment(control_plane: &ControlPlane) -> Result<Vec<(String, String)>> {
    let container = container(control_plane)?;
    let variables = container["env"].as_array();
    let text = |variable: &Value, key: &str| variable[key].as_str().map(str::to_owned);
    let pair = |variable| Some((text(variable, "name")?, text(variable, "value")?));
    Ok(variables.context("no environment")?.iter().filter_map(pair).collect())
}

/// kubelet asks where the agent listens, and Prometheus is sent to where metrics are told.
fn assert_asked_where_the_agent_listens(container: &Value, config: &Config, name: &str) {
    let felix = &config.felix;
    for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let probe = &container[probe];
        match felix.health_enabled {
            // What takes Manx off a node answers nobody.
            _ if container["args"][0] == "uninstall" => assert!(probe.is_null(), "{name}: {probe}"),
            Some(true) => {
                let asked = &probe["httpGet"];
                assert_eq!((&asked["host"], &asked["path"]), (&"127.0.0.1".into(), &path.into()), "{name}");
                assert_eq!(asked["port"].as_u64(), felix.health_port.map(u64::from), "{name}");
                let host = felix.health_host.as_deref();
                assert!(matches!(host, Some("localhost" | "0.0.0.0")), "{name}: {host:?}");
            }
            _ => assert_eq!(probe["exec"]["command"][1], "status", "{name}"),
        }
    }
    if let Some(port) = container["ports"].as_array() {
        assert_eq!(felix.metrics_enabled, Some(true), "{name}");
        assert_eq!(port[0]["containerPort"].as_u64(), felix.metrics_port.map(u64::from), "{name}");
    }
}

fn value(environment: &[(String, String)], name: &str) -> String {
    environment
        .iter()
        .find(|(variable, _)| variable == name)
        .map(|(_, value)| value.clone())
        .unwrap_or_default()
}

#[test]
fn helm_installs_on_an_empty_cluster_and_an_upgrade_that_changes_the_mode_raises_the_revision() {
    let control_plane = ControlPlane::start(Options::new()).unwrap();
    let (chart, values) = (chart().display().to_string(), values("routers.yaml"));
    helm(&control_plane, NAMESPACE, &["install", "manx", &chart, "--values", &values]).unwrap();
    assert_eq!(value(&environment(&control_plane).unwrap(), "MANX_CONFIG_REVISION"), "1");
    let asn = ["get", "bgppeer", "rack2", "-o", "jsonpath={.spec.asNumber}"];
    assert_eq!(control_plane.kubectl(&asn).unwrap(), "4200000002");

    let mode = "env.CALICO_IPV4POOL_IPIP=CrossSubnet";
    helm(&control_plane, NAMESPACE, &["upgrade", "manx", &chart, "--reuse-values", "--set", mode]).unwrap();
    let now = environment(&control_plane).unwrap();
    assert_eq!(value(&now, "MANX_CONFIG_REVISION"), "2");
    assert_eq!(value(&now, "CALICO_IPV4POOL_IPIP"), "CrossSubnet");
    assert_eq!(value(&now, "CALICO_IPV4POOL_BLOCK_SIZE"), "28", "the other values stay");

    helm(&control_plane, NAMESPACE, &["uninstall", "manx"]).unwrap();
    let left =
        control_plane.kubectl(&["get", "daemonsets,roles,bgppeers", "-n", NAMESPACE, "-o", "name"]).unwrap();
    assert!(!left.contains("manx") && !left.contains("rack"), "{left}");
    // What people have written with them would be lost.
    control_plane.kubectl(&["get", "crd", "ippools.crd.projectcalico.org"]).unwrap();
}

#[test]
fn definitions_that_a_cluster_has_are_never_taken_over() {
    let control_plane = ControlPlane::start(Options::new()).unwrap();
    let of_calico = fs::read_to_string(chart().join("crds/bgppeers.yaml")).unwrap();
    control_plane.apply(&of_calico).unwrap();
    let name = "bgppeers.crd.projectcalico.org";
    let state = || {
        control_plane.kubectl(&[
            "get",
            "crd",
            name,
            "-o",
            "jsonpath={.metadata.generation} {.metadata.labels} {.metadata.managedFields[*].manager}",
        ])
    };
    let before = state().unwrap();
    helm(&control_plane, NAMESPACE, &["install", "manx", &chart().display().to_string()]).unwrap();
    assert_eq!(state().unwrap(), before);
    control_plane.kubectl(&["get", "crd", "ippools.crd.projectcalico.org"]).unwrap();
}

#[test]
fn every_combination_of_values_is_taken_by_the_api_server_and_understood_by_the_agent() {
    let control_plane = ControlPlane::start(Options::new()).unwrap();
    let chart_dir = chart().display().to_string();
    // What the chart uses of the Prometheus operator's kinds, which a cluster without it has not.
    control_plane.apply(include_str!("monitoring.yaml")).unwrap();
    helm(&control_plane, NAMESPACE, &["install", "manx", &chart_dir]).unwrap();
    let mut combinations = 0;
    for entry in fs::read_dir(chart().join("ci")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let name = path.display().to_string();
        // In another namespace than the release, whose fields are Helm's.
        let template = ["template", "manx", &chart_dir, "--values", &name];
        let manifest = helm(&control_plane, "default", &template).unwrap();
        let file = control_plane.dir().join("rendered.yaml");
        fs::write(&file, manifest).unwrap();
        let file = file.display().to_string();
        let server = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", &file];
        control_plane.kubectl(&server).with_context(|| name.clone()).unwrap();

        helm(
            &control_plane,
            NAMESPACE,
            &["upgrade", "manx", &chart_dir, "--reset-values", "--values", &name],
        )
        .unwrap();
        let of_the_pod =
            [("NODENAME", "n1"), ("IP", "10.0.0.5")].map(|(name, value)| (name.into(), value.into()));
        let variables = of_the_pod.into_iter().chain(environment(&control_plane).unwrap());
        let config =
            Config::read(&Settings::from_environment(variables)).with_context(|| name.clone()).unwrap();
        assert_eq!(config.notices, [], "{name}");
        assert!(config.datastore.is_kubernetes(), "{name}");
        assert_asked_where_the_agent_listens(&container(&control_plane).unwrap(), &config, &name);
        combinations += 1;
    }
    assert!(combinations >= 7, "{combinations}");
}

#[test]
fn the_pods_of_helm_test_run_where_only_restricted_ones_may_and_there_are_none_when_manx_goes() {
    let control_plane = ControlPlane::start(Options::new()).unwrap();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: strict\n  labels: \
        {pod-security.kubernetes.io/enforce: restricted}\n---\napiVersion: v1\nkind: ServiceAccount\n\
        metadata: {name: default, namespace: strict}\n";
    control_plane.apply(namespace).unwrap();
    let chart = chart().display().to_string();
    let template = ["template", "manx", &chart, "--show-only", "templates/tests/connectivity.yaml"];
    let manifest = helm(&control_plane, "strict", &template).unwrap();
    let file = control_plane.dir().join("tests.yaml");
    fs::write(&file, manifest).unwrap();
    let read = ["create", "--dry-run=client", "-o", "json", "-f", &file.display().to_string()];
    let objects = control_plane.kubectl(&read).unwrap();
    let objects: Vec<Value> =
        serde_json::Deserializer::from_str(&objects).into_iter().collect::<Result<_, _>>().unwrap();
    let objects = objects.iter().flat_map(|object| match object["items"].as_array() {
        Some(items) => items.iter().collect(),
        None => vec![object],
    });
    let mut pods = 0;
    for object in objects.filter(|object| !object["spec"]["template"].is_null()) {
        let (kind, template) = (&object["kind"], &object["spec"]["template"]);
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]});
        pod["metadata"] = json!({"name": "test", "namespace": "strict"});
        pod["spec"]["restartPolicy"] = "Never".into();
        fs::write(&file, pod.to_string()).unwrap();
        let server = ["create", "--dry-run=server", "-f", &file.display().to_string()];
        control_plane.kubectl(&server).with_context(|| format!("{kind}: {pod}")).unwrap();
        pods += 1;
    }
    assert_eq!(pods, 2, "the pods that serve, and the one that checks");

    let going = ["template", "manx", &chart, "--values", &values("uninstall.yaml")];
    assert!(!helm(&control_plane, "strict", &going).unwrap().contains("helm.sh/hook"));
}

#[test]
fn in_any_namespace_the_agents_may_do_what_they_do_and_read_secrets_only_there() {
    let control_plane = ControlPlane::start(Options::new()).unwrap();
    let install = ["install", "manx", &chart().display().to_string(), "--create-namespace"];
    helm(&control_plane, "network", &install).unwrap();
    let may = |verb: &str, resource: &str, namespace: &str| {
        let question =
            ["auth", "can-i", verb, resource, "-n", namespace, "--as=system:serviceaccount:network:manx"];
        // kubectl ends with 1 when the answer is no, and so says it in an error.
        control_plane.kubectl(&question).is_ok_and(|answer| answer.trim() == "yes")
    };
    for (verb, resource, namespace) in [
        ("update", "ipamblocks.crd.projectcalico.org", "default"),
        ("update", "leases.coordination.k8s.io/manx-leader", NAMESPACE),
        ("watch", "secrets", "network"),
        ("watch", "networkpolicies.networking.k8s.io", "default"),
    ] {
        assert!(may(verb, resource, namespace), "it cannot {verb} {resource} in {namespace}");
    }
    for (verb, resource, namespace) in [
        ("list", "secrets", NAMESPACE),
        ("list", "secrets", "default"),
        ("patch", "nodes", "default"),
        ("update", "networkpolicies.networking.k8s.io", "default"),
        ("create", "customresourcedefinitions.apiextensions.k8s.io", "default"),
    ] {
        assert!(!may(verb, resource, namespace), "it can {verb} {resource} in {namespace}");
    }
}
