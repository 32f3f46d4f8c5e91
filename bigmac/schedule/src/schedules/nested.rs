//! Nested (BigMac, arXiv 2605.25451): encoder and generator run inside the LLM pipeline, in slots on all ranks at once.
//!
//! Take the timed LLM schedule and a moment t. The ops that start before t are closed under "depends on", since a
//! predecessor ends, so starts, earlier. Putting a slot of length d on every rank after its ops of that set moves every
//! later op by exactly d, and no op waits that did not wait before. So slots go into any LLM schedule without adding a
//! bubble; only their own dependencies have to be met, which decides where each is cut in.

use crate::api::{Options, Schedule, ScheduleError, ideal_time};
use crate::check::Measures;
use crate::clock::memory::{peak_bytes_together, peak_microbatches};
use crate::clock::{Simulation, Slots, simulate, total_cost};
use crate::schedules::tools::flow::flow;
use crate::schedules::tools::insertion::with_slots;
use crate::step::{ModuleKind, PerModule, Table, Workload};

/// Per microbatch (or group of them) one encoder slot right before its first LLM forward, one generator slot after its
/// last LLM forward, one encoder backward slot after the first stage's backward. Where anything is drawn, the LLM runs
/// `group` more microbatches ahead, which hides that a rank in the middle of an op starts its share of the slot when
/// that op ends.
///
/// How items are shared out over slots (unless a group is given), more warm-up and a head start of the encoder's slots
/// are chosen by simulation: of all that reach T_ideal the one that keeps the fewest activations, and where none does,
/// as when communication is not hidden or items are uneven, the fewest of those within half a per cent of the best
/// time. `tests/candidates.rs` has a step for each candidate that is slower without it.
///
/// With free communication, a microbatch of p equal items and 1F1B, no more than one microbatch to a slot is ever
/// needed: encoder activations are at most 2 microbatches per rank, the generator's at most 1, whatever the batch and
/// the depth.
pub(crate) const NESTED: Schedule = Schedule {
    name: "nested",
    summary: "BigMac: encoder and generator in slots inside the LLM pipeline",
    is_whole: true,
    workload: Workload::clone,
    chain_within: None,
    build,
};

/// Slots of one microbatch each that waste no more than this share of their time are good enough: others cost memory.
const LEAST_GAIN: f64 = 1e-3;
/// Groups that are tried where one microbatch's items do not fill a slot: few, so that activations do not grow with the
/// batch.
const GROUPS: &[usize] = &[2, 4, 8];
/// How many microbatches late drawings may be where they flow.
const LAGS: &[usize] = &[1, 2, 4];
/// How many units may be placed in all attempts, once one has succeeded: what keeps the time of planning in proportion
/// to the step.
const EFFORT: usize = 1_000_000;
/// Times this near to each other, relatively, are one where memory is at stake.
const AS_FAST: f64 = 5e-3;

fn build(workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
    if options.group == Some(0) {
        return Err(ScheduleError::Group { of: "" });
    }
    let mut search = SlotSearch::new(workload, options)?;
    let draws = workload.has_items(ModuleKind::Generator);
    for sharing in search.sharings() {
        // With a generator, a group's last forward and first backward need the group's time between them.
        let usual = if draws { sharing.lag() } else { 0 };
        for warmup in usual..=usual + 2 {
            if search.is_spent() {
                break;
            }
            if search.attempt(sharing, warmup)? {
                return Ok(search.best());
            }
        }
    }
    let narrow = Sharing::Grouped(search.group().unwrap_or(1));
    if search.found.is_empty() && search.over.is_none() {
        // All forwards first: a slot fits between whatever the group.
        search.attempt(narrow, workload.len() * workload.chunks_per_rank())?;
    }
    if search.found.is_empty() {
        // Slower, but with fewer microbatches under way.
        for warmup in 0..usize::from(draws) {
            search.attempt(narrow, warmup)?;
        }
    }
    match search.over.take() {
        Some(error) if search.found.is_empty() => Err(error),
        _ => Ok(search.best()),
    }
}

/// How items are shared out over slots.
#[derive(Clone, Copy)]
enum Sharing {
    /// A slot for every so many microbatches.
    Grouped(usize),
    /// Items in order, with drawings so many microbatches late.
    Flow(usize),
}

impl Sharing {
    fn lag(self) -> usize {
        match self {
            Sharing::Grouped(lag) | Sharing::Flow(lag) => lag,
        }
    }
}

/// A table with its time and what it keeps.
struct Candidate {
    table: Table,
    time: f64,
    /// Activations at their peaks, all ranks together: bytes where they are known, else microbatches.
    memory: f64,
}

struct SlotSearch<'a> {
    workload: &'a Workload,
    options: &'a Options,
    alone: Workload,
    ideal: f64,
    measures: Measures<'a>,
    /// Units that may still be placed.
    left: usize,
    found: Vec<Candidate>,
    /// The budget that is not kept, with the least that any attempt has needed.
    over: Option<ScheduleError>,
}

impl<'a> SlotSearch<'a> {
    fn new(workload: &'a Workload, options: &'a Options) -> Result<Self, ScheduleError> {
        let ideal = ideal_time(workload, options)?;
        let measures = Measures::new(workload, &options.limits)?;
        let alone = workload.llm_only();
        Ok(SlotSearch {
            workload,
            options,
            alone,
            ideal,
            measures,
            left: EFFORT,
            found: Vec::new(),
            over: None,
        })
    }

    /// The group asked for: one of more microbatches than there are is one of all.
    fn group(&self) -> Option<usize> {
        self.options.group.map(|group| group.min(self.workload.len()))
    }

    /// Whether no more should be tried where something has been found.
    fn is_spent(&self) -> bool {
        self.left == 0 && !self.found.is_empty()
    }

    /// Ways to share items out, roughly in the order of the memory that they take.
    fn sharings(&self) -> Vec<Sharing> {
        if let Some(group) = self.group() {
            return vec![Sharing::Grouped(group)];
        }
        let mut sharings = vec![Sharing::Grouped(1)];
        let even = total_cost(self.workload, self.workload.len());
        if total_cost(self.workload, 1) > even * (1.0 + LEAST_GAIN) {
            let draws = self.workload.has_items(ModuleKind::Generator);
            let lags = if draws { LAGS } else { &LAGS[..1] };
            sharings.extend(lags.iter().map(|lag| Sharing::Flow(*lag)));
            sharings.extend(GROUPS.iter().map(|group| Sharing::Grouped(*group)));
        }
        sharings
    }

    /// Builds with so much extra warm-up; whether T_ideal is reached within the budget.
    fn attempt(&mut self, sharing: Sharing, warmup: usize) -> Result<bool, ScheduleError> {
        let llm = self.options.llm_table(&self.alone, warmup)?;
        let simulation = self.options.simulate(&llm, &self.alone)?;
        let slots = match sharing {
            Sharing::Grouped(group) => Slots::grouped(self.workload, group),
            Sharing::Flow(lag) => flow(self.workload, lag),
        };
        for early in [0.0, mean_op(&simulation)] {
            if self.is_spent() {
                break;
            }
            self.left = self.left.saturating_sub(self.workload.unit_count());
            let table = with_slots(self.workload, &llm, &simulation, &slots, early);
            // A group's first backward on the last chunk may come before its last forward: then it has no slot between.
            let Ok(simulation) = simulate(&table, self.workload) else { continue };
            let time = simulation.time();
            if let Err(error) = self.within_budget(&table) {
                self.over = Some(lesser(self.over.take(), error));
                continue;
            }
            let memory = self.memory(&table);
            self.found.push(Candidate { table, time, memory });
            if time <= self.ideal * (1.0 + 1e-9) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn memory(&self, table: &Table) -> f64 {
        let bytes = |unit| self.workload.saved(unit).unwrap_or(0);
        let peaks = peak_bytes_together(table, self.workload, bytes).into_iter();
        let bytes: f64 = peaks.map(|peak| peak as f64).sum();
        if bytes > 0.0 {
            return bytes;
        }
        let peaks = peak_microbatches(table, self.workload);
        peaks.iter().map(|peak| peak.encoder + peak.llm + peak.generator).sum()
    }

    fn within_budget(&self, table: &Table) -> Result<(), ScheduleError> {
        let budgets = &self.options.limits.budget;
        if *budgets == PerModule::default() {
            return Ok(());
        }
        let mut most = PerModule::<u64>::default();
        for peak in self.measures.peaks(table) {
            ModuleKind::ALL.iter().for_each(|kind| most[*kind] = most[*kind].max(peak[*kind]));
        }
        for module in ModuleKind::ALL {
            let Some(asked) = budgets[module] else { continue };
            if most[module] > self.measures.room(module, asked) {
                let minimum = self.measures.budget(module, most[module]);
                return Err(ScheduleError::Budget { schedule: NESTED.name, module, asked, minimum });
            }
        }
        Ok(())
    }

    /// Of what reaches T_ideal, or else of what is nearly as fast as the fastest, what keeps least.
    fn best(&mut self) -> Table {
        let fastest = self.found.iter().map(|found| found.time).fold(f64::INFINITY, f64::min);
        let ideal = self.ideal * (1.0 + 1e-9);
        let enough = if fastest <= ideal { ideal } else { fastest * (1.0 + AS_FAST) };
        let candidates = self.found.drain(..).filter(|found| found.time <= enough);
        let by_memory =
            |a: &Candidate, b: &Candidate| a.memory.total_cmp(&b.memory).then(a.time.total_cmp(&b.time));
        candidates.min_by(by_memory).map(|found| found.table.with_step()).unwrap_or_default()
    }
}

/// The mean time of an LLM op.
fn mean_op(simulation: &Simulation) -> f64 {
    let ops: usize = simulation.spans.iter().map(Vec::len).sum();
    simulation.busy.iter().sum::<f64>() / ops.max(1) as f64
}

/// Of two budgets that are not kept the one that is less far from it, if both are the same module's.
fn lesser(before: Option<ScheduleError>, now: ScheduleError) -> ScheduleError {
    use ScheduleError::Budget;
    match (before, &now) {
        (
            Some(before @ Budget { module, minimum: least, .. }),
            Budget { module: other, minimum: next, .. },
        ) if module != *other || least <= *next => before,
        _ => now,
    }
}
