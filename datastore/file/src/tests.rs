use std::fs;
use std::path::PathBuf;

use futures::StreamExt;
use manx_datastore::Only;
use manx_datastore::testing::contract;
use serde_json::json;
use tempfile::TempDir;

use super::*;

mod crash;
mod people;

/// A store in a directory of its own, and another opened on the same directory, as another agent has it.
async fn two_stores() -> (TempDir, FileStore, FileStore) {
    let directory = tempfile::tempdir().unwrap();
    let first = FileStore::open(directory.path()).await.unwrap();
    let second = FileStore::open(directory.path()).await.unwrap();
    (directory, first, second)
}

fn pool(name: &str, cidr: &str) -> Object {
    Object::new(Kind::IPPool, name, &json!({ "cidr": cidr }))
}

fn manifest(directory: &TempDir, name: &str) -> PathBuf {
    directory.path().join("ippools").join(format!("{name}.yaml"))
}

#[tokio::test]
async fn the_store_in_files_keeps_the_contract() {
    let (_directory, store, _) = two_stores().await;
    contract(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_files_keeps_the_contract_on_several_threads() {
    let (_directory, store, _) = two_stores().await;
    contract(&store).await;
}

#[tokio::test]
async fn a_second_agent_sees_what_the_first_writes() {
    let (_directory, first, second) = two_stores().await;
    let mut watch = second.watch(Kind::IPPool, Only::All);
    assert_eq!(watch.next().await, Some(Event::Init));
    assert_eq!(watch.next().await, Some(Event::InSync));
    let stored = first.create(pool("p", "10.0.0.0/16")).await.unwrap();
    assert_eq!(watch.next().await, Some(Event::Object(stored.clone())));
    assert_eq!(second.get(Kind::IPPool, "p").await, Ok(Some(stored.clone())));
    let newer = second.update(stored.clone().with_spec(&json!({"cidr": "10.1.0.0/16"}))).await.unwrap();
    assert_eq!(watch.next().await, Some(Event::Object(newer.clone())));
    assert_eq!(first.update(stored.clone()).await, Err(Error::conflict(&stored)));
    first.delete(&newer).await.unwrap();
    assert_eq!(watch.next().await, Some(Event::Deleted("p".into())));
}

#[tokio::test]
async fn a_manifest_is_what_a_person_expects_to_read() {
    let (directory, store, _) = two_stores().await;
    let mut object = pool("p", "10.0.0.0/16");
    object.metadata.annotations.insert("note".into(), "no".into());
    object.spec["natOutgoing"] = true.into();
    let stored = store.create(object).await.unwrap();
    let text = fs::read_to_string(manifest(&directory, "p")).unwrap();
    let uid = stored.metadata.uid.unwrap();
    assert_eq!(
        text,
        format!(
            "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata:\n  annotations:\n    note: \"no\"\n  \
             name: p\n  resourceVersion: \"1\"\n  uid: {uid}\nspec:\n  cidr: 10.0.0.0/16\n  natOutgoing: true\n"
        )
    );
}

#[tokio::test]
async fn a_name_that_no_file_can_have_is_refused() {
    let (_directory, store, _) = two_stores().await;
    let error = store.create(pool(&"x".repeat(251), "10.0.0.0/16")).await.unwrap_err();
    assert!(error.to_string().contains("250"), "{error}");
}

#[tokio::test]
async fn what_is_no_directory_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = FileStore::open(file.path()).await.unwrap_err().to_string();
    assert!(error.contains(file.path().to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_directory_that_goes_away_deletes_nothing_and_comes_back() {
    let (directory, store, _) = two_stores().await;
    let stored = store.create(pool("p", "10.0.0.0/16")).await.unwrap();
    let mut watch = store.watch(Kind::IPPool, Only::All);
    for _ in 0..3 {
        watch.next().await;
    }
    let away = tempfile::tempdir().unwrap();
    let (here, there) = (directory.path(), away.path().join("store"));
    fs::rename(here, &there).unwrap();
    assert!(matches!(watch.next().await, Some(Event::Lost(_))));
    assert!(matches!(store.get(Kind::IPPool, "p").await, Err(Error::Unavailable(_))));
    assert!(matches!(store.list(Kind::IPPool, &Only::All).await, Err(Error::Unavailable(_))));
    assert!(matches!(store.create(pool("q", "10.0.0.0/16")).await, Err(Error::Unavailable(_))));
    fs::create_dir(here).unwrap();
    assert!(matches!(store.get(Kind::IPPool, "p").await, Err(Error::Unavailable(_))));
    fs::remove_dir(here).unwrap();
    fs::rename(&there, here).unwrap();
    loop {
        match watch.next().await {
            Some(Event::Lost(_)) => {}
            event => break assert_eq!(event, Some(Event::Init)),
        }
    }
    assert_eq!(watch.next().await, Some(Event::Object(stored)));
    assert_eq!(watch.next().await, Some(Event::InSync));
}

#[tokio::test]
async fn a_file_that_has_not_changed_is_not_read_again() {
    let (directory, store, _) = two_stores().await;
    store.create(pool("p", "10.0.0.0/16")).await.unwrap();
    let path = manifest(&directory, "p");
    let age = |seconds| {
        let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
        fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
    };
    let read = || store.directory.list(Kind::IPPool).unwrap().remove(0);
    age(10);
    let first = read();
    assert!(Arc::ptr_eq(&first, &read()), "it is the one that was read before");
    assert!(Arc::ptr_eq(&first, &store.directory.get(Kind::IPPool, "p").unwrap().unwrap()));
    age(9);
    assert!(!Arc::ptr_eq(&first, &read()), "it was touched");
}

#[tokio::test]
async fn a_removed_directory_of_a_kind_is_made_again_and_its_objects_are_deleted() {
    let (directory, store, _) = two_stores().await;
    store.create(pool("p", "10.0.0.0/16")).await.unwrap();
    let mut watch = store.watch(Kind::IPPool, Only::All);
    while watch.next().await != Some(Event::InSync) {}
    fs::remove_dir_all(directory.path().join("ippools")).unwrap();
    assert_eq!(watch.next().await, Some(Event::Deleted("p".into())));
    while store.create(pool("q", "10.0.0.0/16")).await.is_err() {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(matches!(watch.next().await, Some(Event::Object(object)) if object.name() == "q"));
}
