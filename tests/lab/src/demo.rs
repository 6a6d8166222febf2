//! `lab demo`: the story of a ping, told to a person. First inside IP-in-IP, then, switched on the running cluster,
//! as it is. The cluster's objects are in a directory, or, with `--kubernetes`, on a real API server, where kubectl makes
//! and changes them. Everything that is shown is read from the kernel, from BIRD and from the wire while it happens.

pub(crate) mod cluster;
mod kubernetes;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{Capture, Cluster, Lab, Options, Packet, PingReport, Pod, slowness};

const PATIENCE: Duration = Duration::from_secs(30);
/// The host behind the ToR.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 10);

const PICTURE: &str = "
       172.171.5.0/24                          172.171.6.0/24
  node1 .95 ──┐        ┌───── ToR router ─────┐        ┌── node3 .95
  node2 .96 ──┴── .1 ──┤    BIRD, AS 65000    ├── .1 ──┴── node4 .96
                       └────── 10.99.0.1 ─────┘
                                   │
                       a host outside, 10.99.0.10";

/// Raises the lab, tells the story, and takes it down again unless `keep`.
pub(crate) fn run(name: String, keep: bool, on_kubernetes: bool) -> Result<()> {
    let lab = Lab::up(Options { name, ..Options::default() })?;
    chapter("A cluster of four nodes");
    println!("{PICTURE}");
    say(
        "Every node, router, host and pod is a network namespace; this machine's own network is not touched.",
    );
    let cluster = match on_kubernetes {
        true => kubernetes::begin(lab)?,
        false => over_a_directory(lab)?,
    };
    let story = Story::begin(&cluster)?;
    if on_kubernetes {
        kubernetes::objects(&cluster)?;
    }
    let wrapped = story.in_the_tunnel()?;
    let switch = story.switch_to_plain()?;
    let bare = story.bare()?;
    let outside = story.the_host_outside()?;
    let reached = story.everybody()?;
    summary(&wrapped, &bare, &switch, &outside, reached);
    match (keep, on_kubernetes) {
        (true, _) => look_around(cluster),
        (false, true) => kubernetes::end(&cluster),
        (false, false) => Ok(()),
    }
}

fn over_a_directory(lab: Lab) -> Result<Cluster> {
    // The router learns the way to the pods, so nobody needs to be translated.
    let env = [("CALICO_IPV4POOL_IPIP", "Always"), ("CALICO_IPV4POOL_NAT_OUTGOING", "false")];
    let cluster = Cluster::start(lab, &env)?;
    cluster.peer_with_tor()?;
    Ok(cluster)
}

/// The cluster, with a pod on each node.
struct Story<'a> {
    lab: &'a Lab,
    cluster: &'a Cluster,
    pods: Vec<Pod>,
}

/// What was seen of one ping from a pod to a pod of another node.
struct Crossing {
    route: String,
    packet: Packet,
}

impl<'a> Story<'a> {
    fn begin(cluster: &'a Cluster) -> Result<Self> {
        let lab = cluster.lab();
        say(
            "Each node runs `manx agent`: BGP with the other nodes (AS 64512) and with the router. The pool's mode is Always.",
        );
        say("Now the CNI plugin attaches a pod on each node, exactly as a container runtime would call it:");
        let mut pods = Vec::new();
        for node in lab.nodes() {
            let pod = cluster.pod_add(node.name(), &format!("pod-{}", &node.name()[4..]), "default")?;
            println!("    {} on {} ({}): {}", pod.name, pod.node, node.address(), pod.address);
            pods.push(pod);
        }
        cluster.wait_converged()?;
        cluster.wait_mode("Always")?;
        Ok(Self { lab, cluster, pods })
    }

    /// Chapter two.
    fn in_the_tunnel(&self) -> Result<Crossing> {
        chapter("A ping inside IP-in-IP");
        let (from, to) = (&self.pods[0], &self.pods[1]);
        say(&format!(
            "{} ({}) pings {} ({}). The pod knows one router, 169.254.1.1, which is the other end of its own cable:",
            from.name, from.address, to.name, to.address
        ));
        self.show(&from.name, &["ip", "route"])?;
        let crossing = self.crossing("dev tunl0")?;
        say("The far node takes the packet out and finds the pod behind its cali device:");
        self.show(&to.node, &["ip", "route", "show", &to.address.to_string()])?;
        ensure!(crossing.packet.is_ipip(), "the packet is not inside IP-in-IP: {}", crossing.packet.line);
        Ok(crossing)
    }

    /// Chapter three.
    fn switch_to_plain(&self) -> Result<PingReport> {
        chapter("The switch to plain BGP, on the running cluster");
        let interval = Duration::from_millis(if slowness() > 1 { 200 } else { 10 });
        let (from, to) = (&self.pods[0], &self.pods[2]);
        say(&format!(
            "A ping every {interval:?} runs from {} to {} in the other subnet while the pool's ipipMode goes from Always to Never.",
            from.name, to.name
        ));
        let ping = self.lab.ping(&from.name, to.address, interval)?;
        ping.wait_for_answers(PATIENCE, 10)?;
        if self.cluster.control_plane().is_ok() {
            println!(
                "    $ kubectl patch ippool default-ipv4-ippool --type=merge -p '{{\"spec\":{{\"ipipMode\":\"Never\"}}}}'"
            );
        }
        self.cluster.set_mode("Never")?;
        self.cluster.wait_mode("Never")?;
        self.no_tunnel()?;
        ping.wait_for_answers(PATIENCE, ping.answers() + 20)?;
        let report = ping.stop()?;
        say(&format!(
            "{} echo requests were sent across the switch, {} were lost.",
            report.sent,
            report.lost.len()
        ));
        Ok(report)
    }

    /// Chapter four.
    fn bare(&self) -> Result<Crossing> {
        chapter("The same ping, bare");
        let crossing = self.crossing("dev eth0")?;
        ensure!(!crossing.packet.is_ipip(), "the packet is still inside IP-in-IP: {}", crossing.packet.line);
        let (from, to) = (&self.pods[0], &self.pods[2]);
        say(&format!(
            "To a node of the other subnet, {}'s packets go by the router, which knows the way by BGP:",
            from.name
        ));
        let node3 = self.lab.node(&to.node)?;
        self.show_matching(&from.node, &["ip", "route"], &block_route(self.lab, &from.node, to.address)?)?;
        println!("    (next hop {}, resolved by the node's own default route)", node3.address());
        Ok(crossing)
    }

    /// Chapter five.
    fn the_host_outside(&self) -> Result<String> {
        chapter("A host behind the router");
        say("BIRD on the router has learned every block from the nodes themselves:");
        let learned: Vec<String> = self.lab.routes("tor")?;
        let learned: Vec<String> = learned.into_iter().filter(|route| route.contains("proto bird")).collect();
        self.show_matching("tor", &["ip", "route"], "proto bird")?;
        let first = learned.first().context("BIRD has learned no route")?.clone();
        let pod = &self.pods[3];
        say(&format!(
            "so the host outside ({OUTSIDE}) reaches {} ({}), and the pod reaches the host:",
            pod.name, pod.address
        ));
        self.show("outside", &["ping", "-n", "-c", "1", "-W", "5", &pod.address.to_string()])?;
        self.lab.ping_once(&pod.name, OUTSIDE)?;
        Ok(format!("{} blocks by BGP, as {first}", learned.len()))
    }

    /// The whole matrix, the host outside included.
    fn everybody(&self) -> Result<usize> {
        let mut reached = 0;
        for (from, to) in self.pairs() {
            self.lab.ping_once(&from.name, to.address)?;
            reached += 1;
        }
        for pod in &self.pods {
            self.lab.ping_once(&pod.name, OUTSIDE)?;
            self.lab.ping_once("outside", pod.address)?;
            reached += 2;
        }
        Ok(reached)
    }

    /// Route and packet of a ping from the first pod to the second, on the wire between their nodes.
    fn crossing(&self, expected: &str) -> Result<Crossing> {
        let (from, to) = (&self.pods[0], &self.pods[1]);
        say(&format!("{} has a route for {}'s block of addresses:", from.node, to.node));
        let route = block_route(self.lab, &from.node, to.address)?;
        ensure!(route.contains(expected), "expected {expected} in {route}");
        self.show_matching(&from.node, &["ip", "route"], &route)?;
        say(&format!("and this is what passes {}'s eth0 (tcpdump):", from.node));
        let capture = self.lab.capture(&from.node, "eth0", "ip proto 4 or icmp")?;
        self.lab.ping_once(&from.name, to.address)?;
        let packet = echo_request(&capture, from, to)?;
        capture.stop()?;
        describe(&packet);
        Ok(Crossing { route, packet })
    }

    fn no_tunnel(&self) -> Result<()> {
        for node in self.lab.nodes() {
            let routes = node.routes()?;
            let tunneled = routes.iter().find(|route| route.contains("tunl0"));
            ensure!(tunneled.is_none(), "{}: {}", node.name(), tunneled.cloned().unwrap_or_default());
        }
        Ok(())
    }

    fn pairs(&self) -> impl Iterator<Item = (&Pod, &Pod)> {
        let others = |from: &'_ Pod| from.name.clone();
        self.pods.iter().flat_map(move |from| {
            let name = others(from);
            self.pods.iter().filter(move |to| to.name != name).map(move |to| (from, to))
        })
    }

    /// Runs a command where the reader could, too, and shows what it said.
    fn show(&self, namespace: &str, command: &[&str]) -> Result<()> {
        self.show_matching(namespace, command, "")
    }

    fn show_matching(&self, namespace: &str, command: &[&str], part: &str) -> Result<()> {
        println!("    {namespace}# {}", command.join(" "));
        let output = self.lab.exec(namespace, command)?;
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        for line in output.lines().map(squeezed).filter(|line| !line.is_empty() && line.contains(part)) {
            println!("    {line}");
        }
        Ok(())
    }
}

/// The route by which `node` reaches the block of `address`.
fn block_route(lab: &Lab, node: &str, address: Ipv4Addr) -> Result<String> {
    let routes = lab.routes(node)?;
    let holds = |route: &&String| {
        let destination =
            route.split_whitespace().next().and_then(|word| word.parse::<ipnet::Ipv4Net>().ok());
        destination.is_some_and(|net| net.prefix_len() >= 20 && net.contains(&address))
    };
    routes.iter().find(holds).cloned().with_context(|| format!("{node} has no route for {address}"))
}

fn echo_request(capture: &Capture, from: &Pod, to: &Pod) -> Result<Packet> {
    capture.wait_for(PATIENCE, "the echo request", |packet| {
        packet.headers.last() == Some(&(from.address, to.address)) && packet.payload.contains("echo request")
    })
}

fn describe(packet: &Packet) {
    let outer_to_inner = packet.headers.iter().enumerate();
    for (depth, (source, destination)) in outer_to_inner {
        let name = match (packet.is_ipip(), depth) {
            (true, 0) => "outer IP header, protocol 4",
            (true, _) => "inner IP header",
            _ => "the only IP header",
        };
        println!("    {:indent$}{source} > {destination}   ({name})", "", indent = depth * 2);
    }
    println!("    {:indent$}{}", "", packet.payload, indent = packet.headers.len() * 2);
}

fn summary(wrapped: &Crossing, bare: &Crossing, switch: &PingReport, outside: &str, reached: usize) {
    chapter("What was seen");
    println!("    IP-in-IP    {}", wrapped.route);
    println!("                on the wire: {}", headers(&wrapped.packet));
    println!("    plain BGP   {}", bare.route);
    println!("                on the wire: {}", headers(&bare.packet));
    println!("    the switch  {} pings sent, {} lost", switch.sent, switch.lost.len());
    println!("    the router  {outside}");
    println!("    reached     {reached} of {reached} ways between the pods and the host outside\n");
}

fn headers(packet: &Packet) -> String {
    let pairs = packet.headers.iter().map(|(source, destination)| format!("{source} > {destination}"));
    pairs.collect::<Vec<_>>().join(" | ")
}

fn look_around(cluster: Cluster) -> Result<()> {
    let name = cluster.lab().name().to_owned();
    let run_dir = cluster.lab().node("node1")?.dir();
    let kubectl = cluster.control_plane().ok().map(|control_plane| control_plane.dir().join("kubectl"));
    cluster.keep()?;
    let program = std::env::current_exe()?;
    let lab = format!("{} --lab {name}", program.display());
    println!("The cluster is left up. Look around:\n");
    println!("    {lab} status                 nodes, pods, sessions with the router");
    println!("    {lab} shell node1            a shell on a node: ip route, ip -d link, tcpdump -ni eth0");
    println!("    {lab} shell pod-1            a shell in a pod: ping the others");
    println!(
        "    {lab} exec node1 {} status --run-dir {}",
        manx_lab::manx_binary()?.display(),
        run_dir.display()
    );
    if let Some(kubectl) = kubectl {
        print!("{}", kubernetes::look_around(&kubectl.display().to_string()));
    }
    println!("    {lab} down                   take it all down\n");
    Ok(())
}

fn chapter(title: &str) {
    println!("\n== {title}");
}

/// What somebody else has said.
fn indented(text: &str) {
    for line in text.lines() {
        println!("    {line}");
    }
}

fn say(text: &str) {
    println!("\n{text}");
}
