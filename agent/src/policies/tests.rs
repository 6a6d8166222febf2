use manx_datastore::Memory;
use manx_datastore::testing::{Faults, Faulty};
use serde_json::json;

use super::*;

struct Fixture {
    memory: Memory,
    store: Faulty<Memory>,
    leads: watch::Sender<bool>,
    found: watch::Receiver<Option<Unenforced>>,
}

/// A keeper that leads, over three policies of three kinds.
async fn fixture() -> Fixture {
    let memory = Memory::new();
    for object in [
        Object::new_in(Kind::NetworkPolicy, "default", "deny", &json!({"podSelector": {}})),
        Object::new_in(Kind::CalicoNetworkPolicy, "default", "deny", &json!({"selector": "all()"})),
        Object::new(Kind::GlobalNetworkPolicy, "deny", &json!({"selector": "all()"})),
    ] {
        memory.create(object).await.unwrap();
    }
    let store = Faulty::new(memory.clone(), 1, Faults::default());
    let (leads, leading) = watch::channel(true);
    let (sender, found) = watch::channel(None);
    let keeper = Keeper { store: Arc::new(store.clone()), leads: leading, found: sender };
    tokio::spawn(keeper.run());
    Fixture { memory, store, leads, found }
}

impl Fixture {
    async fn counted(&mut self, count: usize) -> Unenforced {
        let has = |found: &Option<Unenforced>| found.as_ref().is_some_and(|found| found.count == count);
        self.found.wait_for(has).await.unwrap().clone().unwrap()
    }

    fn events(&self) -> Vec<String> {
        let said = |(object, report): (Object, Report)| {
            assert!(report.warning && report.reason == "NotEnforced" && object.metadata.uid.is_some());
            format!("{} {}", object.kind.group(), object.key())
        };
        self.memory.reports().into_iter().map(said).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn every_policy_is_counted_and_told_once_that_it_is_not_enforced() {
    let mut fixture = fixture().await;
    let found = fixture.counted(3).await;
    assert_eq!(
        found.problem().unwrap(),
        "3 policies are NOT enforced, and what they forbid is let through: NetworkPolicy default/deny, \
         Calico's NetworkPolicy default/deny, GlobalNetworkPolicy deny"
    );
    tokio::time::sleep(LOOK * 20).await;
    let all = [
        "networking.k8s.io default/deny",
        "crd.projectcalico.org default/deny",
        "crd.projectcalico.org deny",
    ];
    assert_eq!(fixture.events(), all);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_forbids_something_else_now_is_told_again_and_one_that_says_the_same_is_not() {
    let mut fixture = fixture().await;
    fixture.counted(3).await;
    tokio::time::sleep(RETRY).await;
    for generation in [json!(2), json!(2), json!(3)] {
        let stored = fixture.memory.get(Kind::GlobalNetworkPolicy, "deny").await.unwrap();
        let mut policy = stored.unwrap();
        policy.metadata.rest.insert("generation".into(), generation);
        fixture.memory.update(policy).await.unwrap();
        tokio::time::sleep(RETRY).await;
    }
    assert_eq!(fixture.events().len(), 3 + 2);
    let last = fixture.memory.reports().pop().unwrap().1.message;
    assert!(last.ends_with("(generation 3)"), "{last}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_taken_away_is_no_problem_any_more_and_its_successor_is_another() {
    let mut fixture = fixture().await;
    fixture.counted(3).await;
    let policy = fixture.memory.get(Kind::NetworkPolicy, "default/deny").await.unwrap().unwrap();
    fixture.memory.delete(&policy).await.unwrap();
    fixture.counted(2).await;
    let again = Object::new_in(Kind::NetworkPolicy, "default", "deny", &json!({"podSelector": {}}));
    fixture.memory.create(again).await.unwrap();
    fixture.counted(3).await;
    tokio::time::sleep(RETRY).await;
    assert_eq!(fixture.events().len(), 4);
    assert_eq!(Unenforced::default().problem(), None);
}

#[tokio::test(start_paused = true)]
async fn only_the_node_that_leads_speaks_and_what_could_not_be_said_is_said_later() {
    let mut fixture = fixture().await;
    fixture.leads.send_replace(false);
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!(fixture.events().len(), 0);
    fixture.store.down();
    fixture.leads.send_replace(true);
    tokio::time::sleep(RETRY * 3).await;
    assert_eq!(fixture.events().len(), 0);
    fixture.store.up();
    fixture.counted(3).await;
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!(fixture.events().len(), 3);
}

#[test]
fn what_stands_on_a_lease_is_read_back_and_anything_else_is_nothing() {
    let many = Unenforced { count: 12, first: vec!["NetworkPolicy a/b".into(), "NetworkPolicy a/c".into()] };
    assert_eq!(Unenforced::read(&many.to_string()), Some(many.clone()));
    assert_eq!(Unenforced::read("12"), None);
    let said = many.problem().unwrap();
    assert!(said.starts_with("12 policies are NOT enforced") && said.ends_with("a/c and 10 more"), "{said}");
    let one = Unenforced { count: 1, first: vec!["NetworkPolicy a/b".into()] };
    let said = one.problem().unwrap();
    assert_eq!(said, "1 policy is NOT enforced, and what it forbids is let through: NetworkPolicy a/b");
}
