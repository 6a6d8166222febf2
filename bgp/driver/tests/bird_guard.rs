//! Passwords and TTL security between our speaker and a real BIRD 2.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod rig;

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use manx_bgp::session::{Guard, Password, Secret, State, Ttl};
use manx_bgp::speaker::{PeerConfig, SpeakerConfig};
use tokio::time::Instant;

use rig::{Bird, Neighbour, Node, OUR_ASN, OURS, asn, eventually, place};

const ROUTE: &str = "10.200.1.0/24";
const ROUTES: [&str; 1] = ["10.200.1.0/24 blackhole"];

fn key(word: &str) -> Password {
    Password::Key(Secret::new(word.as_bytes()).unwrap())
}

fn set_password(config: &mut SpeakerConfig, peer: IpAddr, password: Password) {
    config.peers.get_mut(&peer).unwrap().guard.password = password;
}

/// Runs the node for a while, in which nothing of the kind may happen.
async fn never(node: &mut Node, what: &str, seconds: u64, mut happens: impl FnMut(&Node) -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    node.until("the time is over", |node| {
        assert!(!happens(node), "{what}: {:?}", node.bgp.status());
        Instant::now() >= end
    })
    .await;
}

#[tokio::test]
async fn the_right_password_opens_the_session_whoever_dials() {
    for (bird_passive, we_passive) in [(true, false), (false, true)] {
        let (at, us) = (place(), place());
        let options = format!("password \"s3cret\"; {}", if bird_passive { "passive on;" } else { "" });
        let bird = Bird::start(at, 65001, &[Neighbour::new(us).with(&options)], &ROUTES);
        let mut node = Node::start(us, &[&bird], |config| {
            set_password(config, at.ip(), key("s3cret"));
            config.peers.get_mut(&at.ip()).unwrap().passive = we_passive;
        });
        node.until("routes both ways", |node| node.has(ROUTE) && bird.has(OURS)).await;
        assert!(!format!("{:?} {:?}", node.bgp.status(), node.config).contains("s3cret"));
    }
}

#[tokio::test]
async fn a_wrong_password_or_none_keeps_the_session_down_until_it_is_right_and_touches_no_other() {
    let (at, other_at, us) = (place(), place(), place());
    let bird = Bird::start(at, 65001, &[Neighbour::new(us).with("password \"right\";")], &ROUTES);
    let other = Bird::start(other_at, 65002, &[Neighbour::new(us).with("password \"other\";")], &[]);
    let mut node = Node::start(us, &[&bird, &other], |config| {
        set_password(config, at.ip(), key("wrong"));
        set_password(config, other_at.ip(), key("other"));
    });
    node.until("the other one", |node| node.established(&other)).await;
    let up = |node: &Node| node.established(&bird);
    never(&mut node, "a wrong password", 3, up).await;
    node.until("a hint", |node| {
        node.peer(&bird).last_error.is_some_and(|words| words.contains("whose password is another"))
    })
    .await;
    node.configure(|config| set_password(config, at.ip(), Password::None));
    never(&mut node, "no password", 3, up).await;
    node.configure(|config| set_password(config, at.ip(), key("right")));
    node.until("the right one", |node| node.has(ROUTE) && bird.has(OURS)).await;
    assert!(node.peer(&other).state_for > Duration::from_secs(6), "{:?}", node.peer(&other));
    assert!(!other.log().contains("State changed to stop"), "{}", other.log());
}

#[tokio::test]
async fn a_rotated_password_authenticates_anew_and_loses_no_route_of_either_side_meanwhile() {
    let (at, us) = (place(), place());
    let with = |word: &str| [Neighbour::new(us).with(&format!("password \"{word}\";"))];
    let bird = Bird::start(at, 65001, &with("old"), &ROUTES);
    let mut node = Node::start(us, &[&bird], |config| set_password(config, at.ip(), key("old")));
    node.until("routes both ways", |node| node.has(ROUTE) && bird.has(OURS) && node.converged).await;
    node.configure(|config| set_password(config, at.ip(), key("new")));
    node.until("the end", |node| !node.established(&bird)).await;
    let words = node.peer(&bird).last_error.unwrap();
    assert!(words.contains("changed password") || words.contains("no answer"), "{words}");
    never(&mut node, "up with BIRD's old password", 3, |node| node.established(&bird)).await;
    assert!(bird.has(OURS) && node.has(ROUTE) && node.withdrawals == 0, "{:?}", node.peer(&bird));
    bird.configure(&with("new"), &ROUTES);
    node.until("up with the new one", |node| node.established(&bird) && node.peer(&bird).stale == 0).await;
    node.until("ours at BIRD", |_| bird.has(OURS)).await;
    // BIRD says F=0: RFC 4724 has its routes withdrawn until it has told them again.
    node.until("BIRD's", |node| node.has(ROUTE)).await;

    node.configure(|config| set_password(config, at.ip(), Password::None));
    node.until("the end", |node| !node.established(&bird)).await;
    bird.configure(&[Neighbour::new(us)], &ROUTES);
    node.until("up without any", |node| node.established(&bird) && bird.has(OURS)).await;
}

#[tokio::test]
async fn two_of_us_rotate_a_password_one_after_the_other_and_neither_loses_a_route() {
    let places = [place(), place()];
    let side = |own: usize| {
        let (us, peer) = (places[own], places[1 - own]);
        let mut node = Node::start(us, &[], |config| {
            let mut wanted = PeerConfig::new("other", asn(OUR_ASN));
            (wanted.port, wanted.local_address, wanted.passive) = (peer.port(), Some(us.ip()), own == 0);
            config.peers.insert(peer.ip(), wanted);
            set_password(config, peer.ip(), key("old"));
        });
        node.bgp.originate([format!("10.{own}.0.0/16").parse().unwrap()].into());
        node
    };
    let (mut one, mut two) = (side(0), side(1));
    let state = |node: &Node| node.bgp.status().speaker.peers.remove(0);
    tokio::join!(
        one.until("the other's", |node| node.has("10.1.0.0/16") && node.converged),
        two.until("the other's", |node| node.has("10.0.0.0/16") && node.converged),
    );
    for (round, word) in ["new", "newer"].into_iter().enumerate() {
        one.configure(|config| set_password(config, places[1].ip(), key(word)));
        let down = |node: &Node| state(node).state != State::Established;
        tokio::join!(one.until("the end", down), two.until("the end", down));
        assert_eq!((state(&one).stale, state(&two).stale), (1, 1), "round {round}");
        two.configure(|config| set_password(config, places[0].ip(), key(word)));
        let fresh = |node: &Node| state(node).state == State::Established && state(node).stale == 0;
        tokio::join!(one.until("up again", fresh), two.until("up again", fresh));
    }
    assert_eq!((one.withdrawals, two.withdrawals), (0, 0));
    assert!(one.has("10.1.0.0/16") && two.has("10.0.0.0/16"));
}

#[tokio::test]
async fn a_password_that_is_not_there_yet_holds_the_session_down_and_says_so() {
    let (at, us) = (place(), place());
    // BIRD has none: it must not get in for that.
    let bird = Bird::start(at, 65001, &[Neighbour::new(us)], &ROUTES);
    let mut node = Node::start(us, &[&bird], |config| {
        set_password(config, at.ip(), Password::Missing("Secret kube-system/bgp does not exist".into()));
    });
    never(&mut node, "without password", 4, |node| node.peer(&bird).state != State::Idle).await;
    let words = node.peer(&bird).last_error;
    assert_eq!(words.as_deref(), Some("held down: Secret kube-system/bgp does not exist"));
    node.configure(|config| set_password(config, at.ip(), key("here")));
    bird.configure(&[Neighbour::new(us).with("password \"here\";")], &ROUTES);
    node.until("up", |node| node.has(ROUTE) && bird.has(OURS)).await;
}

#[tokio::test]
async fn ttl_security_lets_in_who_is_near_and_nobody_else() {
    let security = Ttl::Security(NonZeroU8::MIN);
    let secure = "multihop 1; ttl security on;";
    // What BIRD says, who dials, what we say, and whether that fits.
    let cases = [
        (secure, "", security, true),
        (secure, "passive on;", security, true),
        (secure, "passive on;", Ttl::Any, false),
        ("", "", security, false),
        ("multihop 1;", "", Ttl::Hops(NonZeroU8::MIN), true),
    ];
    for (bird_ttl, passive, ttl, fits) in cases {
        let (at, us) = (place(), place());
        let options = format!("{bird_ttl} {passive}");
        let bird = Bird::start(at, 65001, &[Neighbour::new(us).with(&options)], &ROUTES);
        let mut node = Node::start(us, &[&bird], |config| {
            config.peers.get_mut(&at.ip()).unwrap().guard = Guard { ttl, ..Guard::default() };
        });
        if fits {
            node.until("routes both ways", |node| node.has(ROUTE) && bird.has(OURS)).await;
        } else {
            // Who does not check believes to be heard, until its hold timer says otherwise.
            never(&mut node, &options, 4, |node| node.established(&bird) && bird.established(0)).await;
            node.configure(|config| {
                config.peers.get_mut(&at.ip()).unwrap().guard.ttl =
                    if bird_ttl.is_empty() { Ttl::Any } else { security };
            });
            node.until("what fits", |node| node.established(&bird)).await;
        }
        eventually("BIRD agrees", || bird.established(0)).await;
    }
}
