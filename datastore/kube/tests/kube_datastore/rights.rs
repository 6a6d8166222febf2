//! What a user hears who has not every right, or is nobody.

use std::fs;

use manx_datastore::Error;
use manx_kubernetes::Options as Setup;

use super::*;

#[tokio::test]
async fn a_right_that_is_missing_is_named_with_who_lacks_it() {
    let control_plane = ControlPlane::start(Setup::new().user("poor", &[])).unwrap();
    let admin = store(&control_plane, "admin").await;
    install_crds(&admin).await.unwrap();
    let poor = store(&control_plane, "poor").await;
    let lacks = |error: Error, verb: &str| match error {
        Error::Unavailable(reason) => {
            for part in ["403", "\"poor\"", verb, "\"ippools\"", "crd.projectcalico.org"] {
                assert!(reason.contains(part), "{part}: {reason}");
            }
        }
        other => panic!("{other}"),
    };
    let stored = admin.create(pool("p", "10.0.0.0/16")).await.unwrap();
    lacks(poor.get(Kind::IPPool, "p").await.unwrap_err(), "get");
    lacks(poor.list(Kind::IPPool, &Only::All).await.unwrap_err(), "list");
    lacks(poor.create(pool("q", "10.1.0.0/16")).await.unwrap_err(), "create");
    lacks(poor.update(stored.clone()).await.unwrap_err(), "update");
    lacks(poor.annotate(&stored, &[("a".to_owned(), None)].into()).await.unwrap_err(), "patch");
    lacks(poor.delete(&stored).await.unwrap_err(), "delete");

    let mut watch = poor.watch(Kind::IPPool, Only::All);
    let Event::Lost(reason) = next(&mut watch).await else { panic!("nothing may be watched") };
    lacks(Error::Unavailable(reason), "watch");
    // Once the right is there the watch goes on by itself.
    control_plane
        .kubectl(&[
            "create",
            "clusterrole",
            "pools",
            "--verb=watch,list",
            "--resource=ippools.crd.projectcalico.org",
        ])
        .unwrap();
    control_plane
        .kubectl(&["create", "clusterrolebinding", "pools", "--clusterrole=pools", "--user=poor"])
        .unwrap();
    assert_eq!(in_sync(&mut watch).await, [Event::Init, Event::Object(stored), Event::InSync]);
}

#[tokio::test]
async fn a_token_that_the_server_does_not_know_is_said_to_be_wrong_and_is_not_shown() {
    let (control_plane, _) = shared().await;
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let good = fs::read_to_string(control_plane.kubeconfig("admin").unwrap()).unwrap();
    let bad = good.replace(control_plane.token("admin").unwrap(), "s3cr3t-t0k3n");
    fs::write(&kubeconfig, &bad).unwrap();
    let connect =
        || KubeStore::connect(Options { kubeconfig: Some(kubeconfig.clone()), ..Options::default() });
    let error = connect().await.unwrap().get(Kind::IPPool, "p").await.unwrap_err().to_string();
    assert!(error.contains("401") && !error.contains("s3cr3t"), "{error}");
    // As long as it is no kubeconfig at all, it may hold one nevertheless.
    fs::write(&kubeconfig, format!("[{bad}")).unwrap();
    let error = connect().await.unwrap_err().to_string();
    assert!(error.contains("is no kubeconfig") && !error.contains("s3cr3t"), "{error}");
    fs::write(&kubeconfig, bad.replace("s3cr3t-t0k3n", "s3cr3t\\nt0k3n")).unwrap();
    let error = connect().await.unwrap_err().to_string();
    assert!(error.contains("characters") && !error.contains("s3cr3t"), "{error}");
    fs::remove_file(&kubeconfig).unwrap();
    let error = connect().await.unwrap_err().to_string();
    assert!(error.contains(kubeconfig.to_str().unwrap()) && error.contains("No such file"), "{error}");
}
