//! The step as a graph of tasks: what a plan puts in order.

use crate::check::Measures;
use crate::step::{Chunk, Item, Microbatch, Module, ModuleKind, Phase, Unit, Value, Workload};

/// What a task does. A generator item's forward and backward are one task, so that one item is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// LLM forward, F.
    Forward,
    /// LLM input gradients, B.
    Backward,
    /// LLM weight gradients, W.
    Weight,
    /// Forward of an encoder item.
    Encode,
    /// Backward of an encoder item.
    EncodeBackward,
    /// Forward and backward of a generator item.
    Draw,
}

/// Number of classes.
pub(super) const CLASSES: usize = 6;

/// The rank of a task that any rank may run.
pub(super) const ANY: u32 = u32::MAX;

/// No task.
pub(super) const NONE: u32 = u32::MAX;

/// What a task holds from its start, or frees at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing.
    Nothing,
    /// So much of the LLM's activations, in the measure of its budget.
    Llm(u64),
    /// So much of the encoder's activations, in the measure of its budget.
    Encoder(u64),
}

/// One thing to be run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub class: Class,
    pub unit: Unit,
    /// Where it runs; [`ANY`] before that is chosen.
    pub rank: u32,
    /// Time on a rank of full speed.
    pub time: f64,
    /// What it takes from its start on.
    pub acquire: Hold,
    /// What it gives back at its end.
    pub release: Hold,
    /// The other task of its item, or of its LLM backward, which runs on the same rank; [`NONE`] where there is none.
    pub partner: u32,
    /// Whether it is a backward that has its weight gradient in it.
    pub whole: bool,
}

impl Task {
    /// Whether it is a backward whose weight gradient is a task of its own.
    pub(super) fn is_first_part(&self) -> bool {
        self.class == Class::Backward && self.partner != NONE && !self.whole
    }
}

/// A task that waits for another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub to: u32,
    /// Time that the value takes where the two run on different ranks.
    pub transfer: f64,
}

/// All tasks of a step with who waits for whom. Reversed in time it is a graph of the same kind.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    pub tasks: Vec<Task>,
    edges: Vec<Edge>,
    /// `edges[offsets[t]..offsets[t + 1]]` wait for task `t`.
    offsets: Vec<u32>,
    /// For how many each task waits.
    pub waits: Vec<u32>,
    /// Whether time runs backward.
    pub backward: bool,
    /// LLM chunks per rank.
    pub chunks_per_rank: usize,
    /// Microbatches.
    pub microbatches: usize,
    /// Whether backwards wait for drawings.
    pub draws_matter: bool,
}

impl Tasks {
    pub(super) fn new(workload: &Workload, measures: &Measures<'_>) -> Tasks {
        let mut builder = Builder { workload, measures, tasks: Vec::new(), pairs: Vec::new() };
        for microbatch in workload.microbatches() {
            builder.microbatch(microbatch);
        }
        let Builder { tasks, pairs, .. } = builder;
        let (offsets, waits, edges) = adjacency(tasks.len(), &pairs);
        let (chunks_per_rank, microbatches) = (workload.chunks_per_rank(), workload.len());
        let read = |pair: &(u32, Edge)| tasks[pair.0 as usize].class == Class::Draw;
        let draws_matter = pairs.iter().any(read);
        Tasks { tasks, edges, offsets, waits, backward: false, chunks_per_rank, microbatches, draws_matter }
    }

    /// The tasks that wait for a task.
    pub(super) fn after(&self, task: u32) -> &[Edge] {
        let task = task as usize;
        &self.edges[self.offsets[task] as usize..self.offsets[task + 1] as usize]
    }

    /// The position of a task's microbatch in this direction of time.
    pub(super) fn position(&self, task: u32) -> usize {
        let microbatch = self.tasks[task as usize].unit.microbatch().0;
        if self.backward { self.microbatches - 1 - microbatch } else { microbatch }
    }

    /// Whether any backward has two parts.
    pub(super) fn has_parts(&self) -> bool {
        self.tasks.iter().any(|task| task.class == Class::Weight)
    }

    /// The same step where backwards of some microbatches run whole. Their weight gradients take no time and hold
    /// nothing.
    pub(super) fn with_whole(&self, workload: &Workload, whole: impl Fn(Microbatch) -> bool) -> Tasks {
        let mut graph = self.clone();
        for (index, task) in self.tasks.iter().enumerate() {
            if !task.is_first_part() || !whole(task.unit.microbatch()) {
                continue;
            }
            let last = task.partner as usize;
            graph.tasks[index].time = workload.unit_cost(task.unit, Phase::Backward);
            graph.tasks[index].release = self.tasks[last].release;
            graph.tasks[index].whole = true;
            graph.tasks[last].time = 0.0;
            graph.tasks[last].release = Hold::Nothing;
        }
        graph
    }

    /// The same step as it looks when time runs backward.
    pub(super) fn reversed(&self) -> Tasks {
        let flip = |task: &Task| Task { acquire: task.release, release: task.acquire, ..*task };
        let pairs: Vec<(u32, Edge)> = (0..self.tasks.len() as u32)
            .flat_map(|from| {
                self.after(from).iter().map(move |edge| (edge.to, Edge { to: from, transfer: edge.transfer }))
            })
            .collect();
        let (offsets, waits, edges) = adjacency(self.tasks.len(), &pairs);
        let tasks = self.tasks.iter().map(flip).collect();
        Tasks { tasks, edges, offsets, waits, backward: !self.backward, ..*self }
    }
}

/// Where each task's edges start, for how many each task waits, and the edges task by task.
fn adjacency(tasks: usize, pairs: &[(u32, Edge)]) -> (Vec<u32>, Vec<u32>, Vec<Edge>) {
    let mut offsets = vec![0; tasks + 1];
    let mut waits = vec![0; tasks];
    for (from, edge) in pairs {
        offsets[*from as usize + 1] += 1;
        waits[edge.to as usize] += 1;
    }
    for task in 0..tasks {
        offsets[task + 1] += offsets[task];
    }
    let mut next = offsets.clone();
    let mut edges = vec![Edge { to: NONE, transfer: 0.0 }; pairs.len()];
    for (from, edge) in pairs {
        let place = &mut next[*from as usize];
        edges[*place as usize] = *edge;
        *place += 1;
    }
    (offsets, waits, edges)
}

struct Builder<'a> {
    workload: &'a Workload,
    measures: &'a Measures<'a>,
    tasks: Vec<Task>,
    pairs: Vec<(u32, Edge)>,
}

impl Builder<'_> {
    fn push(&mut self, class: Class, unit: Unit, phases: &[Phase]) -> u32 {
        let rank = self.workload.home(unit.module).map_or(ANY, |rank| rank.0 as u32);
        let time = phases.iter().map(|phase| self.workload.unit_cost(unit, *phase)).sum();
        let (acquire, release) = (Hold::Nothing, Hold::Nothing);
        self.tasks.push(Task { class, unit, rank, time, acquire, release, partner: NONE, whole: false });
        self.tasks.len() as u32 - 1
    }

    fn edge(&mut self, from: u32, to: u32, transfer: f64) {
        self.pairs.push((from, Edge { to, transfer }));
    }

    /// The activations that `first` makes and `last` reads last.
    fn hold(&mut self, first: u32, last: u32) {
        let unit = self.tasks[first as usize].unit;
        let part = self.measures.count(unit);
        let hold = if unit.module.kind() == ModuleKind::Llm { Hold::Llm(part) } else { Hold::Encoder(part) };
        self.tasks[first as usize].acquire = hold;
        self.tasks[last as usize].release = hold;
    }

    fn microbatch(&mut self, microbatch: Microbatch) {
        let workload = self.workload;
        let forwards = self.forwards(microbatch);
        let backwards = self.backwards(microbatch, &forwards);
        let (first, last) = (forwards[0], forwards[forwards.len() - 1]);
        for item in workload.items(ModuleKind::Encoder, microbatch) {
            let encode = self.push(Class::Encode, Unit::item(Module::ENCODER, item), &[Phase::Forward]);
            self.edge(encode, first, workload.transfer_time(Value::Embeds(item)));
            if let (true, Some(backward)) =
                (workload.has_backward(ModuleKind::Encoder, microbatch), backwards.first())
            {
                self.encoder_backward(encode, *backward, item);
            }
        }
        for item in workload.items(ModuleKind::Generator, microbatch) {
            let phases: &[Phase] = if workload.has_backward(ModuleKind::Generator, microbatch) {
                &[Phase::Forward, Phase::Backward]
            } else {
                &[Phase::Forward]
            };
            let draw = self.push(Class::Draw, Unit::item(Module::GENERATOR, item), phases);
            self.edge(last, draw, workload.transfer_time(Value::Cond(item)));
            if let Some(backward) = backwards.last() {
                self.edge(draw, *backward, workload.transfer_time(Value::CondGrad(item)));
            }
        }
    }

    fn encoder_backward(&mut self, encode: u32, after: u32, item: Item) {
        let backward =
            self.push(Class::EncodeBackward, Unit::item(Module::ENCODER, item), &[Phase::Backward]);
        self.edge(after, backward, self.workload.transfer_time(Value::EmbedGrad(item)));
        self.hold(encode, backward);
        self.tasks[encode as usize].partner = backward;
        self.tasks[backward as usize].partner = encode;
    }

    /// By chunk.
    fn forwards(&mut self, microbatch: Microbatch) -> Vec<u32> {
        let mut forwards: Vec<u32> = Vec::with_capacity(self.workload.chunks());
        for chunk in (0..self.workload.chunks()).map(Chunk) {
            let forward = self.push(Class::Forward, Unit::llm(chunk, microbatch), &[Phase::Forward]);
            if let Some(before) = forwards.last() {
                let time = self.workload.transfer_time(Value::Hidden { microbatch, chunk });
                self.edge(*before, forward, time);
            }
            forwards.push(forward);
        }
        forwards
    }

    /// By chunk; none where the microbatch has no backward.
    fn backwards(&mut self, microbatch: Microbatch, forwards: &[u32]) -> Vec<u32> {
        if !self.workload.has_backward(ModuleKind::Llm, microbatch) {
            return Vec::new();
        }
        let mut backwards = vec![NONE; forwards.len()];
        for chunk in (0..forwards.len()).rev() {
            let unit = Unit::llm(Chunk(chunk), microbatch);
            let backward = self.push(Class::Backward, unit, &[Phase::BackwardInput]);
            self.edge(forwards[chunk], backward, 0.0);
            if let Some(above) = backwards.get(chunk + 1).copied() {
                let value = Value::HiddenGrad { microbatch, chunk: Chunk(chunk) };
                self.edge(above, backward, self.workload.transfer_time(value));
            }
            let mut last = backward;
            if self.workload.has_weight_gradient(ModuleKind::Llm) {
                last = self.push(Class::Weight, unit, &[Phase::BackwardWeight]);
                self.edge(backward, last, 0.0);
                self.tasks[backward as usize].partner = last;
                self.tasks[last as usize].partner = backward;
            }
            self.hold(forwards[chunk], last);
            backwards[chunk] = backward;
        }
        backwards
    }
}
