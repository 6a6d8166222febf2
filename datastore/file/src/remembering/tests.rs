use std::fs;
use std::path::PathBuf;

use futures::FutureExt;
use manx_datastore::Memory as InMemory;
use manx_datastore::testing::{Faults, Faulty, contract};
use tempfile::TempDir;

use serde_json::{Value, json};

use super::memory::GATHER;
use super::*;

fn cluster() -> Faulty<InMemory> {
    Faulty::new(InMemory::new(), 1, Faults::default())
}

fn remembering(store: &Faulty<InMemory>, directory: &TempDir) -> Remembering {
    Remembering::open(Arc::new(store.clone()), directory.path()).unwrap()
}

fn pool(name: &str) -> Object {
    Object::new(Kind::IPPool, name, &json!({"cidr": "10.0.0.0/16"}))
}

fn told(watch: &mut BoxStream<'static, Event>) -> Vec<Event> {
    std::iter::from_fn(|| watch.next().now_or_never().flatten()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_remembering_store_keeps_the_contract() {
    let directory = TempDir::new().unwrap();
    contract(&remembering(&cluster(), &directory)).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_while_the_datastore_is_away_is_told_what_was_known_and_that_it_is_lost() {
    let (cluster, directory) = (cluster(), TempDir::new().unwrap());
    let stored = cluster.create(pool("p")).await.unwrap();
    let before = remembering(&cluster, &directory);
    assert_eq!(told(&mut before.watch(Kind::IPPool, Only::All)).len(), 3);
    tokio::time::sleep(GATHER * 3).await;
    drop(before);

    cluster.down();
    let after = remembering(&cluster, &directory);
    let mut watch = after.watch(Kind::IPPool, Only::All);
    cluster.down();
    let lost = Event::Lost("cut off".into());
    assert_eq!(told(&mut watch), [Event::Init, Event::Object(stored), Event::InSync, lost.clone()]);
    assert_eq!(
        told(&mut {
            let unknown = after.watch(Kind::BGPPeer, Only::All);
            cluster.down();
            unknown
        }),
        [lost]
    );

    cluster.up();
    let second = cluster.create(pool("q")).await.unwrap();
    assert_eq!(told(&mut watch).last(), Some(&Event::InSync));
    cluster.down();
    assert_eq!(told(&mut watch).len(), 1, "a living agent remembers by itself: {second:?}");
}

#[tokio::test(start_paused = true)]
async fn our_own_writes_are_remembered_at_once_and_what_we_deleted_is_not() {
    let (cluster, directory) = (cluster(), TempDir::new().unwrap());
    let before = remembering(&cluster, &directory);
    let block = |n: u32| Object::new(Kind::IPAMBlock, "10-0-0-0-26", &json!({"n": n}));
    before.create(block(1)).await.unwrap();
    let read = before.get(Kind::IPAMBlock, "10-0-0-0-26").await.unwrap().unwrap();
    let written = before.update(read.with_spec(&json!({"n": 2}))).await.unwrap();
    cluster.down();
    let after = remembering(&cluster, &directory);
    assert_eq!(after.get(Kind::IPAMBlock, "10-0-0-0-26").await, Ok(Some(written.clone())));
    assert!(after.get(Kind::IPAMBlock, "10-0-0-64-26").await.is_err(), "never asked for: not known");
    assert!(after.update(written.clone()).await.is_err(), "nothing is written from memory");

    cluster.up();
    before.delete(&written).await.unwrap();
    cluster.down();
    let after = remembering(&cluster, &directory);
    assert!(after.get(Kind::IPAMBlock, "10-0-0-0-26").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_cut_off_costs_what_it_wrote_and_not_what_was_known_before() {
    let (cluster, directory) = (cluster(), TempDir::new().unwrap());
    let before = remembering(&cluster, &directory);
    let block = |n: u32| Object::new(Kind::IPAMBlock, "10-0-0-0-26", &json!({"n": n}));
    let mut versions = vec![before.create(block(0)).await.unwrap()];
    for n in 1..4 {
        let next = versions[n - 1].clone().with_spec(&json!({"n": n}));
        versions.push(before.update(next).await.unwrap());
    }
    cluster.down();
    let holds = |file: &PathBuf| fs::read_to_string(file).unwrap().contains("{\"n\":3}");
    let newest = files(&directory).into_iter().find(holds).unwrap();
    let whole = fs::read(&newest).unwrap();
    for (written, version) in [(whole.len(), 3), (whole.len() - 2, 2), (0, 2)] {
        fs::write(&newest, &whole[..written]).unwrap();
        let after = remembering(&cluster, &directory);
        let known = after.get(Kind::IPAMBlock, "10-0-0-0-26").await;
        assert_eq!(known, Ok(Some(versions[version].clone())), "{written} bytes were written");
    }
}

fn files(directory: &TempDir) -> Vec<PathBuf> {
    fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(start_paused = true)]
async fn once_the_datastore_has_answered_its_silence_is_not_hidden() {
    let (cluster, directory) = (cluster(), TempDir::new().unwrap());
    let store = remembering(&cluster, &directory);
    cluster.create(pool("p")).await.unwrap();
    assert!(store.get(Kind::IPPool, "p").await.unwrap().is_some());
    cluster.down();
    assert!(store.get(Kind::IPPool, "p").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn secrets_are_never_on_disk_and_damaged_files_are_left_out() {
    let (cluster, directory) = (cluster(), TempDir::new().unwrap());
    let store = remembering(&cluster, &directory);
    let mut secret = Object::new_in(Kind::Secret, "kube-system", "s", &Value::Null);
    secret.rest.insert("data".into(), json!({"password": "aHVudGVyMg=="}));
    store.create(secret).await.unwrap();
    store.get(Kind::Secret, "kube-system/s").await.unwrap().unwrap();
    store.get(Kind::IPPool, "none").await.unwrap();
    tokio::time::sleep(GATHER * 3).await;
    assert_eq!(files(&directory), [] as [PathBuf; 0]);
    fs::write(directory.path().join("ippools.0.json"), "{").unwrap();
    cluster.down();
    assert!(remembering(&cluster, &directory).list(Kind::IPPool, &Only::All).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_block_that_nobody_asked_for_before_it_was_written_is_remembered_and_a_ping_is_not_answered_from_memory()
 {
    let (cluster, directory) = (cluster(), TempDir::new().unwrap());
    let before = remembering(&cluster, &directory);
    let block = Object::new(Kind::IPAMBlock, "10-0-0-0-26", &json!({"n": 1}));
    let written = before.create(block).await.unwrap();
    let config = Object::new(Kind::IPAMConfig, "default", &json!({}));
    before.create(config).await.unwrap();
    before.ping().await.unwrap();
    before.settle().await.unwrap();
    cluster.down();
    let after = remembering(&cluster, &directory);
    assert_eq!(after.get(Kind::IPAMBlock, "10-0-0-0-26").await, Ok(Some(written)));
    assert!(after.ping().await.is_err());
    fs::remove_dir_all(directory.path()).unwrap();
    assert!(after.settle().await.is_err(), "what cannot be kept is said");
}
