//! What Prometheus is told: what is counted as it happens, and what a [`Status`] says at the moment of the scrape.
//!
//! Names of Felix and of Calico's kube-controllers are kept where the meaning is the same (docs.tigera.io, "Prometheus
//! metrics"). Peers of a mesh are told as sums: a series for each would make a cluster's series grow with the square of
//! its nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, Opts, Registry, TextEncoder,
};

use crate::probes::ESTABLISHED;
use crate::status::{Peer, Status};

/// What is counted as it happens. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    cni: HistogramVec,
    apply: Histogram,
    failures: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
        let cni = HistogramOpts::new(
            "manx_cni_request_duration_seconds",
            "Time from a CNI request to its answer, by verb and by the code of the answer's error (0: success).",
        );
        let apply = HistogramOpts::new(
            "felix_int_dataplane_apply_time_seconds",
            "Time in seconds that it took to write a change to the kernel.",
        );
        let failures = IntCounter::new(
            "felix_int_dataplane_failures",
            "Writes to the kernel that failed and are tried again.",
        );
        Self {
            cni: HistogramVec::new(cni.buckets(seconds.clone()), &["verb", "code"]).expect("constant names"),
            apply: Histogram::with_opts(apply.buckets(seconds)).expect("constant names"),
            failures: failures.expect("a constant name"),
        }
    }
}

impl Metrics {
    /// A CNI request was answered.
    pub fn answered(&self, verb: &str, code: u32, took: Duration) {
        self.cni.with_label_values(&[verb, &code.to_string()]).observe(took.as_secs_f64());
    }

    /// A change was written to the kernel, of which so many parts failed.
    pub fn applied(&self, took: Duration, failures: usize) {
        self.apply.observe(took.as_secs_f64());
        self.failures.inc_by(failures as u64);
    }
}

/// What is told of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The agent.
    pub status: &'a Status,
    /// The datastore answers.
    pub answers: bool,
    /// Routes of ours in the kernel.
    pub routes: usize,
    /// Nodes of the cluster that have an address.
    pub nodes: usize,
    /// What the collector counted, on the node that leads.
    pub ipam: Option<&'a manx_ipam::Metrics>,
}

/// The text that Prometheus reads (its text format, version 0.0.4).
pub fn render(metrics: &Metrics, moment: Moment<'_>) -> String {
    let page = Page(Registry::new());
    page.add(metrics.cni.clone());
    page.add(metrics.apply.clone());
    page.add(metrics.failures.clone());
    page.add(ProcessCollector::for_self());
    of_agent(&page, moment);
    of_bgp(&page, moment.status);
    if let Some(ipam) = moment.ipam {
        of_ipam(&page, ipam);
    }
    let mut text = Vec::new();
    match TextEncoder::new().encode(&page.0.gather(), &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("# the metrics cannot be written: {error}\n"),
    }
}

/// One answer to one scrape.
struct Page(Registry);

/// The labels of a series, and its value.
type Series<'a> = (Vec<&'a str>, f64);

impl Page {
    fn add(&self, collector: impl Collector + 'static) {
        self.0.register(Box::new(collector)).expect("each name is registered once");
    }

    /// Values of one name; what is never counted down is told as a gauge too, since its page lives for one scrape.
    fn tell<'a>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = Series<'a>>,
    ) {
        let gauge = GaugeVec::new(Opts::new(name, help), labels).expect("constant names");
        for (values, value) in series {
            gauge.with_label_values(&values).set(value);
        }
        self.add(gauge);
    }

    fn one(&self, name: &str, help: &str, value: f64) {
        self.tell(name, help, &[], [(vec![], value)]);
    }
}

fn of_agent(page: &Page, Moment { status, answers, routes, nodes, .. }: Moment<'_>) {
    let info = (vec![status.version.as_str(), status.node.as_str()], 1.0);
    page.tell("manx_build_info", "Always 1; the labels say what runs where.", &["version", "node"], [info]);
    page.one(
        "felix_resync_state",
        "The datastore: 1 it is away, 2 it is being read, 3 in sync.",
        match (status.in_sync, answers) {
            (true, _) => 3.0,
            (false, true) => 2.0,
            (false, false) => 1.0,
        },
    );
    page.one("felix_active_local_endpoints", "Pods of this node.", status.pods.len() as f64);
    page.one("felix_cluster_num_hosts", "Nodes of the cluster that have an address.", nodes as f64);
    page.one("manx_ready", "1 while pods are served.", f64::from(u8::from(status.ready)));
    page.one(
        "manx_kernel_in_desired_state",
        "1 while the kernel has our routes and our table of nftables as they should be.",
        f64::from(u8::from(status.in_desired_state)),
    );
    page.one("manx_routes", "Routes of ours in the kernel.", routes as f64);
    page.one(
        "manx_routes_written",
        "Routes written or deleted since the start.",
        status.routes_written as f64,
    );
    page.one("manx_ipam_own_blocks", "Address blocks of this node.", status.blocks.len() as f64);
    if let Some(count) = status.policies_not_enforced {
        let help =
            "Policies that forbid something and are not enforced, as the node that leads has counted them.";
        page.one("manx_network_policies_not_enforced", help, count as f64);
    }
    page.one("manx_problems", "What is wrong now; manx status has the words.", status.problems.len() as f64);
}

fn of_bgp(page: &Page, status: &Status) {
    let Some(bgp) = &status.bgp else { return };
    page.one(
        "manx_bgp_converged",
        "1 once every peer has announced everything it has.",
        f64::from(u8::from(bgp.converged)),
    );
    let mut peers: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for peer in &bgp.peers {
        *peers.entry((kind(peer), peer.state.as_str())).or_default() += 1;
    }
    page.tell(
        "manx_bgp_peers",
        "BGP peers, by kind (mesh, global, node) and state (RFC 4271).",
        &["kind", "state"],
        peers.iter().map(|((kind, state), count)| (vec![*kind, *state], *count as f64)),
    );
    let sum = |of: fn(&Peer) -> usize| bgp.peers.iter().map(of).sum::<usize>() as f64;
    page.one("manx_bgp_prefixes_received", "Prefixes that peers have announced.", sum(|peer| peer.received));
    page.one(
        "manx_bgp_prefixes_stale",
        "Among them, those kept while a peer restarts.",
        sum(|peer| peer.stale),
    );
    let apart: Vec<&Peer> = bgp.peers.iter().filter(|peer| kind(peer) != "mesh").collect();
    let asns: Vec<String> = apart.iter().map(|peer| peer.asn.to_string()).collect();
    let each = |of: fn(&Peer) -> f64| {
        let peers = apart.iter().zip(&asns);
        peers.map(|(peer, asn)| (vec![peer.name.as_str(), &peer.address, asn], of(peer))).collect::<Vec<_>>()
    };
    let labels = &["peer", "address", "as"];
    let up = each(|peer| f64::from(u8::from(peer.state == ESTABLISHED)));
    page.tell(
        "manx_bgp_peer_up",
        "1 while the session with a peer outside the mesh is established.",
        labels,
        up,
    );
    let received = each(|peer| peer.received as f64);
    page.tell(
        "manx_bgp_peer_prefixes_received",
        "Prefixes that a peer outside the mesh has announced.",
        labels,
        received,
    );
    let sent = each(|peer| peer.sent as f64);
    page.tell("manx_bgp_peer_prefixes_sent", "Prefixes announced to a peer outside the mesh.", labels, sent);
}

/// By the beginning of its name, which is Calico's.
fn kind(peer: &Peer) -> &'static str {
    match peer.name.split_once('_') {
        Some(("Mesh", _)) => "mesh",
        Some(("Global", _)) => "global",
        _ => "node",
    }
}

fn of_ipam(page: &Page, ipam: &manx_ipam::Metrics) {
    let labels = &["ippool", "node"];
    for (name, help, counts) in [
        ("ipam_allocations_in_use", "Addresses in use.", &ipam.in_use),
        ("ipam_allocations_borrowed", "Addresses in use from a block of another node.", &ipam.borrowed),
        ("ipam_blocks", "Address blocks.", &ipam.blocks),
    ] {
        let series = counts.iter().map(|((pool, node), count)| (vec![pool.as_str(), node], *count as f64));
        page.tell(name, help, labels, series);
    }
    let sizes = ipam.pool_size.iter().map(|(pool, size)| (vec![pool.as_str()], *size as f64));
    page.tell("ipam_ippool_size", "Addresses of a pool.", &["ippool"], sizes);
    page.one(
        "ipam_allocations_gc_candidates",
        "Leftovers that wait for their grace.",
        ipam.candidates as f64,
    );
    page.one("ipam_allocations_gc_reclamations", "Addresses that were reclaimed.", ipam.reclaimed as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Bgp;

    fn peer(name: &str, state: &str) -> Peer {
        Peer {
            name: name.into(),
            address: "10.0.0.9".into(),
            asn: 65000,
            state: state.into(),
            seconds: 1,
            received: 3,
            stale: 0,
            sent: 2,
            last_error: None,
        }
    }

    /// A page of a node that leads.
    fn page() -> String {
        let metrics = Metrics::default();
        metrics.answered("ADD", 0, Duration::from_millis(3));
        metrics.applied(Duration::from_millis(1), 2);
        let peers = vec![
            peer("Mesh_10_0_0_2", ESTABLISHED),
            peer("Mesh_10_0_0_3", ESTABLISHED),
            peer("Global_10_0_0_9", "Idle"),
        ];
        let bgp = Bgp { asn: 64512, router_id: "1".into(), listening: String::new(), converged: true, peers };
        let status =
            Status { in_sync: true, bgp: Some(bgp), policies_not_enforced: Some(3), ..Status::default() };
        let in_use = BTreeMap::from([(("pool".to_owned(), "n1".to_owned()), 7)]);
        let pool_size = BTreeMap::from([("pool".to_owned(), 256)]);
        let ipam = manx_ipam::Metrics { in_use, pool_size, ..manx_ipam::Metrics::default() };
        let moment = Moment { status: &status, answers: true, routes: 4, nodes: 3, ipam: Some(&ipam) };
        render(&metrics, moment)
    }

    #[test]
    fn an_alert_of_the_chart_looks_at_what_is_told() {
        let alerts = include_str!("../../charts/manx/files/alerts.yaml");
        let words = alerts.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        let ours = |word: &&str| ["manx_", "felix_", "ipam_"].iter().any(|prefix| word.starts_with(prefix));
        let (names, page): (Vec<&str>, String) = (words.filter(ours).collect(), page());
        assert!(names.len() > 8, "{names:?}");
        for name in names {
            assert!(page.contains(&format!("# TYPE {name} ")), "there is no metric {name}");
        }
    }

    #[test]
    fn a_scrape_tells_the_moment_and_what_was_counted_and_sums_up_the_mesh() {
        let text = page();
        for line in [
            "felix_resync_state 3",
            "felix_cluster_num_hosts 3",
            "felix_int_dataplane_failures 2",
            "felix_int_dataplane_apply_time_seconds_count 1",
            "manx_cni_request_duration_seconds_count{code=\"0\",verb=\"ADD\"} 1",
            "manx_routes 4",
            "manx_network_policies_not_enforced 3",
            "manx_bgp_peers{kind=\"mesh\",state=\"Established\"} 2",
            "manx_bgp_peer_up{address=\"10.0.0.9\",as=\"65000\",peer=\"Global_10_0_0_9\"} 0",
            "manx_bgp_prefixes_received 9",
            "ipam_allocations_in_use{ippool=\"pool\",node=\"n1\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
        assert!(!text.contains("peer=\"Mesh"), "{text}");
    }
}
