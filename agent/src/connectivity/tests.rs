use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::calls::echo;
use super::survey::Plan;
use super::*;

/// Enough for this machine, and no test waits longer.
const LIMIT: Duration = Duration::from_secs(1);

fn place(node: &str) -> Place {
    Place { node: node.into(), pod: format!("manx-test-{node}") }
}

fn finding(seen: Result<&str, &str>) -> Finding {
    Finding {
        from: place("node1"),
        target: Target::Pod,
        to: "192.168.1.2".into(),
        seen: seen.map(str::to_owned).map_err(str::to_owned),
    }
}

#[test]
fn a_finding_is_one_line_that_says_from_where_to_what_and_how_it_went() {
    let good = finding(Ok("manx-test-node3 on node3 sends back 64 KiB"));
    assert_eq!(
        good.to_string(),
        "ok    node1 -> pod 192.168.1.2: manx-test-node3 on node3 sends back 64 KiB"
    );
    assert_eq!(finding(Err("refused")).to_string(), "FAIL  node1 -> pod 192.168.1.2: refused");
}

#[test]
fn two_pods_of_one_node_that_check_are_told_apart() {
    let mut other = finding(Ok("good"));
    other.from.pod = "manx-test-other".into();
    let page = page(&[finding(Ok("good")), finding(Err("bad")), other]);
    let expected = "\
From manx-test-node1 on node1:
ok    node1 -> pod 192.168.1.2: good
FAIL  node1 -> pod 192.168.1.2: bad
From manx-test-other on node1:
ok    node1 -> pod 192.168.1.2: good
";
    assert_eq!(page, expected);
}

#[test]
fn one_failure_among_many_is_a_failure_and_no_check_at_all_is_one() {
    let servers = BTreeSet::from([place("node1"), place("node3")]);
    let (good, text) = verdict(&[finding(Ok("")), finding(Err(""))], &servers);
    assert_eq!((good, text.as_str()), (false, "1 of 2 checks failed"));
    assert!(!verdict(&[], &servers).0);
    let (good, text) = verdict(&[finding(Ok(""))], &servers);
    assert_eq!((good, text.as_str()), (true, "all 1 checks passed, with pods on node1, node3"));
}

#[test]
fn on_one_node_it_is_said_that_no_way_between_nodes_was_tried() {
    let (good, text) = verdict(&[finding(Ok(""))], &BTreeSet::from([place("node1")]));
    assert!(good && text.contains("only on node1") && text.contains("NOT tried"), "{text}");
}

#[test]
fn every_trouble_is_told_with_what_to_do() {
    let dns = Trouble::Unresolved("timed out".into()).told(Target::Dns, "10.96.0.10");
    assert!(dns.starts_with("10.96.0.10 gave no answer (timed out)") && dns.contains("k8s-app=kube-dns"));
    let large = Trouble::LargeLost("timed out".into()).told(Target::Pod, "");
    assert!(large.contains("cni.mtu"), "{large}");
    let gone = Trouble::Unconnected("no connection within 3 s".into());
    assert!(gone.told(Target::Pod, "").contains("manx status"));
    assert!(gone.told(Target::Service, "").contains("kube-proxy"));
    assert!(gone.told(Target::ApiServer, "").contains("kube-proxy"));
}

#[test]
fn pods_that_are_missing_are_counted_and_a_service_of_another_address_is_named() {
    let found = [IpAddr::from([192, 168, 1, 2])];
    assert_eq!(judge_pods(&found, 1), Ok(()));
    assert!(matches!(judge_pods(&found, 2), Err(Trouble::Wrong(why)) if why.starts_with("1 of 2 test pods")));
    assert_eq!(judge_service(&found, None), Ok(()));
    assert_eq!(judge_service(&found, Some(found[0])), Ok(()));
    let other = judge_service(&found, Some([10, 96, 0, 1].into()));
    assert!(
        matches!(other, Err(Trouble::Wrong(why)) if why.starts_with("it is 192.168.1.2, and the service has 10.96.0.1"))
    );
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_server_sends_back_what_it_is_sent_and_says_who_it_is() {
    let (listener, address) = listener().await;
    let plan = Plan {
        here: place("node1"),
        own: None,
        peers: String::new(),
        pods: 1,
        service: String::new(),
        service_address: None,
        port: address.port(),
        api_server: None,
        root: "/nowhere".into(),
        nameservers: String::new(),
    };
    let serving = tokio::spawn(server::serve(listener, plan));
    assert_eq!(echo(address, LIMIT).await, Ok(place("node1")));
    serving.abort();
}

#[tokio::test]
async fn a_way_on_which_full_packets_are_lost_is_told_from_one_that_is_closed_or_silent() {
    let (listener, address) = listener().await;
    let answering = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            if String::from_utf8_lossy(&request[..length]).contains("content-length: 4\r\n") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmanx").await.unwrap();
            }
            held.push(stream);
        }
    });
    assert!(matches!(echo(address, LIMIT).await, Err(Trouble::LargeLost(_))));
    answering.abort();
    let _ = answering.await;
    assert!(matches!(echo(address, LIMIT).await, Err(Trouble::Unconnected(_))));

    let (silent, address) = self::listener().await;
    assert!(matches!(echo(address, LIMIT).await, Err(Trouble::Unanswered(_))));
    drop(silent);
}
