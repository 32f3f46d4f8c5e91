//! Monolithic (Megatron-LM): the encoder is part of the first stage, the generator of the last.

use super::api::{Options, Schedule, ScheduleError, with_step};
use super::table::{Item, Module, ModuleKind, Op, Phase, Table, Work};
use super::workload::Workload;

/// All encoder items of a microbatch run on the first chunk's rank, forward right before that chunk's and backward
/// right after it; all generator items on the last chunk's rank, in the same way at its other end. The first and last
/// rank are slower for it, and every other rank waits for them.
#[derive(Debug)]
pub struct Monolithic;

impl Schedule for Monolithic {
    fn name(&self) -> &'static str {
        "monolithic"
    }

    fn summary(&self) -> &'static str {
        "Megatron: encoder inside the first stage, generator inside the last"
    }

    fn build(&self, workload: &Workload, options: &Options) -> Result<Table, ScheduleError> {
        let llm = options.llm_table(&workload.llm_only(), 0)?;
        let ranks = llm.ranks.into_iter().map(|ops| {
            let mut all = Vec::with_capacity(ops.len());
            for op in ops {
                let (before, after) = companions(workload, &op);
                all.extend(before);
                all.push(op);
                all.extend(after);
            }
            all
        });
        Ok(with_step(Table { ranks: ranks.collect() }))
    }
}

/// The item ops that run right before and right after an LLM op.
fn companions(workload: &Workload, op: &Op) -> (Vec<Op>, Vec<Op>) {
    let Op::Compute { module: Module::Llm(chunk), phase, work: Work::Microbatch(microbatch) } = op else {
        return (Vec::new(), Vec::new());
    };
    let items =
        |kind, here: bool| workload.items(kind, *microbatch).take_while(|_| here).collect::<Vec<Item>>();
    let first = items(ModuleKind::Encoder, chunk.0 == 0);
    let last = items(ModuleKind::Generator, *chunk == workload.last_chunk());
    let learns = |kind| workload.has_backward(kind, *microbatch);
    let ops = |op: fn(Phase, Vec<Item>) -> Op, phase, items: Vec<Item>, wanted: bool| {
        (wanted && !items.is_empty()).then(|| op(phase, items))
    };
    match phase {
        Phase::Forward => {
            // Without an LLM backward to run before, the generator's follows its forward.
            let alone = learns(ModuleKind::Generator) && !learns(ModuleKind::Llm);
            let drawn = ops(Op::generator, Phase::Forward, last.clone(), true);
            let learned = ops(Op::generator, Phase::Backward, last, alone);
            let encoded = ops(Op::encoder, Phase::Forward, first, true);
            (encoded.into_iter().collect(), drawn.into_iter().chain(learned).collect())
        }
        Phase::Backward | Phase::BackwardInput => {
            let drawn = ops(Op::generator, Phase::Backward, last, true);
            let encoded = ops(Op::encoder, Phase::Backward, first, learns(ModuleKind::Encoder));
            (drawn.into_iter().collect(), encoded.into_iter().collect())
        }
        Phase::BackwardWeight | Phase::Recompute => (Vec::new(), Vec::new()),
    }
}
