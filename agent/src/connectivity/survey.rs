//! All checks from one place.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;

use super::calls::{ATTEMPT, ask, echo, persist, resolve};
use super::server::PATIENCE;
use super::{Finding, Place, Target, Trouble, judge_pods, judge_service, list};

/// The name of the API server's service.
const API_NAME: &str = "kubernetes.default.svc";
/// Each may come to another pod behind the service.
const CALLS: usize = 8;
/// What a server may take: it looks names up, and then tries everything else at once.
const SURVEY: Duration = Duration::from_secs(60);

/// What there is to reach, and from where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pod that this is.
    pub here: Place,
    /// Its own address: it is not reached out to.
    pub own: Option<IpAddr>,
    /// The name of a headless service: its addresses are the test pods'.
    pub peers: String,
    /// How many there are.
    pub pods: usize,
    /// The name of a service with an address, with the test pods behind it.
    pub service: String,
    /// That address, where it is known without DNS.
    pub service_address: Option<IpAddr>,
    /// The port of test pods and service.
    pub port: u16,
    /// Where Kubernetes says that the API server's service is.
    pub api_server: Option<(String, u16)>,
    /// The certificate by which the API server is known.
    pub root: PathBuf,
    /// The nameservers of this pod, in words.
    pub nameservers: String,
}

/// Checks everything from here, which does not go well at once for up to [`PATIENCE`], and test pods that are not there yet for
/// up to `wait`; and the addresses of the test pods.
pub async fn survey(plan: &Plan, wait: Duration) -> (Vec<Finding>, Vec<IpAddr>) {
    let (first, peers) = find_peers(plan, wait).await;
    let others = peers.iter().copied().filter(|address| Some(*address) != plan.own);
    let (services, pods, service, api_server) = tokio::join!(
        async { tokio::join!(api_name(plan), service_name(plan)) },
        join_all(others.map(|address| pod(plan, address))),
        service(plan),
        api_server(plan),
    );
    let findings = [first, services.0, services.1].into_iter().chain(pods).chain([service, api_server]);
    (findings.collect(), peers)
}

/// Checks everything from here, and has every test pod that is reached do the same: all findings, and who did.
pub async fn survey_all(plan: &Plan, wait: Duration) -> (Vec<Finding>, BTreeSet<Place>) {
    let (mut findings, mut peers) = survey(plan, wait).await;
    peers.retain(|peer| {
        let peer = peer.to_string();
        findings
            .iter()
            .any(|finding| finding.target == Target::Pod && finding.to == peer && finding.seen.is_ok())
    });
    let asked = peers.iter().map(|peer| ask(SocketAddr::new(*peer, plan.port), SURVEY));
    let mut places = BTreeSet::new();
    for (peer, theirs) in peers.iter().zip(join_all(asked).await) {
        match theirs {
            Ok(theirs) => {
                places.extend(theirs.first().map(|finding| finding.from.clone()));
                findings.extend(theirs);
            }
            Err(trouble) => {
                let to = format!("{peer}, asked what it reaches");
                findings.push(finding(plan, Target::Pod, to, Err(trouble)));
            }
        }
    }
    (findings, places)
}

async fn find_peers(plan: &Plan, wait: Duration) -> (Finding, Vec<IpAddr>) {
    let attempt = || async move {
        let found = resolve(&plan.peers).await?;
        judge_pods(&found, plan.pods).map(|()| found)
    };
    let (seen, peers) = match persist(wait, attempt).await {
        Ok((found, _)) => (Ok(list(&found)), found),
        // Those that are there are tried all the same.
        Err(trouble) => (Err(trouble), resolve(&plan.peers).await.unwrap_or_default()),
    };
    (finding(plan, Target::Dns, plan.peers.clone(), seen), peers)
}

async fn api_name(plan: &Plan) -> Finding {
    let known = plan.api_server.as_ref().and_then(|(host, _)| host.parse().ok());
    name(plan, API_NAME, known).await
}

async fn service_name(plan: &Plan) -> Finding {
    name(plan, &plan.service, plan.service_address).await
}

/// Looks up the name of a service.
async fn name(plan: &Plan, name: &str, known: Option<IpAddr>) -> Finding {
    let attempt = || async move {
        let found = resolve(name).await?;
        judge_service(&found, known).map(|()| list(&found))
    };
    let seen = persist(PATIENCE, attempt).await.map(attempts);
    finding(plan, Target::Dns, name.to_owned(), seen)
}

/// Sends something to a test pod and back.
async fn pod(plan: &Plan, address: IpAddr) -> Finding {
    let attempt = || echo(SocketAddr::new(address, plan.port), ATTEMPT);
    let seen = persist(PATIENCE, attempt).await;
    let seen = seen.map(|(place, count)| attempts((format!("{place} sends back 64 KiB"), count)));
    finding(plan, Target::Pod, address.to_string(), seen)
}

/// The same with pods behind the service's address.
async fn service(plan: &Plan) -> Finding {
    let attempt = || async move {
        let address = match plan.service_address {
            Some(address) => address,
            None => {
                let found = resolve(&plan.service).await?;
                *found.first().ok_or_else(|| Trouble::Wrong("its name has no address".into()))?
            }
        };
        let calls = join_all((0..CALLS).map(|_| echo(SocketAddr::new(address, plan.port), ATTEMPT))).await;
        let mut places = BTreeSet::new();
        for (index, call) in calls.into_iter().enumerate() {
            places.insert(call.map_err(|trouble| of_many(trouble, index))?.node);
        }
        let places: Vec<String> = places.into_iter().collect();
        Ok(format!("{CALLS} calls to {address} were answered on {}", list(&places)))
    };
    let seen = persist(PATIENCE, attempt).await.map(attempts);
    finding(plan, Target::Service, plan.service.clone(), seen)
}

/// The trouble of one call among some, those before it having been answered.
fn of_many(trouble: Trouble, answered: usize) -> Trouble {
    match trouble {
        Trouble::Unconnected(why) if answered > 0 => {
            Trouble::Unconnected(format!("only pods of some nodes answer behind it: {why}"))
        }
        trouble => trouble,
    }
}

/// Asks the API server for its version, as nobody.
async fn api_server(plan: &Plan) -> Finding {
    let Some((host, port)) = &plan.api_server else {
        let seen = Err(Trouble::Wrong("KUBERNETES_SERVICE_HOST is not set: this is no pod".into()));
        return finding(plan, Target::ApiServer, API_NAME.to_owned(), seen);
    };
    let attempt = || async move {
        manx_datastore_kube::ask_version(host, *port, &plan.root).await.map_err(Trouble::Unanswered)
    };
    let seen = persist(PATIENCE, attempt).await.map(attempts);
    finding(plan, Target::ApiServer, format!("{host}:{port}"), seen)
}

/// What was seen, and whether it took more than one attempt.
fn attempts((seen, count): (String, usize)) -> String {
    if count == 1 { seen } else { format!("{seen}, at attempt {count}") }
}

fn finding(plan: &Plan, target: Target, to: String, seen: Result<String, Trouble>) -> Finding {
    let seen = seen.map_err(|trouble| trouble.told(target, &plan.nameservers));
    Finding { from: plan.here.clone(), target, to, seen }
}
