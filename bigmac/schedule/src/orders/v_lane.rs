//! A rank's list in an order of two chunks per rank that are placed as a V: written pass by pass, each on the chunk's
//! next microbatch.

use crate::step::{Chunk, Microbatch, ModuleKind, Op, Phase, Unit, Workload};
use std::collections::VecDeque;

/// Which of a rank's two chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one on the way there, chunk `s` of rank `s`.
    There,
    /// The one on the way back, chunk `2 p - 1 - s`.
    Back,
}

/// The list of one rank. Microbatches from the step's number on are counted but have no ops, nor has what does not
/// learn.
pub(super) struct Lane<'a> {
    workload: &'a Workload,
    chunks: [Chunk; 2],
    /// By [`Side`]: forwards, backwards (or input gradients) and weight gradients of their own so far.
    done: [[usize; 3]; 2],
    /// Weight gradients that were put off, in the order of their input gradients.
    put_off: VecDeque<(Side, usize)>,
    pub(super) ops: Vec<Op>,
}

const FORWARDS: usize = 0;
const BACKWARDS: usize = 1;
const WEIGHTS: usize = 2;

impl<'a> Lane<'a> {
    pub(super) fn new(workload: &'a Workload, rank: usize) -> Lane<'a> {
        let chunks = [Chunk(rank), Chunk((2 * workload.ranks()).saturating_sub(rank + 1))];
        Lane { workload, chunks, done: [[0; 3]; 2], put_off: VecDeque::new(), ops: Vec::new() }
    }

    pub(super) fn forwards(&self, side: Side) -> usize {
        self.done[side as usize][FORWARDS]
    }

    pub(super) fn forward(&mut self, side: Side) {
        let unit = self.next_forward(side);
        self.ops.extend(unit.map(|unit| unit.op(Phase::Forward)));
    }

    /// A backward as a whole.
    pub(super) fn backward(&mut self, side: Side) {
        let unit = self.next_backward(side);
        self.ops.extend(unit.map(|unit| unit.op(Phase::Backward)));
    }

    /// An input gradient, whose weight gradient is put off.
    pub(super) fn input(&mut self, side: Side) {
        self.put_off.push_back((side, self.done[side as usize][BACKWARDS]));
        let unit = self.next_backward(side);
        self.ops.extend(unit.map(|unit| unit.op(Phase::BackwardInput)));
    }

    /// The weight gradient that has been put off for longest, if there is one.
    pub(super) fn weight(&mut self) {
        if let Some((side, microbatch)) = self.put_off.pop_front() {
            self.weight_of(side, microbatch);
        }
    }

    /// The chunk's next weight gradient; false where its input gradients so far have all had theirs.
    pub(super) fn own_weight(&mut self, side: Side) -> bool {
        let [_, backwards, weights] = self.done[side as usize];
        if weights < backwards {
            self.put_off.retain(|one| *one != (side, weights));
            self.weight_of(side, weights);
        }
        weights < backwards
    }

    /// A forward of one chunk and a whole backward of the other at once.
    pub(super) fn overlap(&mut self, forward: Side, backward: Side) {
        let phase = Phase::Backward;
        let op = match (self.next_forward(forward), self.next_backward(backward)) {
            (Some(forward), Some(backward)) => Some(Op::Overlap { forward, backward, phase }),
            (forward, None) => forward.map(|unit| unit.op(Phase::Forward)),
            (None, backward) => backward.map(|unit| unit.op(phase)),
        };
        self.ops.extend(op);
    }

    fn weight_of(&mut self, side: Side, microbatch: usize) {
        self.done[side as usize][WEIGHTS] += 1;
        let unit = Unit::llm(self.chunks[side as usize], Microbatch(microbatch));
        let learns = self.workload.has_weight_gradient(ModuleKind::Llm) && self.goes_backward(unit);
        self.ops.extend(learns.then(|| unit.op(Phase::BackwardWeight)));
    }

    fn next_forward(&mut self, side: Side) -> Option<Unit> {
        let unit = self.next(side, FORWARDS);
        (unit.microbatch().0 < self.workload.len()).then_some(unit)
    }

    fn next_backward(&mut self, side: Side) -> Option<Unit> {
        let unit = self.next(side, BACKWARDS);
        self.goes_backward(unit).then_some(unit)
    }

    fn next(&mut self, side: Side, what: usize) -> Unit {
        let count = &mut self.done[side as usize][what];
        *count += 1;
        Unit::llm(self.chunks[side as usize], Microbatch(*count - 1))
    }

    fn goes_backward(&self, unit: Unit) -> bool {
        let microbatch = unit.microbatch();
        microbatch.0 < self.workload.len() && self.workload.has_backward(ModuleKind::Llm, microbatch)
    }
}
