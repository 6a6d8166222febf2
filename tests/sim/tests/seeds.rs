//! Random histories, each by its seed. `MANX_SIM_SEEDS=7` or `MANX_SIM_SEEDS=0..1000` runs others than the few that always
//! run; a failure says how to run just that one.
//!
//! Tokio wakes the receivers of one channel in random order, and lets that be seeded only under `--cfg tokio_unstable`.
//! `tests/sim/run` builds with it; then a seed is exactly one history. Without it every property is tested all the
//! same, and a failure may need several tries to come back.
#![allow(unexpected_cfgs, reason = "tokio_unstable is tokio's word, which cargo does not know")]

use std::ops::Range;

use manx_sim::chaos::Chaos;
use manx_sim::oracle::findings;
use tokio::runtime::{Builder, Runtime};

/// Things that happen in one history.
const EVENTS: usize = 60;

#[cfg_attr(not(tokio_unstable), allow(unused_variables))]
fn runtime(seed: u64) -> Runtime {
    let mut builder = Builder::new_current_thread();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
    builder.enable_time().start_paused(true).build().unwrap()
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("MANX_SIM_SEEDS") else { return 0..30 };
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("MANX_SIM_SEEDS={text}: 7 or 0..1000 is meant"));
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    }
}

/// One history: what is wrong at its end, and everything that happened.
fn history(seed: u64) -> (Vec<String>, Vec<String>) {
    runtime(seed).block_on(async {
        let mut chaos = Chaos::new(seed).await;
        chaos.run(EVENTS).await;
        let found = findings(&chaos.cluster).await;
        let records: Vec<String> =
            chaos.cluster.net.world().records.iter().map(|record| format!("{record:?}")).collect();
        let objects = chaos.cluster.objects().await;
        let objects = objects.iter().map(|object| format!("{object:?}"));
        let mut problems = Vec::new();
        for name in chaos.cluster.names() {
            problems.push(format!("{name} says {:?}", chaos.cluster.problems(&name).await));
        }
        (found, chaos.log.into_iter().chain(problems).chain(records).chain(objects).collect())
    })
}

#[test]
fn after_any_history_every_kernel_is_as_it_should_be_and_nothing_is_lost() {
    let mut failed = Vec::new();
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| history(seed));
        match outcome {
            Ok((found, _)) if found.is_empty() => {}
            Ok((found, log)) => {
                eprintln!("seed {seed}: {found:#?}");
                if seeds().count() == 1 {
                    log.iter().for_each(|line| eprintln!("{line}"));
                }
                failed.push(seed);
            }
            Err(_) => failed.push(seed),
        }
    }
    let how = "MANX_SIM_SEEDS=<seed> tests/sim/run seeds";
    assert!(failed.is_empty(), "seeds {failed:?} fail; run one, with all that happens in it: {how}");
}

#[cfg(tokio_unstable)]
#[test]
fn one_seed_is_one_history() {
    for seed in 0..3 {
        let ((_, first), (_, second)) = (history(seed), history(seed));
        let differs = first.iter().zip(&second).position(|(first, second)| first != second);
        let differs = differs.map(|at| format!("{}\n{}", first[at], second[at]));
        assert!(differs.is_none() && first.len() == second.len(), "seed {seed}: {}", differs.unwrap_or_default());
    }
}
