//! API servers as they are run elsewhere: behind what speaks only HTTP/1.1, behind balancers, and too small.

use futures::future::join_all;
use manx_datastore::testing::contract;
use manx_kubernetes::Options as Setup;

use super::*;

/// With these arguments, our definitions, and a user `agent` who may do everything and yet is not let past any limit, as
/// `admin` is.
async fn started(args: &[&str]) -> (ControlPlane, KubeStore) {
    let setup = args.iter().fold(Setup::new().user("agent", &[]), |setup, arg| setup.api_server_arg(arg));
    let control_plane = ControlPlane::start(setup).unwrap();
    install_crds(&store(&control_plane, "admin").await).await.unwrap();
    let binding = ["create", "clusterrolebinding", "agent", "--clusterrole=cluster-admin", "--user=agent"];
    control_plane.kubectl(&binding).unwrap();
    let store = store(&control_plane, "agent").await;
    (control_plane, store)
}

#[tokio::test]
async fn the_contract_is_kept_over_http_1_1() {
    let (_control_plane, store) = started(&["--disable-http2-serving=true"]).await;
    soon(contract(&store)).await;
}

#[tokio::test]
async fn the_contract_is_kept_by_a_server_that_sends_no_lists_as_watches() {
    let (_control_plane, store) = started(&["--feature-gates=WatchList=false"]).await;
    soon(contract(&store)).await;
    assert!(store.traffic().calls.contains_key(&("watch", Kind::BlockAffinity)));
}

#[tokio::test]
async fn a_server_that_sends_its_clients_elsewhere_now_and_then_is_followed_without_an_error() {
    // One request in fifty is answered with the request to open another connection (GOAWAY).
    let (_control_plane, store) = started(&["--goaway-chance=0.02"]).await;
    let mut watch = store.watch(Kind::IPPool, Only::All);
    assert_eq!(in_sync(&mut watch).await, [Event::Init, Event::InSync]);
    for _ in 0..100 {
        let stored = store.create(pool("p", "10.0.0.0/16")).await.unwrap();
        assert_eq!(next(&mut watch).await, Event::Object(stored.clone()));
        join_all((0..4).map(|_| store.get(Kind::IPPool, "p"))).await.into_iter().for_each(|got| {
            assert_eq!(got, Ok(Some(stored.clone())));
        });
        store.delete(&stored).await.unwrap();
        assert_eq!(next(&mut watch).await, Event::Deleted("p".into()));
    }
}

#[tokio::test]
async fn a_burst_at_a_server_that_takes_one_write_at_a_time_is_carried_out_whole() {
    let (control_plane, _) =
        started(&["--enable-priority-and-fairness=false", "--max-mutating-requests-inflight=1"]).await;
    let kubeconfig = Some(control_plane.kubeconfig("agent").unwrap());
    let options = Options { kubeconfig, timeout: SOON, ..Options::default() };
    let store = KubeStore::connect(options).await.unwrap();
    let pools = (0..32).map(|i| store.create(pool(&format!("p{i}"), &format!("10.{i}.0.0/16"))));
    for created in soon(join_all(pools)).await {
        created.unwrap();
    }
    let asked = store.traffic().calls[&("create", Kind::IPPool)];
    println!("32 objects were created by {asked} requests");
    assert!(asked > 32, "the server was never busy");
}
