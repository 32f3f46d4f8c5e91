//! The one executor: runs a rank's list of ops, whatever schedule wrote it.

use super::buffers::{ActivationBuffers, Activations};
use super::clock::Clock;
use super::error::ExecuteError;
use super::losses::{LossCounter, Losses};
use super::program::Program;
use super::task::StepTask;
use super::turn::{Baton, Turn};
use super::unit::{Inputs, Recorded, UnitOutput};
use crate::model::RankModules;
use bigmac_autograd::{Graph, Mode};
use bigmac_comm::{Communicator, Tag};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, Tensor};
use bigmac_schedule::memory::recomputed;
use bigmac_schedule::render::Trace;
use bigmac_schedule::{ModuleKind, Op, PerModule, Phase, Rank, Unit, Value};
use std::collections::HashMap;
use std::time::Instant;

/// The memory scope of a module's activations.
pub fn activation_scope(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Encoder => "activations.encoder",
        ModuleKind::Llm => "activations.llm",
        ModuleKind::Generator => "activations.generator",
    }
}

/// What a rank measured while it ran a step.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Per module, the most bytes that live activations held after an op.
    pub saved: PerModule<usize>,
    /// After each op of this rank's list, the bytes that each module's live activations held.
    pub held: Vec<PerModule<usize>>,
    /// Start and end of each op of this rank's list, in seconds since the step's start; what the executor itself does
    /// after an op is part of it.
    pub spans: Vec<(f64, f64)>,
    /// Of each op of this rank's list, the part of its span in which it waited for values of other ranks, in seconds.
    pub waits: Vec<f64>,
}

impl Measured {
    /// Seconds that the rank spent on each op of its list that computes, without waiting for values of other ranks, up
    /// to the end of the last op before the next that computes: sends take the rank's time too. 0 for other ops.
    pub fn durations(&self, ops: &[Op]) -> Vec<f64> {
        let mut durations = vec![0.0; ops.len()];
        let mut last = None;
        for (index, ((op, (start, end)), waited)) in ops.iter().zip(&self.spans).zip(&self.waits).enumerate()
        {
            if op.is_compute() {
                last = Some((index, start + waited));
            }
            if let Some((index, start)) = last {
                durations[index] = (end - start).max(0.0);
            }
        }
        durations
    }

    /// What a timeline shows: an op's bar begins when its inputs are there, as in a simulation.
    pub fn trace(&self) -> Trace {
        let computed = self.spans.iter().zip(&self.waits);
        Trace {
            spans: computed.map(|((start, end), waited)| ((start + waited).min(*end), *end)).collect(),
            held: self.held.clone(),
        }
    }
}

/// What is left of a step that has run. On a GPU its work may still be queued.
pub struct Ran {
    /// Losses of this rank's units.
    pub losses: Losses,
    /// What was measured.
    pub record: Record,
}

/// What a rank measured, with times that the device may still have to tell. When it is dropped they are not waited for.
pub struct Record {
    measured: Measured,
    clock: Clock,
}

impl Record {
    /// Per module, the most bytes that live activations held after an op.
    pub fn saved(&self) -> PerModule<usize> {
        self.measured.saved
    }

    /// All of it; waits until the device has run the last op.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(self) -> Result<Measured, ExecuteError> {
        Ok(Measured { spans: self.clock.finish()?, ..self.measured })
    }
}

/// Runs one rank's ops of a step.
struct Executor<'a> {
    ctx: &'a Context,
    comm: &'a dyn Communicator,
    program: &'a Program,
    task: &'a StepTask<'a>,
    modules: &'a mut RankModules,
    values: Inputs,
    /// Values whose receive was posted: waited for by the op that reads them.
    posted: HashMap<Value, Rank>,
    buffers: ActivationBuffers<'a>,
    /// Units whose forward saves nothing, sorted.
    recomputed: Vec<Unit>,
    /// What their forwards read, for their recomputation; counted as messages until then.
    inputs: HashMap<Unit, Inputs>,
    losses: LossCounter,
    measured: Measured,
    /// Where ranks compute one at a time.
    turn: Option<Turn<'a>>,
}

/// Runs this rank's ops of `program` up to its [`Op::Step`]: gradients are left in `modules`, not yet reduced. On a GPU
/// they are queued, and nothing waits for them.
///
/// # Errors
/// [`ExecuteError`]; the caller aborts the communicator, so that no peer waits.
pub fn run(
    ctx: &Context,
    comm: &dyn Communicator,
    program: &Program,
    task: &StepTask<'_>,
    modules: &mut RankModules,
) -> Result<Ran, ExecuteError> {
    run_list(ctx, comm, program, task, modules, None)
}

/// As [`run`], while only one of the ranks that share `baton` computes at a time: an op takes what it takes on a machine
/// that does nothing else. It begins once its inputs are there and the rank's turn has come.
///
/// # Errors
/// As [`run`].
pub fn run_one_at_a_time(
    ctx: &Context,
    comm: &dyn Communicator,
    program: &Program,
    task: &StepTask<'_>,
    modules: &mut RankModules,
    baton: &Baton,
) -> Result<Ran, ExecuteError> {
    run_list(ctx, comm, program, task, modules, Some(Turn::new(baton)))
}

fn run_list<'a>(
    ctx: &'a Context,
    comm: &'a dyn Communicator,
    program: &'a Program,
    task: &'a StepTask<'_>,
    modules: &'a mut RankModules,
    turn: Option<Turn<'a>>,
) -> Result<Ran, ExecuteError> {
    let rank = Rank(comm.rank());
    let ops = program.table.ranks.get(rank.0).map_or(&[][..], Vec::as_slice);
    modules.begin_step();
    let mut executor = Executor {
        ctx,
        comm,
        program,
        task,
        modules,
        values: HashMap::new(),
        posted: HashMap::new(),
        buffers: ActivationBuffers::new(rank, program),
        recomputed: recomputed(ops),
        inputs: HashMap::new(),
        losses: LossCounter::new(task.step, Rank(ctx.rank())),
        measured: Measured::default(),
        turn,
    };
    let mut clock = Clock::start(ctx)?;
    for (index, op) in ops.iter().enumerate() {
        if let Some(position) = task.position {
            position.set(task.step, index, op);
        }
        executor.measured.waits.push(0.0);
        executor.wait_for_turn(op)?;
        clock.begin()?;
        executor.op(op)?;
        let mut held = PerModule::default();
        for kind in ModuleKind::ALL {
            held[kind] = ctx.memory().scope(activation_scope(kind)).current();
            executor.measured.saved[kind] = executor.measured.saved[kind].max(held[kind]);
        }
        executor.measured.held.push(held);
        clock.end()?;
    }
    let Executor { losses, mut measured, mut turn, modules, .. } = executor;
    let losses = losses.finish(ctx)?;
    turn.iter_mut().try_for_each(|turn| turn.give(ctx))?;
    if ctx.is_gpu() {
        // The host's waits are not the device's.
        measured.waits.fill(0.0);
    }
    modules.finish_step()?;
    Ok(Ran { losses, record: Record { measured, clock } })
}

impl Executor<'_> {
    /// Where ranks compute one at a time: waits, without the turn, until everything that the op reads is there, and then
    /// for the turn. Otherwise values are waited for as they are read.
    fn wait_for_turn(&mut self, op: &Op) -> Result<(), ExecuteError> {
        let Some(turn) = self.turn.as_mut().filter(|_| op.is_compute()) else { return Ok(()) };
        turn.give(self.ctx)?;
        for value in op.consumes(&self.program.workload) {
            if self.posted.contains_key(&value) {
                let tensor = self.receive(value)?;
                self.values.insert(value, tensor);
            }
        }
        if let Some(waited) = self.measured.waits.last_mut() {
            *waited = 0.0;
        }
        self.turn.iter_mut().for_each(Turn::take);
        Ok(())
    }

    fn op(&mut self, op: &Op) -> Result<(), ExecuteError> {
        match op {
            // What could overlap runs one after the other, on one stream.
            Op::Compute { .. } | Op::Overlap { .. } => op.runs().try_for_each(|(unit, phase)| match phase {
                Phase::Forward => self.forward(unit),
                Phase::Backward => self.backward(unit, Mode::Full),
                Phase::BackwardInput => self.backward(unit, Mode::Split),
                Phase::BackwardWeight => self.backward_weight(unit),
                Phase::Recompute => self.recompute(unit),
            }),
            Op::Send { value, to } => {
                let tensor = self.take(*value)?;
                Ok(self.comm.send(self.ctx, tensor, to.0, self.tag(*value))?)
            }
            Op::Recv { value, from } => {
                self.posted.insert(*value, *from);
                Ok(())
            }
            Op::Step => Ok(()),
        }
    }

    fn tag(&self, value: Value) -> Tag {
        Tag(self.program.workload.value_index(value).unwrap_or(usize::MAX) as u64)
    }

    fn take(&mut self, value: Value) -> Result<Tensor, ExecuteError> {
        match self.values.remove(&value) {
            Some(tensor) => Ok(tensor),
            None => self.receive(value),
        }
    }

    /// Waits for a value whose receive was posted.
    fn receive(&mut self, value: Value) -> Result<Tensor, ExecuteError> {
        let from = self
            .posted
            .remove(&value)
            .ok_or_else(|| ExecuteError::missing(self.ctx, format!("{value:?}")))?;
        let ctx = self.ctx.in_scope(scopes::MESSAGES);
        let began = Instant::now();
        let tensor = self.comm.recv(&ctx, from.0, self.tag(value), &self.task.value_spec(value)?)?;
        if let Some(waited) = self.measured.waits.last_mut() {
            *waited += began.elapsed().as_secs_f64();
        }
        Ok(tensor)
    }

    /// Everything that `unit` reads in a phase, here.
    fn inputs(&mut self, unit: Unit, phase: Phase) -> Result<Inputs, ExecuteError> {
        let values = unit.consumes(phase, &self.program.workload).into_iter();
        values.map(|value| Ok((value, self.take(value)?))).collect()
    }

    /// Keeps a value for another op; until that runs it counts as a message.
    fn keep(&mut self, value: Value, tensor: Tensor) -> Result<(), ExecuteError> {
        let tensor =
            if tensor.is_whole() && tensor.is_unshared() { tensor } else { tensor.copy(self.ctx)? };
        tensor.move_to_scope(&self.ctx.memory().scope(scopes::MESSAGES))?;
        self.values.insert(value, tensor);
        Ok(())
    }

    fn forward(&mut self, unit: Unit) -> Result<(), ExecuteError> {
        let inputs = self.inputs(unit, Phase::Forward)?;
        let again = self.recomputed.binary_search(&unit).is_ok();
        if again {
            self.inputs.insert(unit, inputs.clone());
        }
        let output = self.compute(unit, inputs, !again)?;
        for (part, loss) in output.losses {
            self.losses.count(self.ctx, unit, part, loss)?;
        }
        for (value, tensor) in output.values {
            self.keep(value, tensor)?;
        }
        self.save(unit, output.recorded)
    }

    /// The forward once more, recorded this time. Its outputs have been read and its losses counted before.
    fn recompute(&mut self, unit: Unit) -> Result<(), ExecuteError> {
        let missing = || ExecuteError::missing(self.ctx, format!("what {unit:?} read"));
        let inputs = self.inputs.remove(&unit).ok_or_else(missing)?;
        let recorded = self.compute(unit, inputs, true)?.recorded;
        self.save(unit, recorded)
    }

    /// The forward of a unit that read `inputs`, on a tape where it `records` and has a backward.
    fn compute(&self, unit: Unit, inputs: Inputs, records: bool) -> Result<UnitOutput, ExecuteError> {
        let (kind, workload) = (unit.module.kind(), &self.program.workload);
        let ctx = self.ctx.in_scope(activation_scope(kind));
        if records {
            // From here on the tape holds them, or nothing does.
            inputs.values().try_for_each(|tensor| tensor.move_to_scope(ctx.scope()))?;
        }
        let params = self.modules.params(unit.module)?;
        let graph = if records && workload.goes_backward(unit.module, unit.microbatch()) {
            Graph::recording(&ctx, params)
        } else {
            Graph::inference(&ctx, params)
        };
        self.task.forward(graph, self.modules, workload, unit, inputs)
    }

    fn save(&mut self, unit: Unit, recorded: Option<Recorded>) -> Result<(), ExecuteError> {
        recorded.map_or(Ok(()), |recorded| self.buffers.put(unit, Activations::Recorded(recorded)))
    }

    fn backward(&mut self, unit: Unit, mode: Mode) -> Result<(), ExecuteError> {
        let Activations::Recorded(recorded) = self.buffers.take(unit)? else {
            return Err(ExecuteError::missing(self.ctx, format!("the tape of {unit:?}")));
        };
        let inputs = self.inputs(unit, Phase::Backward)?;
        // Gradients are the backward's own work, not messages any more.
        inputs.values().try_for_each(|tensor| tensor.move_to_scope(self.ctx.scope()))?;
        let (params, gradients) = self.modules.of(unit.module)?;
        let computed = recorded.backward(self.ctx, params, gradients, mode, inputs)?;
        for (value, tensor) in computed.values {
            self.keep(value, tensor)?;
        }
        if mode == Mode::Split && self.program.workload.has_weight_gradient(unit.module.kind()) {
            // Gradients of outputs were the backward's own work; from now on they wait with the inputs.
            let scope = self.ctx.memory().scope(activation_scope(unit.module.kind()));
            computed.deferred.move_to_scope(&scope)?;
            self.buffers.put(unit, Activations::Deferred(computed.deferred))?;
        }
        Ok(())
    }

    fn backward_weight(&mut self, unit: Unit) -> Result<(), ExecuteError> {
        let Activations::Deferred(deferred) = self.buffers.take(unit)? else {
            return Err(ExecuteError::missing(self.ctx, format!("the split backward of {unit:?}")));
        };
        let (params, gradients) = self.modules.of(unit.module)?;
        Ok(deferred.run(self.ctx, params, gradients)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_schedule::{Options, UniformCosts, Workload, lower, registry};

    /// Ranks that wait and send: every second is counted once, at the op that took it.
    #[test]
    fn an_ops_time_is_without_waiting_up_to_the_next_op() {
        let costs = UniformCosts { forward: 1.0, encoder_forward: 4.0, ..UniformCosts::default() };
        let workload = Workload::uniform(2, 1, 3, 4, costs, 0.0).unwrap();
        let table = registry::schedule("nested").unwrap().build(&workload, &Options::default()).unwrap();
        for ops in lower(&table, &workload).unwrap().ranks {
            let computes = |op: &Op| matches!(op, Op::Compute { .. });
            let places: Vec<usize> = (0..ops.len()).filter(|i| computes(&ops[*i])).collect();
            assert!(ops.len() > places.len() + 2, "nothing is sent");
            let measured = |spans: Vec<(f64, f64)>| {
                // Ops that compute wait for 1 of their time.
                let waits = ops.iter().map(|op| f64::from(u8::from(computes(op)))).collect();
                Measured { spans, waits, ..Measured::default() }.durations(&ops)
            };
            let durations =
                measured((0..ops.len()).map(|i| (10.0 * i as f64, 10.0 * (i + 1) as f64)).collect());
            let (first, count) = (places[0], places.len() as f64);
            assert_eq!(durations.iter().sum::<f64>(), 10.0 * (ops.len() - first) as f64 - count);
            // While another rank has its turn, nothing is counted.
            let start =
                |i: usize| 10.0 * i as f64 + 100.0 * places.iter().filter(|p| **p <= i).count() as f64;
            let in_turns = measured((0..ops.len()).map(|i| (start(i), start(i) + 10.0)).collect());
            assert_eq!(in_turns, durations);
        }
    }
}
