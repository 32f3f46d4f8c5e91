//! What no plan can be faster than, within a room: where there is little to fill bubbles with, the chain of the stages
//! and the memory that they have keep a step above its work bound.
//!
//! An LLM backward may run whole or in parts. A bound counts the shorter of both as its time, of which the input
//! gradient takes as little as it can and the weight gradient is what is left.

use super::limits::Room;
use crate::clock::work_bound;
use crate::step::{Chunk, Microbatch, Module, ModuleKind, Phase, Rank, Unit, Value, Workload};

/// A lower bound of the time of every order of the step within the room: the work bound, and with one LLM chunk per
/// rank and a backward of every microbatch also what the stages' chain allows.
pub(super) fn lower_bound(workload: &Workload, room: &Room<'_>) -> f64 {
    let work = work_bound(workload);
    let learns = |microbatch: Microbatch| workload.has_backward(ModuleKind::Llm, microbatch);
    if workload.chunks_per_rank() > 1 || !workload.microbatches().all(learns) {
        return work;
    }
    let stages: Vec<StageBound> =
        (0..workload.ranks()).map(|stage| StageBound::new(workload, room, stage)).collect();
    let chain = stages.iter().map(StageBound::bound).fold(work, f64::max);
    chain.max(filling_bound(workload, &stages))
}

/// What is known of one stage of the LLM, in time on its rank.
struct StageBound {
    slowdown: f64,
    /// From the start until its first forward and its first backward at the earliest.
    before_forward: f64,
    before_backward: f64,
    /// From the end of its last backward and of its last forward until the end of the step at least.
    after_backward: f64,
    after_forward: f64,
    /// Before its first backward, and after its last forward, at most so long can drawings run on its rank.
    drawing: [f64; 2],
    /// All forwards and backwards with their weight gradients.
    work: f64,
    /// The most forwards that memory allows before the first backward.
    early_forwards: f64,
    /// The most weight gradients that it allows after the last backward.
    late_weights: f64,
    /// The most backwards, with their weight gradients, that it allows after the last forward.
    late_backwards: f64,
    /// Whether memory holds all microbatches at once.
    holds_all: bool,
}

impl StageBound {
    fn new(workload: &Workload, room: &Room<'_>, stage: usize) -> StageBound {
        let held = most_held(workload, room, stage);
        let times = |of: fn(StageTimes) -> f64| -> Vec<f64> {
            workload
                .microbatches()
                .map(|microbatch| of(StageTimes::new(workload, microbatch, stage)))
                .collect()
        };
        let (forward, weight) = (times(|times| times.forward), times(|times| times.weight));
        let backward = times(|times| times.input + times.weight);
        let paths: Vec<Path> =
            workload.microbatches().map(|microbatch| Path::new(workload, microbatch, stage)).collect();
        let least = |time: fn(&Path) -> f64| paths.iter().map(time).fold(f64::INFINITY, f64::min);
        let before_backward = least(|path| path.up + path.turn + path.down);
        let after_forward = least(|path| path.rest_up + path.turn + path.down + path.own_backward + path.out);
        StageBound {
            slowdown: workload.slowdown(Rank(stage)),
            before_forward: least(|path| path.up - path.rest_up - path.own_forward),
            before_backward,
            after_backward: least(|path| path.out),
            after_forward,
            drawing: [
                before_backward - least(|path| path.up),
                after_forward - least(|path| path.down + path.own_backward + path.out),
            ],
            work: forward.iter().chain(&backward).sum(),
            early_forwards: largest(forward, held),
            late_weights: largest(weight, held),
            late_backwards: largest(backward, held),
            holds_all: held >= workload.len(),
        }
    }

    /// All of the stage's work lies between its first forward and its last weight gradient, and memory keeps all but a
    /// few forwards after the first backward, and all but a few backwards before the last forward.
    fn bound(&self) -> f64 {
        let weighty = self.work - self.late_weights + self.after_backward;
        let short = self.work - self.late_backwards + self.after_forward;
        let waiting = self.before_backward - self.early_forwards;
        let bound = (self.before_forward + weighty).max(self.before_forward + short).max(waiting + weighty);
        if self.holds_all { bound } else { bound.max(waiting + short) }
    }

    /// Time at the start, and at the end, in which the rank has no LLM work.
    fn empty(&self, holds_all: bool) -> [f64; 2] {
        let start = self.before_backward - self.early_forwards;
        let end = self.after_forward - self.late_backwards;
        let late = (self.after_backward - self.late_weights).max(0.0);
        if holds_all { [self.before_forward, late] } else { [self.before_forward.max(start), late.max(end)] }
    }
}

/// Encoder forwards and drawings are all that can fill the ranks' empty time at the start, encoder backwards and
/// drawings that at the end.
fn filling_bound(workload: &Workload, stages: &[StageBound]) -> f64 {
    let holds_all = stages.iter().any(|stage| stage.holds_all);
    let speed: f64 = stages.iter().map(|stage| 1.0 / stage.slowdown).sum();
    let mut work = stages.iter().map(|stage| stage.work / stage.slowdown).sum::<f64>();
    let mut items = [0.0; 2];
    for microbatch in workload.microbatches() {
        let [forward, backward] = totals(workload, Module::ENCODER, microbatch);
        let drawing: f64 = totals(workload, Module::GENERATOR, microbatch).iter().sum();
        items = [items[0] + forward, items[1] + backward];
        work += forward + backward + drawing;
    }
    for (side, items) in items.into_iter().enumerate() {
        let empty: f64 = stages.iter().map(|stage| stage.empty(holds_all)[side] / stage.slowdown).sum();
        let drawing: f64 = stages.iter().map(|stage| stage.drawing[side].max(0.0) / stage.slowdown).sum();
        work += (empty - items - drawing).max(0.0);
    }
    work / speed
}

/// The way of a microbatch up to the last stage and back, seen from one stage.
struct Path {
    /// From the start of the step to the end of the last stage's forward.
    up: f64,
    own_forward: f64,
    /// The part of `up` after this stage's forward.
    rest_up: f64,
    /// Its longest drawing.
    turn: f64,
    /// From there until this stage's backward.
    down: f64,
    own_backward: f64,
    /// From the end of this stage's backward to the end of the step.
    out: f64,
}

impl Path {
    fn new(workload: &Workload, microbatch: Microbatch, stage: usize) -> Path {
        let last = workload.ranks() - 1;
        let times = |stage: usize| StageTimes::new(workload, microbatch, stage);
        let forward = |stage: usize| times(stage).forward;
        let backward = |stage: usize| times(stage).input;
        let to = |stage: usize| workload.transfer_time(Value::Hidden { microbatch, chunk: Chunk(stage) });
        let back_to =
            |stage: usize| workload.transfer_time(Value::HiddenGrad { microbatch, chunk: Chunk(stage) });
        let before: f64 = (0..stage).map(|stage| forward(stage) + to(stage + 1)).sum();
        let rest_up: f64 = (stage + 1..=last).map(|stage| to(stage) + forward(stage)).sum();
        let down: f64 = (stage + 1..=last).map(|stage| backward(stage) + back_to(stage - 1)).sum();
        let out: f64 = (0..stage).map(|stage| back_to(stage) + backward(stage)).sum();
        let weight = times(0).weight;
        Path {
            up: longest(workload, Module::ENCODER, microbatch, &[Phase::Forward])
                + before
                + forward(stage)
                + rest_up,
            own_forward: forward(stage),
            rest_up,
            turn: longest(workload, Module::GENERATOR, microbatch, &[Phase::Forward, Phase::Backward]),
            down,
            own_backward: backward(stage),
            out: out + weight.max(longest(workload, Module::ENCODER, microbatch, &[Phase::Backward])),
        }
    }
}

/// What a stage's work on a microbatch takes at least.
struct StageTimes {
    forward: f64,
    /// Until the gradient of its input.
    input: f64,
    /// The rest of the backward.
    weight: f64,
}

impl StageTimes {
    fn new(workload: &Workload, microbatch: Microbatch, stage: usize) -> StageTimes {
        let unit = Unit::llm(Chunk(stage), microbatch);
        let time = |phase| workload.unit_cost(unit, phase) * workload.slowdown(Rank(stage));
        let backward = workload.backward_cost(unit) * workload.slowdown(Rank(stage));
        let input = time(Phase::BackwardInput).min(backward);
        StageTimes { forward: time(Phase::Forward), input, weight: backward - input }
    }
}

/// The time that a microbatch's items take at least, given all ranks.
fn longest(workload: &Workload, module: Module, microbatch: Microbatch, phases: &[Phase]) -> f64 {
    let phases = phases
        .iter()
        .filter(|phase| **phase == Phase::Forward || workload.has_backward(module.kind(), microbatch));
    let phases: Vec<Phase> = phases.copied().collect();
    let time = |item| {
        let unit = Unit::item(module, item);
        phases.iter().map(|phase| workload.unit_cost(unit, *phase)).sum::<f64>()
    };
    let (mut most, mut total) = (0.0f64, 0.0);
    for time in workload.items(module.kind(), microbatch).map(time) {
        most = most.max(time);
        total += time;
    }
    let slowdowns = (0..workload.ranks()).map(|rank| workload.slowdown(Rank(rank)));
    let (fastest, speed) = slowdowns.fold((f64::INFINITY, 0.0), |(fastest, speed), slowdown| {
        (slowdown.min(fastest), speed + 1.0 / slowdown)
    });
    (most * fastest).max(total / speed)
}

/// Time of a microbatch's items, forward and backward.
fn totals(workload: &Workload, module: Module, microbatch: Microbatch) -> [f64; 2] {
    let mut totals = [0.0; 2];
    for item in workload.items(module.kind(), microbatch) {
        let unit = Unit::item(module, item);
        totals[0] += workload.unit_cost(unit, Phase::Forward);
        if workload.has_backward(module.kind(), microbatch) {
            totals[1] += workload.unit_cost(unit, Phase::Backward);
        }
    }
    totals
}

/// The most microbatches that a stage can hold at once: the smallest of them.
fn most_held(workload: &Workload, room: &Room<'_>, stage: usize) -> usize {
    let unit = |microbatch| room.measures.count(Unit::llm(Chunk(stage), microbatch));
    let mut counts: Vec<u64> = workload.microbatches().map(unit).collect();
    counts.sort_unstable();
    let mut held = 0u64;
    let fits = |count: &u64| {
        held = held.saturating_add(*count);
        held <= room.llm[stage]
    };
    counts.iter().copied().take_while(fits).count()
}

/// The sum of the `count` largest.
fn largest(mut times: Vec<f64>, count: usize) -> f64 {
    times.sort_unstable_by(|a, b| b.total_cmp(a));
    times.into_iter().take(count).sum()
}
