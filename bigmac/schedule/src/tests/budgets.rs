//! Budgets in bytes mean bytes: what a schedule keeps is a budget that it accepts, and what it builds is within it.

use super::properties::any_workload;
use super::{build, names, workload};
use crate::check::{peak_budget_bytes, validate};
use crate::clock::memory::peak_bytes;
use crate::registry::schedule;
use crate::{
    Budget, ChunkCost, ItemCost, ItemSize, Limits, Load, MicrobatchSizes, ModuleKind, Options, PerModule,
    ScheduleError, Table, Workload,
};
use proptest::prelude::*;

/// Sizes of a workload's units that have nothing to do with its times.
fn sized(w: Workload, seeds: &[u16]) -> Workload {
    let mut seeds = seeds.iter().cycle().map(|seed| u64::from(*seed));
    let mut next = || seeds.next().unwrap_or_default();
    let sizes = w.loads().iter().map(|load| MicrobatchSizes {
        encoder: load.encoder.iter().map(|_| ItemSize { saved: next(), ..ItemSize::default() }).collect(),
        generator: load.generator.iter().map(|_| ItemSize { saved: next(), ..ItemSize::default() }).collect(),
        llm: load.llm.iter().map(|_| next()).collect(),
        hidden: 0,
    });
    let sizes = sizes.collect();
    w.with_sizes(sizes).unwrap()
}

/// The most bytes on any rank, as budgets count them.
fn most(table: &Table, w: &Workload, limits: &Limits) -> PerModule<u64> {
    let peaks = peak_budget_bytes(table, w, &limits.microbatch_bytes);
    let most =
        |module| peaks.iter().map(|peak: &PerModule<Option<u64>>| peak[module].unwrap_or_default()).max();
    PerModule::from_fn(|module| most(module).unwrap_or_default())
}

fn with(limits: Limits, module: ModuleKind, bytes: u64) -> Options {
    let mut limits = limits;
    limits.budget[module] = Some(Budget::Bytes(bytes));
    Options { limits, ..Options::default() }
}

/// Schedules that keep to budgets.
const KEEPERS: [&str; 2] = ["nested", "nested-fill"];

/// What a schedule keeps is a budget that it accepts; one byte less is refused, or keeps less. The least that is named
/// is accepted, and a byte less is not.
fn bytes_are_bytes(w: &Workload, limits: Limits) -> Result<(), TestCaseError> {
    for name in names() {
        let own = schedule(name).unwrap().workload(w, Options::default().llm);
        let table = build(name, &own, &Options { limits, ..Options::default() });
        let peaks = most(&table, &own, &limits);
        for module in ModuleKind::ALL {
            let options = with(limits, module, peaks[module]);
            validate(&table, &own, &options.limits).unwrap();
            if peaks[module] > 0 {
                let less = with(limits, module, peaks[module] - 1);
                prop_assert!(validate(&table, &own, &less.limits).is_err(), "{} {}", name, module);
            }
            if KEEPERS.contains(&name) {
                kept(name, &own, module, limits, peaks[module])?;
            }
        }
    }
    Ok(())
}

fn kept(
    name: &str,
    w: &Workload,
    module: ModuleKind,
    limits: Limits,
    peak: u64,
) -> Result<(), TestCaseError> {
    let build = |bytes: u64| {
        let options = with(limits, module, bytes);
        let built = schedule(name).unwrap().build(w, &options);
        if let Ok(table) = &built {
            validate(table, w, &options.limits).unwrap();
        }
        built
    };
    let within = build(peak);
    prop_assert!(within.is_ok(), "{} needs {} and says {:?}", name, peak, within.err());
    let mut least = peak;
    // What is needed at least, as the message says when nothing is allowed.
    match build(0) {
        Err(ScheduleError::Budget { minimum: Budget::Bytes(minimum), .. }) => {
            prop_assert!(minimum > 0 && build(minimum).is_ok(), "{} {} {}", name, module, minimum);
            prop_assert!(build(minimum - 1).is_err(), "{} {} {}", name, module, minimum);
            least = minimum;
        }
        other => prop_assert!(other.is_ok(), "{:?}", other),
    }
    if peak > 0 {
        match build(peak - 1) {
            Ok(table) => prop_assert!(most(&table, w, &limits)[module] < peak),
            Err(ScheduleError::Budget { minimum: Budget::Bytes(minimum), .. }) => {
                prop_assert!(minimum >= peak.min(least), "{} < {}", minimum, peak);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn known_sizes_are_counted_to_the_byte(
        w in any_workload(), seeds in prop::collection::vec(any::<u16>(), 1..40),
    ) {
        let w = sized(w, &seeds);
        let table = build("phased", &w, &Options::default());
        let bytes = peak_bytes(&table, &w, |unit| w.saved(unit).unwrap());
        let counted = peak_budget_bytes(&table, &w, &PerModule::default());
        prop_assert_eq!(counted, bytes.iter().map(|peak| peak.map(Some)).collect::<Vec<_>>());
        bytes_are_bytes(&w, Limits::default())?;
    }

    #[test]
    fn microbatches_of_given_sizes_are_counted_to_the_byte(
        w in any_workload(), sizes in (0u64..1 << 40, 0u64..3000, 0u64..1 << 20),
    ) {
        let (encoder, llm, generator) = (Some(sizes.0), Some(sizes.1), Some(sizes.2));
        let microbatch_bytes = PerModule { encoder, llm, generator };
        bytes_are_bytes(&w, Limits { microbatch_bytes, ..Limits::default() })?;
    }
}

/// Seven, one, two and no images of one size, where seven take 826 KiB: all ten are 1180 KiB.
#[test]
fn the_bytes_of_a_microbatch_are_those_of_the_largest() {
    let chunk = ChunkCost::of_parts(1.0, 1.0, 1.0);
    let load = |images| Load {
        encoder: vec![ItemCost { forward: 1.0, backward: 2.0 }; images],
        generator: Vec::new(),
        llm: vec![chunk; 2],
    };
    let w = Workload::new(2, 1, [7, 1, 2, 0].map(load).to_vec(), PerModule::all(true), 0.0).unwrap();
    let mut limits = Limits::default();
    limits.microbatch_bytes.encoder = Some(826 << 10);
    let table = "rank 0: E0F[0.0,0.1,0.2,0.3,0.4,0.5,0.6] E0F[1.0,2.0,2.1]\nrank 1:\n".parse().unwrap();
    assert_eq!(most(&table, &w, &limits).encoder, 1180 << 10);
    for name in names() {
        let own = schedule(name).unwrap().workload(&w, Options::default().llm);
        let options = with(limits, ModuleKind::Encoder, 1180 << 10);
        let table = schedule(name).unwrap().build(&own, &options).unwrap();
        validate(&table, &own, &options.limits).unwrap();
    }
    // Items that take no time are equal parts of the microbatch with the most.
    let still = |images| Load { encoder: vec![ItemCost { forward: 0.0, backward: 1.0 }; images], ..load(0) };
    let w = Workload::new(2, 1, [7, 1, 2, 0].map(still).to_vec(), PerModule::all(true), 0.0).unwrap();
    assert_eq!(most(&table, &w, &limits).encoder, 1180 << 10);
}

/// Sizes near the end of what can be counted: nothing wraps.
#[test]
fn no_size_is_too_large_to_count() {
    let w = workload(3, 6, [1.0; 3], [2.0, 4.0], [1.0, 1.0], 0.0);
    let microbatch_bytes = PerModule::all(Some(u64::MAX));
    let limits = Limits { microbatch_bytes, ..Limits::default() };
    for name in names() {
        let own = schedule(name).unwrap().workload(&w, Options::default().llm);
        let options = with(limits, ModuleKind::Llm, u64::MAX - 1);
        let table = schedule(name).unwrap().build(&own, &options);
        assert!(table.is_err() || validate(&table.unwrap(), &own, &options.limits).is_err(), "{name}");
    }
    let huge = sized(w, &[u16::MAX]);
    let sizes = huge.loads().iter().map(|load| MicrobatchSizes {
        encoder: vec![ItemSize { saved: u64::MAX, ..ItemSize::default() }; load.encoder.len()],
        generator: vec![ItemSize { saved: u64::MAX / 2, ..ItemSize::default() }; load.generator.len()],
        llm: vec![u64::MAX - 7; load.llm.len()],
        hidden: u64::MAX,
    });
    let sizes = sizes.collect();
    let huge = huge.with_sizes(sizes).unwrap();
    for name in KEEPERS {
        let _ = schedule(name).unwrap().build(&huge, &with(Limits::default(), ModuleKind::Encoder, u64::MAX));
    }
}
