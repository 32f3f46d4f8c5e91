//! Which values an op consumes and produces: all that is known about dependencies between ops. It follows from the
//! shape of the step alone, so a schedule never states it.
//!
//! Within a rank, an op also needs earlier phases of its own units: a backward its forward, a weight gradient its
//! input gradient. Those are an order of the rank's list, checked by `validate`.

use crate::step::table::{Chunk, Microbatch, Module, ModuleKind, Op, Phase, Piece, Rank, Table, Unit, Value};
use crate::step::workload::Workload;

impl Op {
    /// The values that have to be on the op's rank before it starts.
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
            Op::Compute { phase, .. } => {
                self.units().for_each(|unit| unit.for_each_consumed(*phase, workload, &mut visit));
            }
            Op::Send { value, .. } => visit(*value),
            Op::Recv { .. } | Op::Step => {}
        }
    }

    /// [`Op::produces`] without an allocation.
    pub fn for_each_produced(&self, workload: &Workload, mut visit: impl FnMut(Value)) {
        let phase = match self {
            Op::Compute { phase, .. } => *phase,
            Op::Recv { value, .. } => return visit(*value),
            Op::Send { .. } | Op::Step => return,
        };
        for unit in self.units() {
            match (unit.module, phase, unit.piece) {
                (Module::Encoder(chunk), Phase::Forward, Piece::Item(item)) => {
                    let next = Chunk(chunk.0 + 1);
                    let last = next.0 >= workload.encoder_chunks();
                    visit(if last {
                        Value::Embeds(item)
                    } else {
                        Value::EncoderHidden { item, chunk: next }
                    });
                }
                (Module::Encoder(chunk), Phase::Backward | Phase::BackwardInput, Piece::Item(item))
                    if chunk.0 > 0 =>
                {
                    visit(Value::EncoderHiddenGrad { item, chunk: Chunk(chunk.0 - 1) });
                }
                (Module::Generator(chunk), Phase::Forward, Piece::Item(item))
                    if chunk.0 + 1 < workload.generator_chunks() =>
                {
                    visit(Value::GeneratorHidden { item, chunk: Chunk(chunk.0 + 1) });
                }
                (Module::Generator(chunk), Phase::Backward | Phase::BackwardInput, Piece::Item(item))
                    if chunk.0 > 0 =>
                {
                    visit(Value::GeneratorHiddenGrad { item, chunk: Chunk(chunk.0 - 1) });
                }
                (Module::Llm(chunk), Phase::Forward, Piece::Microbatch(m)) => {
                    llm_outputs(workload, chunk, m, &mut visit);
                }
                (Module::Llm(chunk), Phase::Backward | Phase::BackwardInput, Piece::Microbatch(m)) => {
                    llm_input_gradients(workload, chunk, m, &mut visit);
                }
                (Module::Generator(_), Phase::Backward | Phase::BackwardInput, Piece::Item(item))
                    if workload.has_backward(ModuleKind::Llm, item.microbatch) =>
                {
                    visit(Value::CondGrad(item));
                }
                _ => {}
            }
        }
    }
}

impl Unit {
    /// The values that have to be on the unit's rank before that phase of it starts.
    pub fn consumes(self, phase: Phase, workload: &Workload) -> Vec<Value> {
        let mut values = Vec::new();
        self.for_each_consumed(phase, workload, &mut |value| values.push(value));
        values
    }

    fn for_each_consumed(self, phase: Phase, workload: &Workload, visit: &mut impl FnMut(Value)) {
        match (self.module, phase, self.piece) {
            (Module::Llm(chunk), Phase::Forward, Piece::Microbatch(m)) => {
                llm_inputs(workload, chunk, m, visit);
            }
            (Module::Llm(chunk), Phase::Backward | Phase::BackwardInput, Piece::Microbatch(m)) => {
                llm_gradients(workload, chunk, m, visit);
            }
            (Module::Encoder(chunk), Phase::Forward, Piece::Item(item)) if chunk.0 > 0 => {
                visit(Value::EncoderHidden { item, chunk });
            }
            (Module::Encoder(chunk), Phase::Backward | Phase::BackwardInput, Piece::Item(item)) => {
                let last = chunk.0 + 1 >= workload.encoder_chunks();
                visit(if last { Value::EmbedGrad(item) } else { Value::EncoderHiddenGrad { item, chunk } });
            }
            (Module::Generator(chunk), Phase::Forward, Piece::Item(item)) => {
                let first = chunk.0 == 0;
                visit(if first { Value::Cond(item) } else { Value::GeneratorHidden { item, chunk } });
            }
            (Module::Generator(chunk), Phase::Backward | Phase::BackwardInput, Piece::Item(item))
                if chunk.0 + 1 < workload.generator_chunks() =>
            {
                visit(Value::GeneratorHiddenGrad { item, chunk });
            }
            _ => {}
        }
    }
}

fn llm_inputs(workload: &Workload, chunk: Chunk, microbatch: Microbatch, visit: &mut impl FnMut(Value)) {
    if chunk.0 > 0 {
        visit(Value::Hidden { microbatch, chunk });
    } else {
        workload.items(ModuleKind::Encoder, microbatch).for_each(|item| visit(Value::Embeds(item)));
    }
}

fn llm_outputs(workload: &Workload, chunk: Chunk, microbatch: Microbatch, visit: &mut impl FnMut(Value)) {
    if chunk < workload.last_chunk() {
        visit(Value::Hidden { microbatch, chunk: Chunk(chunk.0 + 1) });
    } else {
        workload.items(ModuleKind::Generator, microbatch).for_each(|item| visit(Value::Cond(item)));
    }
}

fn llm_gradients(workload: &Workload, chunk: Chunk, microbatch: Microbatch, visit: &mut impl FnMut(Value)) {
    if chunk < workload.last_chunk() {
        visit(Value::HiddenGrad { microbatch, chunk });
    } else {
        workload.items(ModuleKind::Generator, microbatch).for_each(|item| visit(Value::CondGrad(item)));
    }
}

fn llm_input_gradients(
    workload: &Workload,
    chunk: Chunk,
    microbatch: Microbatch,
    visit: &mut impl FnMut(Value),
) {
    if chunk.0 > 0 {
        visit(Value::HiddenGrad { microbatch, chunk: Chunk(chunk.0 - 1) });
    } else if workload.has_backward(ModuleKind::Encoder, microbatch) {
        workload.items(ModuleKind::Encoder, microbatch).for_each(|item| visit(Value::EmbedGrad(item)));
    }
}

/// By [`Workload::value_index`]: the rank of the op that reads the value.
pub(crate) fn readers(table: &Table, workload: &Workload) -> Vec<Option<Rank>> {
    let mut readers = vec![None; workload.value_count()];
    for (rank, op) in table.iter() {
        if let Op::Compute { .. } = op {
            op.for_each_consumed(workload, |value| {
                if let Some(index) = workload.value_index(value) {
                    readers[index] = Some(rank);
                }
            });
        }
    }
    readers
}
