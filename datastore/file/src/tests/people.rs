//! What people do to the files, with editors, scripts and mistakes.

use std::io::Write;

use super::*;

fn text(name: &str, spec: &str) -> String {
    format!("apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata:\n  name: {name}\nspec: {spec}\n")
}

async fn watching(store: &FileStore) -> BoxStream<'static, Event> {
    let mut watch = store.watch(Kind::IPPool, Only::All);
    while watch.next().await != Some(Event::InSync) {}
    watch
}

async fn next_object(watch: &mut BoxStream<'static, Event>) -> Object {
    match watch.next().await {
        Some(Event::Object(object)) => object,
        other => panic!("not an object: {other:?}"),
    }
}

#[tokio::test]
async fn a_file_without_version_and_uid_is_an_object_with_both() {
    let (directory, store, other) = two_stores().await;
    fs::write(manifest(&directory, "p"), text("p", "{cidr: 10.0.0.0/16}")).unwrap();
    let object = store.get(Kind::IPPool, "p").await.unwrap().unwrap();
    assert!(object.metadata.resource_version.is_some() && object.metadata.uid.is_some());
    assert_eq!(other.get(Kind::IPPool, "p").await, Ok(Some(object.clone())));
    let newer = other.update(object.clone()).await.unwrap();
    assert_eq!(newer.metadata.uid, object.metadata.uid, "it is still the same object");
    assert_eq!(store.update(object.clone()).await, Err(Error::conflict(&object)));
}

#[tokio::test]
async fn an_edit_between_our_read_and_our_write_is_a_conflict() {
    let (directory, store, _) = two_stores().await;
    let ours = store.create(pool("p", "10.0.0.0/16")).await.unwrap();
    let path = manifest(&directory, "p");
    // The number in the file stays, as it does when a person saves.
    let edited = fs::read_to_string(&path).unwrap().replace("10.0.0.0", "10.9.0.0");
    fs::write(&path, &edited).unwrap();
    assert_eq!(store.update(ours.clone()).await, Err(Error::conflict(&ours)));
    assert_eq!(store.delete(&ours).await, Err(Error::conflict(&ours)));
    assert_eq!(fs::read_to_string(&path).unwrap(), edited);
    let theirs = store.get(Kind::IPPool, "p").await.unwrap().unwrap();
    assert_eq!(theirs.spec, json!({"cidr": "10.9.0.0/16"}));
    store.delete(&theirs).await.unwrap();
}

#[tokio::test]
async fn editors_that_rename_and_editors_that_write_in_place_are_both_seen() {
    let (directory, store, _) = two_stores().await;
    let mut watch = watching(&store).await;
    let path = manifest(&directory, "p");
    let backup = directory.path().join("ippools/p.yaml~");
    let swap = directory.path().join("ippools/.p.yaml.swp");

    fs::write(&swap, "b0VIM 9.0").unwrap();
    fs::write(directory.path().join("ippools/4913"), "").unwrap();
    fs::write(&path, text("p", "{cidr: 10.0.0.0/16}")).unwrap();
    assert_eq!(next_object(&mut watch).await.spec, json!({"cidr": "10.0.0.0/16"}));

    let aside = directory.path().join("ippools/.p.yaml.new");
    fs::write(&aside, text("p", "{cidr: 10.1.0.0/16}")).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(next_object(&mut watch).await.spec, json!({"cidr": "10.1.0.0/16"}));

    // In two halves, as a slow editor does: the half is not told, neither by the watch nor by a list.
    let (first, second) = (text("p", "{cidr: ").trim_end().to_owned(), " 10.2.0.0/16}\n");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    let listed = store.list(Kind::IPPool, &Only::All);
    let finished = async {
        tokio::task::yield_now().await;
        file.write_all(second.as_bytes()).unwrap();
        drop(file);
    };
    let (listed, ()) = futures::join!(listed, finished);
    assert_eq!(listed.unwrap()[0].as_ref().unwrap().spec, json!({"cidr": "10.2.0.0/16"}));
    assert_eq!(next_object(&mut watch).await.spec, json!({"cidr": "10.2.0.0/16"}));

    fs::rename(&path, &backup).unwrap();
    assert_eq!(watch.next().await, Some(Event::Deleted("p".into())));
    fs::copy(&backup, &path).unwrap();
    assert_eq!(next_object(&mut watch).await.spec, json!({"cidr": "10.2.0.0/16"}));
    fs::remove_file(&path).unwrap();
    assert_eq!(watch.next().await, Some(Event::Deleted("p".into())));
}

#[tokio::test]
async fn a_damaged_file_is_named_with_line_and_reason_and_hides_nothing_else() {
    let (directory, store, _) = two_stores().await;
    let good = store.create(pool("good", "10.0.0.0/16")).await.unwrap();
    let mut watch = watching(&store).await;
    let head = "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata:\n  name: bad\n";
    for (content, line, reason) in [
        (format!("{head}spec: {{cidr: [}}\n"), "line 5", ""),
        (format!("{head}spec:\n  cidr: a\n  cidr: b\n"), "line 7", "duplicate"),
        (
            format!("{head}  annotations:\n    port: 80\n"),
            "line 6",
            "port is the number 80, and must be text: put it in quotes, as in \"80\"",
        ),
        (format!("{head}  labels:\n    ok: true\n"), "line 6", "ok is the boolean true, and must be text"),
        (format!("{head}  labels:\n    ok:\n"), "line 6", "ok is empty, and must be text"),
        (head.replace("IPPool", "BGPPeer"), "line 2", "kind is \"BGPPeer\", expected \"IPPool\""),
        (
            head.replace("projectcalico.org/v1", "projectcalico.org/v3"),
            "line 1",
            "expected \"crd.projectcalico.org/v1\"",
        ),
        (
            head.replace("name: bad", "name: other"),
            "line 4",
            "metadata.name is \"other\", and the file's name says \"bad\"",
        ),
        (head.replace("name: bad", "name: 10"), "line 4", "name is the number 10"),
        ("kind: IPPool\n".into(), "", "apiVersion is missing"),
        ("- a\n".into(), "", "is not a mapping"),
        (String::new(), "", "is empty"),
        (format!("{head}---\n{head}"), "", ""),
    ] {
        fs::write(manifest(&directory, "bad"), &content).unwrap();
        let error = store.get(Kind::IPPool, "bad").await.unwrap_err();
        let shown = error.to_string();
        for part in ["IPPool bad: ", "/ippools/bad.yaml", line, reason] {
            assert!(shown.contains(part), "{content}\n{shown}\nlacks {part:?}");
        }
        let Error::Invalid(invalid) = error else { panic!("{error:?}") };
        assert_eq!(
            store.list(Kind::IPPool, &Only::All).await,
            Ok(vec![Err(invalid.clone()), Ok(good.clone())])
        );
        while watch.next().await != Some(Event::Invalid(invalid.clone())) {}
    }
    fs::write(manifest(&directory, "bad"), [b'a', b'\n', 0xff]).unwrap();
    let error = store.get(Kind::IPPool, "bad").await.unwrap_err().to_string();
    assert!(error.contains("line 2: is not UTF-8"), "{error}");
    assert_eq!(store.create(pool("bad", "10.0.0.0/16")).await, Err(Error::exists(&pool("bad", ""))));

    // Mended, it is an object like any other.
    fs::write(manifest(&directory, "bad"), text("bad", "{cidr: 10.5.0.0/16}")).unwrap();
    loop {
        if let Some(Event::Object(object)) = watch.next().await {
            break assert_eq!(object.spec, json!({"cidr": "10.5.0.0/16"}));
        }
    }
}

#[tokio::test]
async fn norway_stays_a_country() {
    let (directory, store, _) = two_stores().await;
    let content = "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata:\n  name: p\n  labels: {country: no}\n\
                   spec: {disabled: no, on: off, version: '1.10'}\n";
    fs::write(manifest(&directory, "p"), content).unwrap();
    let object = store.get(Kind::IPPool, "p").await.unwrap().unwrap();
    assert_eq!(object.metadata.labels["country"], "no");
    assert_eq!(object.spec, json!({"disabled": "no", "on": "off", "version": "1.10"}));
}

#[tokio::test]
async fn a_file_that_was_meant_as_a_manifest_and_is_none_is_named() {
    let (directory, store, _) = two_stores().await;
    for file in ["pool.yml", "pool.json", "Pool.yaml"] {
        let path = directory.path().join("ippools").join(file);
        fs::write(&path, text("pool", "{}")).unwrap();
        let listed = store.list(Kind::IPPool, &Only::All).await.unwrap();
        assert!(matches!(&listed[..], [Err(invalid)] if invalid.field.ends_with(file)), "{listed:?}");
        fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_counter_goes_on_beyond_every_number_it_can_have_been() {
    let (directory, store, _) = two_stores().await;
    let before = store.create(pool("a", "10.0.0.0/16")).await.unwrap();
    fs::write(directory.path().join(".manx-lock"), "?").unwrap();
    let store = FileStore::open(directory.path()).await.unwrap();
    let after = store.create(pool("b", "10.1.0.0/16")).await.unwrap();
    let number = |object: &Object| -> u64 {
        let version = object.metadata.resource_version.clone().unwrap();
        version.split('-').next().unwrap().parse().unwrap()
    };
    assert!(number(&after) > number(&before) + 1_000_000);
}
