//! Random histories, each by its seed. `MANX_SIM_SEEDS=7` or `MANX_SIM_SEEDS=0..1000` runs others than the few that always
//! run; a failure says how to run just that one.
//!
//! Tokio wakes the receivers of one channel in random order, and lets that be seeded only under `--cfg tokio_unstable`.
//! `tests/sim/run` builds with it; then a seed is exactly one history. Without it every property is tested all the
//! same, and a failure may need several tries to come back.
#![allow(unexpected_cfgs, reason = "tokio_unstable is tokio's word, which cargo does not know")]

use std::ops::Range;

use manx_sim::chaos::Chaos;
use manx_sim::cluster::Cluster;
use manx_sim::gentle::Gentle;
use manx_sim::oracle::findings;
use tokio::runtime::{Builder, Runtime};

/// Things that happen in one history.
const EVENTS: usize = 60;

#[cfg_attr(not(tokio_unstable), allow(unused_variables))]
fn runtime(seed: u64) -> Runtime {
    let mut builder = Builder::new_current_thread();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("MANX_SIM_SEEDS") else { return 0..30 };
    let number =
        |text: &str| text.parse().unwrap_or_else(|_| panic!("MANX_SIM_SEEDS={text}: 7 or 0..1000 is meant"));
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    }
}

/// What is wrong at the end of a history, and everything that happened in it.
type Outcome = (Vec<String>, Vec<String>);

fn chaos(seed: u64) -> Outcome {
    runtime(seed).block_on(async {
        let mut chaos = Chaos::new(seed).await;
        chaos.run(EVENTS).await;
        tell(&chaos.cluster, chaos.log).await
    })
}

fn gentle(seed: u64) -> Outcome {
    runtime(seed).block_on(async {
        let mut gentle = Gentle::new(seed).await;
        gentle.run(EVENTS).await;
        tell(&gentle.cluster, gentle.log).await
    })
}

async fn tell(cluster: &Cluster, mut log: Vec<String>) -> Outcome {
    let found = findings(cluster).await;
    for name in cluster.names() {
        log.push(format!("{name} says {:?}", cluster.problems(&name).await));
    }
    log.extend(cluster.net.world().records.iter().map(|record| format!("{record:?}")));
    log.extend(cluster.objects().await.iter().map(|object| format!("{object:?}")));
    (found, log)
}

/// Runs every seed, and names those that fail; of a single one everything is told.
fn assert_all(test: &str, history: fn(u64) -> Outcome) {
    let mut failed = Vec::new();
    for seed in seeds() {
        match std::panic::catch_unwind(|| history(seed)) {
            Ok((found, _)) if found.is_empty() => {}
            Ok((found, log)) => {
                if seeds().count() == 1 {
                    log.iter().for_each(|line| eprintln!("{line}"));
                }
                eprintln!("seed {seed}: {found:#?}");
                failed.push(seed);
            }
            Err(_) => failed.push(seed),
        }
    }
    assert!(
        failed.is_empty(),
        "seeds {failed:?} fail; to run one: MANX_SIM_SEEDS=<seed> tests/sim/run seeds {test}"
    );
}

#[test]
fn after_any_history_every_kernel_is_as_it_should_be_and_nothing_is_lost() {
    assert_all("after_any", chaos);
}

#[test]
fn while_agents_come_and_go_and_modes_are_switched_no_packet_is_lost() {
    assert_all("while_agents", gentle);
}

#[cfg(tokio_unstable)]
#[test]
fn one_seed_is_one_history() {
    for history in [chaos, gentle] {
        for seed in 0..3 {
            let ((_, first), (_, second)) = (history(seed), history(seed));
            let differs = first.iter().zip(&second).position(|(first, second)| first != second);
            let differs = differs.map(|at| format!("{}\n{}", first[at], second[at]));
            assert!(
                differs.is_none() && first.len() == second.len(),
                "seed {seed}: {}",
                differs.unwrap_or_default()
            );
        }
    }
}
