//! Several processes on one directory, some of them killed in the middle of a write.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use manx_datastore::Only;
use manx_datastore::testing::Random;

use super::*;

const DIRECTORY: &str = "MANX_TEST_FILE_STORE";
const WORKER: &str = "MANX_TEST_WORKER";

/// Of what is flushed, and so has its old files written again.
const KIND: Kind = Kind::IPAMConfig;

/// Not a test of its own: what the processes of the test below run. Adds one to the shared number, and then to its own, so
/// that the shared number may run ahead of the sum by one for each time a worker was killed, and never behind.
#[tokio::test]
async fn a_worker_counts_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let own = std::env::var(WORKER).unwrap();
    let store = FileStore::open(PathBuf::from(directory)).await.unwrap();
    loop {
        increment(&store, "shared").await;
        increment(&store, &own).await;
    }
}

async fn increment(store: &FileStore, name: &str) -> u64 {
    loop {
        let object = store.get(KIND, name).await.unwrap().unwrap();
        let next = number(&object) + 1;
        // The padding makes a torn write likely to be seen.
        let padding = next.to_string().repeat(500);
        match store.update(object.with_spec(&json!({"n": next, "padding": padding}))).await {
            Ok(_) => return next,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn number(object: &Object) -> u64 {
    let n = object.spec["n"].as_u64().unwrap();
    if let Some(padding) = object.spec["padding"].as_str() {
        assert_eq!(padding, n.to_string().repeat(500), "an object is written whole");
    }
    n
}

fn spawn(directory: &TempDir, worker: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::a_worker_counts_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .env(WORKER, format!("worker-{worker}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_lost_among_processes_that_are_killed_at_random() {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let (directory, store, _) = two_stores().await;
    for name in ["shared", "worker-0", "worker-1", "worker-2"] {
        store.create(Object::new(KIND, name, &json!({"n": 0}))).await.unwrap();
    }
    let mut workers: Vec<Child> = (0..3).map(|worker| spawn(&directory, worker)).collect();
    let kills = 30;
    for _ in 0..kills {
        // Everybody makes some progress, and then one dies wherever it happens to be.
        let until = total(&store).await + 1 + random.below(40) as u64;
        while total(&store).await < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let victim = random.below(workers.len());
        workers[victim].kill().unwrap();
        workers[victim].wait().unwrap();
        workers[victim] = spawn(&directory, victim);
    }
    for worker in &mut workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    let mut sum = 0;
    for worker in 0..3 {
        sum += number(&store.get(KIND, &format!("worker-{worker}")).await.unwrap().unwrap());
    }
    let shared = total(&store).await;
    println!("{shared} writes of the shared object");
    assert!((sum..=sum + kills + 3).contains(&shared), "{sum} counted, {shared} stored");
    assert!(store.list(KIND, &Only::All).await.unwrap().iter().all(Result::is_ok));
}

async fn total(store: &FileStore) -> u64 {
    number(&store.get(KIND, "shared").await.unwrap().unwrap())
}

#[tokio::test]
async fn what_a_killed_writer_left_is_ignored_and_swept_when_it_is_old() {
    let (directory, store, _) = two_stores().await;
    let left = |name: &str| directory.path().join("ippools").join(name);
    for name in [".manx-1-2.tmp", ".manx-1-3.tmp", ".other"] {
        fs::write(left(name), "half").unwrap();
    }
    let old = SystemTime::now() - Duration::from_secs(61);
    for name in [".manx-1-2.tmp", ".other"] {
        fs::File::options().write(true).open(left(name)).unwrap().set_modified(old).unwrap();
    }
    assert_eq!(store.list(Kind::IPPool, &Only::All).await, Ok(Vec::new()));
    FileStore::open(directory.path()).await.unwrap();
    assert!(!left(".manx-1-2.tmp").exists(), "old, and ours");
    assert!(left(".manx-1-3.tmp").exists(), "somebody may be writing it");
    assert!(left(".other").exists(), "not ours");
}

#[tokio::test]
async fn a_handle_that_a_power_failure_emptied_is_swept_and_nothing_else_that_is_empty() {
    let (directory, _, _) = two_stores().await;
    let old = SystemTime::now() - Duration::from_secs(61);
    let empty = |file: &str| {
        let path = directory.path().join(file);
        fs::File::create(&path).unwrap().set_modified(old).unwrap();
        path
    };
    let (handle, block) = (empty("ipamhandles/net.c1.yaml"), empty("ipamblocks/10-0-0-0-26.yaml"));
    let fresh = directory.path().join("ipamhandles/net.c2.yaml");
    fs::write(&fresh, "").unwrap();
    let store = FileStore::open(directory.path()).await.unwrap();
    assert!(!handle.exists());
    assert!(block.exists(), "blocks are flushed: somebody else emptied it");
    assert!(fresh.exists(), "somebody may be writing it");
    store.create(Object::new(Kind::IPAMHandle, "net.c1", &json!({}))).await.unwrap();
}

#[tokio::test]
async fn a_refused_write_leaves_nothing_behind() {
    let (directory, store, _) = two_stores().await;
    let files = || {
        let files = fs::read_dir(directory.path().join("ippools")).unwrap();
        files.map(|file| file.unwrap().file_name()).collect::<BTreeSet<_>>()
    };
    let first = store.create(pool("p", "10.0.0.0/16")).await.unwrap();
    assert_eq!(files(), BTreeSet::from(["p.yaml".into()]));
    store.update(first.clone()).await.unwrap();
    let before = files();
    store.update(first.clone()).await.unwrap_err();
    store.create(first).await.unwrap_err();
    assert_eq!(files(), before);
}

#[tokio::test]
async fn a_store_writes_two_files_by_turns_and_leaves_one() {
    let (directory, store, other) = two_stores().await;
    drop(other);
    let kind = directory.path().join("ippools");
    let path = kind.join("p.yaml");
    let mut inodes = BTreeSet::new();
    let mut pool = store.create(pool("p", "10.0.0.0/16")).await.unwrap();
    for n in 0..6 {
        // Longer and shorter.
        pool = pool.with_spec(&json!({"cidr": "10.0.0.0/16", "nodeSelector": "x".repeat(n % 3 * 5000)}));
        pool = store.update(pool).await.unwrap();
        assert_eq!(pool.spec, stored(&path).spec, "write {n}");
        inodes.insert(fs::metadata(&path).unwrap().ino());
        // Whoever writes again before that needs a third.
        while !store.writes.are_at_rest() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(inodes.len(), 2);
    drop(store);
    // The task of the watches has the directory, too, until it sees that nobody can ask for one any more.
    let only_the_object_is_left = async {
        while fs::read_dir(&kind).unwrap().count() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, only_the_object_is_left).await.unwrap();
}

#[tokio::test]
async fn two_objects_that_are_written_at_once_are_both_stored_and_leave_two_files_of_each() {
    let (directory, store, other) = two_stores().await;
    drop(other);
    let kind = directory.path().join("ippools");
    let create = |name: &str| store.create(pool(name, "10.0.0.0/16"));
    let (mut p, mut q) = futures::future::try_join(create("p"), create("q")).await.unwrap();
    for n in 0..6 {
        let spec = json!({"cidr": format!("10.{n}.0.0/16")});
        let (first, second) = (store.update(p.with_spec(&spec)), store.update(q.with_spec(&spec)));
        (p, q) = futures::future::try_join(first, second).await.unwrap();
        for (object, name) in [(&p, "p"), (&q, "q")] {
            let path = kind.join(format!("{name}.yaml"));
            let found = crate::yaml::parse(Kind::IPPool, name, &path, &fs::read(&path).unwrap()).unwrap();
            assert_eq!((&found.spec, &found.spec), (&object.spec, &spec), "write {n}");
        }
    }
    assert!((3..=4).contains(&fs::read_dir(&kind).unwrap().count()), "no file is left but two of each");
}

#[tokio::test]
async fn of_two_writes_at_once_of_one_version_one_is_stored_and_the_other_is_a_conflict() {
    let (_directory, store, _) = two_stores().await;
    let before = store.create(pool("p", "10.0.0.0/16")).await.unwrap();
    let write = |cidr: &str| store.update(before.clone().with_spec(&json!({"cidr": cidr})));
    let (one, two) = futures::future::join(write("10.1.0.0/16"), write("10.2.0.0/16")).await;
    let won = match (one, two) {
        (Ok(won), Err(Error::Conflict { .. })) | (Err(Error::Conflict { .. }), Ok(won)) => won,
        both => panic!("{both:?}"),
    };
    assert_eq!(store.get(Kind::IPPool, "p").await.unwrap(), Some(won));
}

#[tokio::test]
async fn a_copy_that_a_person_linked_and_what_a_reader_has_open_stay_as_they_were() {
    let (directory, store, _) = two_stores().await;
    let path = directory.path().join("ippools/p.yaml");
    let first = store.create(pool("p", "10.0.0.0/16")).await.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let copy = directory.path().join("copy.yaml");
    fs::hard_link(&path, &copy).unwrap();
    let second = store.update(first.with_spec(&json!({"cidr": "10.1.0.0/16"}))).await.unwrap();
    let (mut reading, _) = crate::spares::open(&path).unwrap();
    let seen = fs::read_to_string(&path).unwrap();
    let mut last = second;
    for n in 2..6 {
        last = store.update(last.with_spec(&json!({"cidr": format!("10.{n}.0.0/16")}))).await.unwrap();
    }
    assert_eq!(fs::read_to_string(&copy).unwrap(), text);
    assert_eq!(std::io::read_to_string(&mut reading).unwrap(), seen);
    assert_eq!(stored(&path).spec, last.spec);
}

#[tokio::test]
async fn where_a_person_put_a_link_the_file_behind_it_is_not_written() {
    let (directory, store, _) = two_stores().await;
    let path = directory.path().join("ippools/p.yaml");
    let mut pool = store.create(pool("p", "10.0.0.0/16")).await.unwrap();
    let elsewhere = directory.path().join("elsewhere.yaml");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let text = fs::read_to_string(&elsewhere).unwrap();
    for _ in 0..3 {
        pool = store.update(pool).await.unwrap();
    }
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), text);
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
}

fn stored(path: &Path) -> Object {
    crate::yaml::parse(Kind::IPPool, "p", path, &fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn a_write_gives_up_when_the_lock_is_held_for_too_long_and_the_store_recovers() {
    let (directory, store, _) = two_stores().await;
    store.create(pool("a", "10.0.0.0/16")).await.unwrap();
    let lock = fs::File::open(directory.path().join(".manx-lock")).unwrap();
    lock.lock().unwrap();
    tokio::time::pause();
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.create(pool("b", "10.1.0.0/16")).await }
    });
    tokio::task::yield_now().await;
    tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
    let error = write.await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::Unavailable(reason) if reason.contains("holds the lock")), "{error}");
    lock.unlock().unwrap();
    tokio::time::resume();
    store.create(pool("c", "10.2.0.0/16")).await.unwrap();
}
