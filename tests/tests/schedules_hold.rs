//! Every schedule over every order of the LLM's chunks, on random steps. The benchmark `properties` runs more of them.

use bigmac_schedule::ChunkPlacement;
use bigmac_schedule::registry::{LLM_SCHEDULES, SCHEDULES};
use bigmac_tests::random_steps::{Failure, any, claims, each, even, hold};

const SEED: u64 = 1;

fn none(failures: Vec<Failure>) {
    let count = failures.len();
    let first: Vec<String> =
        failures.iter().take(5).map(|one| format!("{}: {}", one.number, one.what)).collect();
    assert!(failures.is_empty(), "{count} cases fail, the first of seed {SEED}:\n{}", first.join("\n"));
}

#[test]
fn every_schedule_holds_on_random_steps() {
    let (found, failures) = each(0..2000, 2, |number| any(SEED, number).and_then(|case| hold(&case, number)));
    none(failures);
    // Every combination of the registries turns up.
    let pairs: std::collections::BTreeSet<_> = found.iter().map(|one| (one.schedule, one.llm)).collect();
    // A chain has one chunk per rank, so it is never V-shaped.
    let turns = LLM_SCHEDULES.iter().filter(|llm| llm.placement() == ChunkPlacement::V).count();
    let chains = ["monolithic-balanced", "disaggregated"].len();
    assert_eq!(pairs.len(), SCHEDULES.len() * LLM_SCHEDULES.len() - turns * chains);
}

#[test]
fn nested_keeps_its_claims_on_even_steps() {
    let (_, failures) = each(0..1000, 2, |number| even(SEED, number).and_then(|case| claims(&case)));
    none(failures);
}
