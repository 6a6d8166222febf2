//! What calls and watches cost: requests, as the API server counts them, and bytes.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Instant;

use super::*;

/// How often each call is timed.
const TIMES: usize = 100;

#[tokio::test]
async fn each_call_is_one_request_and_each_watch_one_too() {
    let (control_plane, store) = shared().await;
    let kubeconfig = Some(control_plane.kubeconfig("admin").unwrap());
    let fresh = KubeStore::connect(Options { kubeconfig, ..Options::default() }).await.unwrap();
    let mark = control_plane.audit().mark().unwrap();
    let mut watch = fresh.watch(Kind::IPPool, Only::All);
    in_sync(&mut watch).await;
    let stored = fresh.create(pool("p", "10.0.0.0/16")).await.unwrap();
    let stored = fresh.update(stored).await.unwrap();
    let stored = fresh.annotate(&stored, &[("a".to_owned(), Some("b".to_owned()))].into()).await.unwrap();
    fresh.get(Kind::IPPool, "p").await.unwrap();
    fresh.list(Kind::IPPool, &Only::All).await.unwrap();
    fresh.delete(&stored).await.unwrap();
    while next(&mut watch).await != Event::Deleted("p".into()) {}
    drop(watch);
    // The audit writes a watch when it has ended.
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
    manx_lab::eventually(SOON, "seven requests", || {
        let requests = control_plane.audit().since(mark)?;
        let ours = requests.by_agent("manx/");
        let table: Vec<_> =
            ours.table().into_iter().map(|((verb, _), count)| (verb.to_owned(), count)).collect();
        anyhow::ensure!(table == verbs.map(|verb| (verb.to_owned(), 1)), "{requests}");
        Ok(())
    })
    .unwrap();
    let counted: Vec<_> = fresh.traffic().calls.into_iter().collect();
    assert_eq!(counted, verbs.map(|verb| ((verb, Kind::IPPool), 1)));
    drop(store);
}

/// A block that 64 pods have filled.
fn block(sequence: usize) -> Object {
    let holder = |i: usize| {
        let pod = json!({"pod": format!("pod-{i}"), "namespace": "shop", "node": "n1", "timestamp": "2026-01-02T03:04:05Z"});
        json!({"handle_id": format!("k8s-pod-network.{i:064}"), "secondary": pod})
    };
    let sequences: BTreeMap<_, _> = (0..64).map(|i| (i.to_string(), sequence)).collect();
    let spec = json!({"cidr": "10.0.0.0/26", "affinity": "host:n1", "deleted": false, "strictAffinity": false,
        "allocations": (0..64).collect::<Vec<_>>(), "unallocated": [], "sequenceNumber": sequence,
        "sequenceNumberForAllocation": sequences, "attributes": (0..64).map(holder).collect::<Vec<_>>()});
    Object::new(Kind::IPAMBlock, "10-0-0-0-26", &spec)
}

/// Prints a table; nothing depends on how fast this machine is.
#[tokio::test]
async fn the_times_of_calls_and_the_bytes_of_watches() {
    let (control_plane, store) = shared().await;
    let mut watch = store.watch(Kind::IPAMBlock, Only::All);
    in_sync(&mut watch).await;
    let mut times: [Vec<Duration>; 5] = Default::default();
    let cpu = control_plane.cpu().unwrap();
    let time = |begun: Instant, times: &mut Vec<Duration>| times.push(begun.elapsed());
    for round in 0..TIMES {
        let begun = Instant::now();
        let stored = store.create(block(0)).await.unwrap();
        time(begun, &mut times[0]);
        let begun = Instant::now();
        let stored = store.update(stored.with_spec(&block(round).spec)).await.unwrap();
        time(begun, &mut times[1]);
        let begun = Instant::now();
        let changes = [("a".to_owned(), Some(round.to_string()))].into();
        let stored = store.annotate(&stored, &changes).await.unwrap();
        time(begun, &mut times[2]);
        let begun = Instant::now();
        store.get(Kind::IPAMBlock, "10-0-0-0-26").await.unwrap();
        time(begun, &mut times[3]);
        let begun = Instant::now();
        store.delete(&stored).await.unwrap();
        time(begun, &mut times[4]);
    }
    let spent = control_plane.cpu().unwrap();
    let per_call = |after: Duration, before: Duration| (after - before) / (5 * TIMES) as u32;
    for (what, times) in ["create", "update", "annotate", "get", "delete"].into_iter().zip(&mut times) {
        times.sort_unstable();
        println!("{what:9} p50 {:6.2?}  p99 {:6.2?}", times[TIMES / 2], times[TIMES * 99 / 100]);
    }
    println!(
        "CPU per call: API server {:?}, etcd {:?}",
        per_call(spent.api_server, cpu.api_server),
        per_call(spent.etcd, cpu.etcd)
    );
    while next(&mut watch).await != Event::Deleted("10-0-0-0-26".into()) {}
    let watched = store.traffic().watched[&Kind::IPAMBlock];
    println!(
        "watch of blocks: {} events, {} bytes each",
        watched.events,
        watched.bytes / watched.events.max(1)
    );
    assert!(watched.events > 0);
}

#[tokio::test]
async fn all_watches_and_calls_of_an_agent_travel_on_one_connection() {
    let (control_plane, other) = shared().await;
    drop(other);
    let kubeconfig = Some(control_plane.kubeconfig("admin").unwrap());
    let store = KubeStore::connect(Options { kubeconfig, ..Options::default() }).await.unwrap();
    let mut watches: Vec<_> = Kind::ALL.map(|kind| store.watch(kind, Only::All)).into();
    for watch in &mut watches {
        in_sync(watch).await;
    }
    futures::future::join_all((0..64).map(|_| store.get(Kind::IPPool, "p"))).await;
    // Connections of stores that have just gone take a moment to end.
    soon(async {
        while connections(&control_plane) > 1 {
            store.get(Kind::IPPool, "p").await.unwrap();
        }
    })
    .await;
    assert_eq!(connections(&control_plane), 1);
}

/// Those from this process to the API server that are established (proc(5), `/proc/net/tcp`).
fn connections(control_plane: &ControlPlane) -> usize {
    let address: SocketAddrV4 = control_plane.url().trim_start_matches("https://").parse().unwrap();
    let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open: Vec<_> = files.filter_map(|file| fs::read_link(file.path()).ok()).collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_ours = |row: &Vec<&str>| {
        row[2] == remote && row[3] == "01" && open.contains(&PathBuf::from(format!("socket:[{}]", row[9])))
    };
    rows.filter(is_ours).count()
}
