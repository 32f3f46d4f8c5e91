//! Which values an op consumes and produces: all that is known about dependencies between ops. It follows from the
//! shape of the step alone, so a schedule never states it.
//!
//! Within a rank, an op also needs earlier phases of its own units: a backward its forward, a weight gradient its
//! input gradient. Those are an order of the rank's list, checked by `validate`.

use crate::step::table::{Chunk, Module, ModuleKind, Op, Phase, Piece, Rank, Table, Unit, Value};
use crate::step::workload::Workload;

impl Op {
    /// The values that must be on the op's rank before it starts.
    pub fn consumes(&self, workload: &Workload) -> Vec<Value> {
        let mut values = Vec::new();
        self.for_each_consumed(workload, |value| values.push(value));
        values
    }

    /// The values that are on the op's rank once it ends (a `Recv`'s value once it has arrived).
    pub fn produces(&self, workload: &Workload) -> Vec<Value> {
        let mut values = Vec::new();
        self.for_each_produced(workload, |value| values.push(value));
        values
    }

    /// [`Op::consumes`] without an allocation.
    pub fn for_each_consumed(&self, workload: &Workload, mut visit: impl FnMut(Value)) {
        match self {
            Op::Compute { .. } | Op::Overlap { .. } => {
                self.runs().for_each(|(unit, phase)| unit.for_each_consumed(phase, workload, &mut visit));
            }
            Op::Send { value, .. } => visit(*value),
            Op::Recv { .. } | Op::Step => {}
        }
    }

    /// [`Op::produces`] without an allocation.
    pub fn for_each_produced(&self, workload: &Workload, mut visit: impl FnMut(Value)) {
        match self {
            Op::Compute { .. } | Op::Overlap { .. } => {
                self.runs().for_each(|(unit, phase)| unit.for_each_produced(phase, workload, &mut visit));
            }
            Op::Recv { value, .. } => visit(*value),
            Op::Send { .. } | Op::Step => {}
        }
    }
}

impl Unit {
    /// The values that the unit reads in a phase.
    pub fn consumes(self, phase: Phase, workload: &Workload) -> Vec<Value> {
        let mut values = Vec::new();
        self.for_each_consumed(phase, workload, |value| values.push(value));
        values
    }

    /// The values that the unit reads in a phase: a forward those of the chunk or module before it, a backward the
    /// gradients of what its forward made.
    pub fn for_each_consumed(self, phase: Phase, workload: &Workload, mut visit: impl FnMut(Value)) {
        match (phase, self.module, self.piece) {
            (Phase::Forward, ..) if self.module.chunk().0 > 0 => self.hidden().into_iter().for_each(visit),
            (Phase::Forward, Module::Llm(_), Piece::Microbatch(m)) => {
                workload.items(ModuleKind::Encoder, m).map(Value::Embeds).for_each(visit);
            }
            (Phase::Forward, Module::Generator(_), Piece::Item(item)) => visit(Value::Cond(item)),
            (Phase::Backward | Phase::BackwardInput, ..) if !workload.is_last(self.module) => {
                self.hidden_grad().into_iter().for_each(visit);
            }
            (Phase::Backward | Phase::BackwardInput, Module::Llm(_), Piece::Microbatch(m)) => {
                workload.items(ModuleKind::Generator, m).map(Value::CondGrad).for_each(visit);
            }
            (Phase::Backward | Phase::BackwardInput, Module::Encoder(_), Piece::Item(item)) => {
                visit(Value::EmbedGrad(item));
            }
            _ => {}
        }
    }

    /// The values that the unit makes in a phase: a forward those of the chunk or module after it, a backward the
    /// gradients of what its forward read, where something below it learns.
    pub fn for_each_produced(self, phase: Phase, workload: &Workload, mut visit: impl FnMut(Value)) {
        let beside = |chunk: usize| Unit { module: self.module.kind().module(Chunk(chunk)), ..self };
        let chunk = self.module.chunk().0;
        match (phase, self.module, self.piece) {
            (Phase::Forward, ..) if !workload.is_last(self.module) => {
                beside(chunk + 1).hidden().into_iter().for_each(visit);
            }
            (Phase::Forward, Module::Llm(_), Piece::Microbatch(m)) => {
                workload.items(ModuleKind::Generator, m).map(Value::Cond).for_each(visit);
            }
            (Phase::Forward, Module::Encoder(_), Piece::Item(item)) => visit(Value::Embeds(item)),
            (Phase::Backward | Phase::BackwardInput, ..) if chunk > 0 => {
                let before = beside(chunk - 1);
                if workload.goes_backward(before.module, self.microbatch()) {
                    before.hidden_grad().into_iter().for_each(visit);
                }
            }
            (Phase::Backward | Phase::BackwardInput, Module::Llm(_), Piece::Microbatch(m))
                if workload.has_backward(ModuleKind::Encoder, m) =>
            {
                workload.items(ModuleKind::Encoder, m).map(Value::EmbedGrad).for_each(visit);
            }
            (Phase::Backward | Phase::BackwardInput, Module::Generator(_), Piece::Item(item))
                if workload.has_backward(ModuleKind::Llm, item.microbatch) =>
            {
                visit(Value::CondGrad(item));
            }
            _ => {}
        }
    }

    /// What the unit reads of the chunk before it; `None` for a module on work of another kind.
    fn hidden(self) -> Option<Value> {
        match (self.module, self.piece) {
            (Module::Llm(chunk), Piece::Microbatch(microbatch)) => Some(Value::Hidden { microbatch, chunk }),
            (Module::Encoder(chunk), Piece::Item(item)) => Some(Value::EncoderHidden { item, chunk }),
            (Module::Generator(chunk), Piece::Item(item)) => Some(Value::GeneratorHidden { item, chunk }),
            _ => None,
        }
    }

    /// The gradient of what the unit makes for the chunk after it.
    fn hidden_grad(self) -> Option<Value> {
        match self.hidden()? {
            Value::Hidden { microbatch, chunk } => Some(Value::HiddenGrad { microbatch, chunk }),
            Value::EncoderHidden { item, chunk } => Some(Value::EncoderHiddenGrad { item, chunk }),
            Value::GeneratorHidden { item, chunk } => Some(Value::GeneratorHiddenGrad { item, chunk }),
            _ => None,
        }
    }
}

/// By [`Workload::value_index`]: the rank of the op that reads the value.
pub(crate) fn readers(table: &Table, workload: &Workload) -> Vec<Option<Rank>> {
    let mut readers = vec![None; workload.value_count()];
    for (rank, op) in table.iter().filter(|(_, op)| op.is_compute()) {
        op.for_each_consumed(workload, |value| {
            if let Some(index) = workload.value_index(value) {
                readers[index] = Some(rank);
            }
        });
    }
    readers
}
