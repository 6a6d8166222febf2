//! Every verb in every situation, and what the runtime is told.

use manx_lab::{Cluster, netns};
use manx_netns::{Stored, host_device};
use serde_json::json;

use crate::runtime::{Answer, Container, Runtime, cluster, cluster_on_kubernetes};

const VERBS: [&str; 6] = ["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"];

/// What has happened to a pod that was attached, before the call.
const SITUATIONS: [&str; 9] = [
    "first",
    "repeated",
    "wrong netns",
    "netns gone",
    "missing link",
    "other container id",
    "other device",
    "API away",
    "dead agent",
];

/// The columns are [`VERBS`]. "same": the address of the first ADD. Errors are the specification's: 3 no such container,
/// 4 environment, 7 configuration (here: no prevResult), 11 try again later, 50 not available; 103 is ours: CHECK found
/// a difference. While the API server is away, a pod that is not attached yet is to be attached.
const EXPECTED: &str = "\
situation           ADD         CHECK       DEL            GC          STATUS      VERSION
first               done        error 7     done           done        done        done
repeated            same        done        done           done        done        done
wrong netns         error 4     error 4     done           -           -           -
netns gone          error 4     error 4     done           done        -           -
missing link        same        error 103   done           done        -           -
other container id  new         error 3     done, no harm  done, gone  -           -
other device        error 7     error 7     done, no harm  done        -           -
API away            new         done        done           done        done        done
dead agent          error 11    error 11    done, spooled  error 11    error 50    done
";

#[test]
fn every_verb_in_every_situation_ends_as_the_table_says() {
    let (mut of_files, mut of_kubernetes) = (cluster(), cluster_on_kubernetes());
    let mut table = format!("{:<20}", "situation");
    table += &row(VERBS.map(str::to_owned));
    for (line, situation) in SITUATIONS.into_iter().enumerate() {
        let cluster = if situation == "API away" { &mut of_kubernetes } else { &mut of_files };
        let scenes: Vec<Scene> = VERBS
            .into_iter()
            .enumerate()
            .map(|(column, verb)| Scene { verb, situation, pod: format!("pod{line}{column}") })
            .collect();
        let containers: Vec<Container> = scenes.iter().map(|scene| scene.prepare(cluster)).collect();
        match situation {
            "API away" => cluster.control_plane_mut().unwrap().kill().unwrap(),
            "dead agent" => cluster.agent("node1").unwrap().kill().unwrap(),
            _ => {}
        }
        let cells: Vec<String> =
            scenes.iter().zip(&containers).map(|(scene, container)| scene.play(cluster, container)).collect();
        table += &format!("{situation:<20}");
        table += &row(cells.try_into().unwrap());
    }
    println!("{table}");
    assert_eq!(table, EXPECTED);
}

fn row([add, check, del, gc, status, version]: [String; 6]) -> String {
    let line = format!("{add:<12}{check:<12}{del:<15}{gc:<12}{status:<12}{version}");
    format!("{}\n", line.trim_end())
}

/// One cell of the table.
struct Scene {
    verb: &'static str,
    situation: &'static str,
    pod: String,
}

impl Scene {
    /// Whether the situation is one for this verb.
    fn applies(&self) -> bool {
        match self.verb {
            "STATUS" | "VERSION" => ["first", "repeated", "API away", "dead agent"].contains(&self.situation),
            "GC" => self.situation != "wrong netns",
            _ => true,
        }
    }

    /// A network for the scene alone: GC is about all containers of one.
    fn runtime<'a>(&self, cluster: &'a Cluster) -> Runtime<'a> {
        let mut runtime = Runtime::new(cluster.lab());
        runtime.list["name"] = json!(format!("net-{}", self.pod));
        runtime
    }

    /// Attaches the pod, and lets happen what is to happen to it.
    fn prepare(&self, cluster: &Cluster) -> Container {
        let runtime = self.runtime(cluster);
        cluster.kubelet().unwrap().create("node1", &self.pod, "default").unwrap();
        let container = runtime.sandbox(&self.pod);
        if !self.applies() || self.situation == "first" || (self.verb, self.situation) == ("ADD", "API away")
        {
            return container;
        }
        runtime.call("ADD", &container).ok().unwrap();
        match self.situation {
            "repeated" if self.verb != "ADD" => drop(self.call(cluster, &runtime, &container).ok().unwrap()),
            "netns gone" => netns::remove(&[cluster.lab().netns(&self.pod)]).unwrap(),
            "missing link" => {
                let device = host_device("default", &self.pod);
                cluster.lab().exec("node1", &["ip", "link", "del", &device]).unwrap();
            }
            _ => {}
        }
        container
    }

    fn play(&self, cluster: &Cluster, first: &Container) -> String {
        if !self.applies() {
            return "-".to_owned();
        }
        let mut runtime = self.runtime(cluster);
        let remembered = runtime.call("CACHED", first).field("result").clone();
        let mut container = first.clone();
        match self.situation {
            "wrong netns" => container.netns = "/proc/self/mounts".to_owned(),
            "other container id" => container.id += "-other",
            "other device" => container.device = "eth1".to_owned(),
            _ => {}
        }
        if self.situation == "other container id" && self.verb == "CHECK" {
            // The library remembers nothing of this id.
            runtime.list["plugins"][0]["prevResult"] = remembered.clone();
        }
        let answer = self.call(cluster, &runtime, &container);
        match answer.code() {
            Some(code) => format!("error {code}"),
            None => self.judge(cluster, answer, &remembered),
        }
    }

    fn call(&self, cluster: &Cluster, runtime: &Runtime<'_>, container: &Container) -> Answer {
        match self.verb {
            "GC" => self.runtime(cluster).forgetful().gc(&[container]),
            "STATUS" | "VERSION" => runtime.network(self.verb),
            verb => runtime.call(verb, container),
        }
    }

    /// What a call did that ended well.
    fn judge(&self, cluster: &Cluster, answer: Answer, remembered: &serde_json::Value) -> String {
        let lab = cluster.lab();
        let attached =
            || lab.exec("node1", &["ip", "link"]).unwrap().contains(&host_device("default", &self.pod));
        let spooled = || std::fs::read_dir(lab.node("node1").unwrap().cni_spool()).map_or(0, Iterator::count);
        match (self.verb, self.situation) {
            ("ADD", "first") => "done",
            ("ADD", _) if answer.field("result")["ips"] == remembered["ips"] => "same",
            ("ADD", _) => "new",
            ("DEL", "other container id" | "other device") if attached() => "done, no harm",
            ("DEL", "dead agent") if attached() && spooled() == 1 => "done, spooled",
            ("GC", "other container id") if !attached() => "done, gone",
            ("DEL", _) if attached() => "done, but it is still there",
            _ => "done",
        }
        .to_owned()
    }
}

#[test]
fn a_spooled_del_is_carried_out_when_the_agent_is_back() {
    let mut cluster = cluster();
    let pod = Runtime::new(cluster.lab()).sandbox("cat");
    Runtime::new(cluster.lab()).call("ADD", &pod).ok().unwrap();
    cluster.agent("node1").unwrap().kill().unwrap();
    Runtime::new(cluster.lab()).call("DEL", &pod).ok().unwrap();
    cluster.agent("node1").unwrap().start_again().unwrap();
    cluster.wait_ready("node1").unwrap();
    assert!(Stored::read(&cluster.datastore()).unwrap().held().unwrap().is_empty());
    assert_eq!(json!(null), *Runtime::new(cluster.lab()).call("CACHED", &pod).field("result"));
}
