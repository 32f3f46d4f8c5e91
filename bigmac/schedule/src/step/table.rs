//! The data a schedule is: for every rank a list of [`Op`]s, in the order in which the rank runs them.

use crate::names::{self, UnknownName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A rank of the pipeline, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub usize);

/// A slice of a module's layers. The LLM has ranks x v chunks in the order of its layers, which live on the ranks as the
/// workload's [`ChunkPlacement`](crate::ChunkPlacement) says: with v = 1, chunk, stage and rank are the same number. A
/// module that is not cut is `Chunk(0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chunk(pub usize);

/// A microbatch of the step, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Microbatch(pub usize);

/// One piece of a microbatch's encoder work (an image or a tile of one) or of its generator work (an image to be
/// drawn). `index` counts from 0 within the microbatch, for encoder and generator separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// The microbatch that reads the embeddings, or whose hidden states condition the drawing.
    pub microbatch: Microbatch,
    /// Position among the encoder (generator) items of that microbatch.
    pub index: usize,
}

/// What computes: one of the three modules, and which slice of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// The image encoder with its projector; works on items. Uncut, it is `Encoder(Chunk(0))`.
    Encoder(Chunk),
    /// A chunk of the LLM; works on a microbatch.
    Llm(Chunk),
    /// The image generator; works on items. Uncut, it is `Generator(Chunk(0))`.
    Generator(Chunk),
}

impl Module {
    /// The encoder, not cut.
    pub const ENCODER: Module = Module::Encoder(Chunk(0));
    /// The generator, not cut.
    pub const GENERATOR: Module = Module::Generator(Chunk(0));

    /// Which of the three modules this is a slice of.
    pub fn kind(self) -> ModuleKind {
        match self {
            Module::Encoder(_) => ModuleKind::Encoder,
            Module::Llm(_) => ModuleKind::Llm,
            Module::Generator(_) => ModuleKind::Generator,
        }
    }

    /// Which slice of the module this is.
    pub fn chunk(self) -> Chunk {
        match self {
            Module::Encoder(chunk) | Module::Llm(chunk) | Module::Generator(chunk) => chunk,
        }
    }
}

/// The three modules of a multimodal LLM, without saying which slice: memory and colours are kept by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleKind {
    /// The image encoder.
    Encoder,
    /// The language model.
    Llm,
    /// The image generator.
    Generator,
}

impl ModuleKind {
    /// All three, in the order of the data flow.
    pub const ALL: [ModuleKind; 3] = [ModuleKind::Encoder, ModuleKind::Llm, ModuleKind::Generator];

    /// A slice of this module.
    pub fn module(self, chunk: Chunk) -> Module {
        match self {
            ModuleKind::Encoder => Module::Encoder(chunk),
            ModuleKind::Llm => Module::Llm(chunk),
            ModuleKind::Generator => Module::Generator(chunk),
        }
    }

    /// The name in options, files and reports; that of serde too.
    pub fn name(self) -> &'static str {
        self.spellings().1
    }

    /// The letter of the text form.
    pub(crate) fn letter(self) -> char {
        self.spellings().0
    }

    /// What it is called in pictures.
    pub(crate) fn words(self) -> &'static str {
        self.spellings().2
    }

    fn spellings(self) -> (char, &'static str, &'static str) {
        match self {
            ModuleKind::Encoder => ('E', "encoder", "encoder"),
            ModuleKind::Llm => ('L', "llm", "LLM"),
            ModuleKind::Generator => ('G', "generator", "generator"),
        }
    }
}

impl fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ModuleKind {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<ModuleKind, UnknownName> {
        names::find("module", name, &ModuleKind::ALL, |kind| kind.name())
    }
}

/// What is done with a unit of work. A backward is either one `Backward` or a `BackwardInput` followed, where the
/// module learns, by a `BackwardWeight` (Zero Bubble, arXiv 2401.10241).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Computes outputs, and saves what the backward reads unless a `Recompute` follows in the table.
    Forward,
    /// Gradients of inputs and, where the module learns, of weights.
    Backward,
    /// Gradients of inputs only ("B").
    BackwardInput,
    /// Gradients of weights only ("W"), of a unit whose `BackwardInput` is done.
    BackwardWeight,
    /// The forward again, directly for the backward: its outputs are not sent anywhere.
    Recompute,
}

impl Phase {
    /// All five, in the order in which a unit may go through them.
    pub const ALL: [Phase; 5] =
        [Phase::Forward, Phase::Recompute, Phase::BackwardInput, Phase::Backward, Phase::BackwardWeight];

    /// The name in files and reports; that of serde too.
    pub fn name(self) -> &'static str {
        self.spellings().1
    }

    /// The letter of the text form and of torch.distributed.pipelining.
    pub(crate) fn letter(self) -> char {
        self.spellings().0
    }

    /// What it is called in messages and pictures.
    pub(crate) fn words(self) -> &'static str {
        self.spellings().2
    }

    fn spellings(self) -> (char, &'static str, &'static str) {
        match self {
            Phase::Forward => ('F', "forward", "forward"),
            Phase::Backward => ('B', "backward", "backward"),
            Phase::BackwardInput => ('I', "backward-input", "input gradient"),
            Phase::BackwardWeight => ('W', "backward-weight", "weight gradient"),
            Phase::Recompute => ('R', "recompute", "recomputation"),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an op works on: the LLM on a microbatch, encoder and generator on a list of items, which may belong to
/// several microbatches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// A whole microbatch (LLM).
    Microbatch(Microbatch),
    /// These items, in this order (encoder, generator); never empty.
    Items(Vec<Item>),
}

/// A tensor that one op produces and another consumes, perhaps on another rank. Every value has one producer and
/// one consumer; what crosses between chunks of one module names the chunk that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Value {
    /// Hidden states that LLM chunk `chunk` reads, made by chunk `chunk - 1`.
    Hidden { microbatch: Microbatch, chunk: Chunk },
    /// Gradient of the hidden states that LLM chunk `chunk` made; chunk `chunk + 1` makes it.
    HiddenGrad { microbatch: Microbatch, chunk: Chunk },
    /// The projector's output for an encoder item; LLM chunk 0 reads it.
    Embeds(Item),
    /// Its gradient, made by the backward of LLM chunk 0; only where the encoder learns.
    EmbedGrad(Item),
    /// The last LLM chunk's hidden states of the sample whose image a generator item draws.
    Cond(Item),
    /// Its gradient, made by the generator item's backward; only where something below the generator learns.
    CondGrad(Item),
    /// Hidden states of an item that encoder chunk `chunk` reads, made by chunk `chunk - 1` of a cut encoder.
    EncoderHidden { item: Item, chunk: Chunk },
    /// Gradient of the hidden states that encoder chunk `chunk` made.
    EncoderHiddenGrad { item: Item, chunk: Chunk },
    /// Hidden states of an item that generator chunk `chunk` reads, made by chunk `chunk - 1` of a cut generator.
    GeneratorHidden { item: Item, chunk: Chunk },
    /// Gradient of the hidden states that generator chunk `chunk` made.
    GeneratorHiddenGrad { item: Item, chunk: Chunk },
}

impl Value {
    /// The microbatch that the value belongs to.
    pub fn microbatch(self) -> Microbatch {
        match self {
            Value::Hidden { microbatch, .. } | Value::HiddenGrad { microbatch, .. } => microbatch,
            Value::Embeds(item)
            | Value::EmbedGrad(item)
            | Value::Cond(item)
            | Value::CondGrad(item)
            | Value::EncoderHidden { item, .. }
            | Value::EncoderHiddenGrad { item, .. }
            | Value::GeneratorHidden { item, .. }
            | Value::GeneratorHiddenGrad { item, .. } => item.microbatch,
        }
    }
}

/// One step of one rank.
///
/// Schedules write `Compute`, `Overlap` and `Step`; `lower` adds `Send` and `Recv`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Op {
    /// Runs a module on some work: its forward, its backward, or a part of it.
    Compute { module: Module, phase: Phase, work: Work },
    /// Runs the forward of one LLM chunk on a microbatch and the backward (or the input gradient, as `phase` says) of
    /// another at once, so that the one hides what the other waits for (DualPipe; DeepSeek-V3, arXiv 2412.19437, section
    /// 3.2.1). It starts when both can, and what they make is there when it ends.
    Overlap { forward: Unit, backward: Unit, phase: Phase },
    /// Starts sending a value that this rank has made. An executor may return before the receiver has it
    /// (buffered) or wait for the receiver (rendezvous): a lowered table runs under both.
    Send { value: Value, to: Rank },
    /// Receives a value. An executor may wait here, or only post the receive and wait in the op that consumes the
    /// value, which is never slower; the simulator does the latter. Between two ranks, values are received in the
    /// order in which they are sent.
    Recv { value: Value, from: Rank },
    /// Reduces gradients over the ranks that share parameters and updates the parameters: the last op of a rank.
    Step,
}

impl Op {
    /// An LLM op.
    pub fn llm(chunk: Chunk, phase: Phase, microbatch: Microbatch) -> Op {
        Op::Compute { module: Module::Llm(chunk), phase, work: Work::Microbatch(microbatch) }
    }

    /// An op of the uncut encoder on some items.
    pub fn encoder(phase: Phase, items: Vec<Item>) -> Op {
        Op::Compute { module: Module::ENCODER, phase, work: Work::Items(items) }
    }

    /// An op of the uncut generator on some items.
    pub fn generator(phase: Phase, items: Vec<Item>) -> Op {
        Op::Compute { module: Module::GENERATOR, phase, work: Work::Items(items) }
    }

    /// Whether the op computes; otherwise it is communication or `Step`.
    pub fn is_compute(&self) -> bool {
        matches!(self, Op::Compute { .. } | Op::Overlap { .. })
    }

    /// The units of work that the op runs, in order; none for communication and `Step`.
    pub fn units(&self) -> impl Iterator<Item = Unit> + '_ {
        self.runs().map(|(unit, _)| unit)
    }

    /// The units of work that the op runs, in order, with what is done with each; none for communication and `Step`.
    pub fn runs(&self) -> impl Iterator<Item = (Unit, Phase)> + '_ {
        let (whole, items) = match self {
            Op::Compute { module, phase, work: Work::Microbatch(microbatch) } => {
                let unit = Unit { module: *module, piece: Piece::Microbatch(*microbatch) };
                ([Some((unit, *phase)), None], None)
            }
            Op::Compute { module, phase, work: Work::Items(items) } => {
                ([None; 2], Some((*module, *phase, items)))
            }
            Op::Overlap { forward, backward, phase } => {
                ([Some((*forward, Phase::Forward)), Some((*backward, *phase))], None)
            }
            Op::Send { .. } | Op::Recv { .. } | Op::Step => ([None; 2], None),
        };
        let items = items.into_iter().flat_map(|(module, phase, items)| {
            items.iter().map(move |item| (Unit::item(module, *item), phase))
        });
        whole.into_iter().flatten().chain(items)
    }
}

/// The smallest piece of work that has a tape of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// A microbatch (LLM).
    Microbatch(Microbatch),
    /// An item (encoder, generator).
    Item(Item),
}

/// A unit of work: a module's chunk on a microbatch or on one item. What its forward saves for its backward is one
/// activation buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit {
    /// What runs.
    pub module: Module,
    /// On what.
    pub piece: Piece,
}

impl Unit {
    /// A chunk of the LLM on a microbatch.
    pub fn llm(chunk: Chunk, microbatch: Microbatch) -> Unit {
        Unit { module: Module::Llm(chunk), piece: Piece::Microbatch(microbatch) }
    }

    /// A chunk of encoder or generator on an item.
    pub fn item(module: Module, item: Item) -> Unit {
        Unit { module, piece: Piece::Item(item) }
    }

    /// An op that runs this unit alone.
    pub fn op(self, phase: Phase) -> Op {
        let work = match self.piece {
            Piece::Microbatch(microbatch) => Work::Microbatch(microbatch),
            Piece::Item(item) => Work::Items(vec![item]),
        };
        Op::Compute { module: self.module, phase, work }
    }

    /// The microbatch that the unit belongs to.
    pub fn microbatch(self) -> Microbatch {
        match self.piece {
            Piece::Microbatch(microbatch) => microbatch,
            Piece::Item(item) => item.microbatch,
        }
    }
}

/// A schedule, written out: `ranks[r]` is what rank `r` runs, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// One list of ops per rank.
    pub ranks: Vec<Vec<Op>>,
}

impl Table {
    /// A table of empty lists.
    pub fn empty(ranks: usize) -> Table {
        Table { ranks: vec![Vec::new(); ranks] }
    }

    /// The same with the optimizer step at the end of every rank.
    pub(crate) fn with_step(mut self) -> Table {
        self.ranks.iter_mut().for_each(|ops| ops.push(Op::Step));
        self
    }

    /// Every op with its rank, rank by rank.
    pub fn iter(&self) -> impl Iterator<Item = (Rank, &Op)> {
        self.ranks.iter().enumerate().flat_map(|(rank, ops)| ops.iter().map(move |op| (Rank(rank), op)))
    }

    /// The same with both halves of every overlap one after the other, the forward first, as a rank runs them that does
    /// one thing at a time. Whatever order the ranks' lists have to keep, they still keep it.
    pub fn without_overlaps(self) -> Table {
        let apart = |op: Op| match op {
            Op::Overlap { forward, backward, phase } => {
                [Some(forward.op(Phase::Forward)), Some(backward.op(phase))]
            }
            other => [Some(other), None],
        };
        let ranks = self.ranks.into_iter().map(|ops| ops.into_iter().flat_map(apart).flatten().collect());
        Table { ranks: ranks.collect() }
    }

    /// How many ops there are on all ranks together.
    pub fn len(&self) -> usize {
        self.ranks.iter().map(Vec::len).sum()
    }

    /// Whether no rank has anything to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the table holds communication, so that it has been lowered.
    pub fn is_lowered(&self) -> bool {
        self.iter().any(|(_, op)| matches!(op, Op::Send { .. } | Op::Recv { .. }))
    }
}
