//! Losses of a step: known as soon as they are computed on the CPU, left on a GPU until they are read.

use super::error::ExecuteError;
use bigmac_kernels::Operator;
use bigmac_kernels::cast::cast;
use bigmac_kernels::sum::Sum;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Result, Tensor};
use bigmac_schedule::{Rank, Unit};

/// Which part of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossPart {
    /// Cross-entropy of tokens.
    Token,
    /// Squared error of the drawing's velocity.
    Drawing,
}

impl LossPart {
    /// The name in errors and metrics.
    pub fn name(self) -> &'static str {
        match self {
            LossPart::Token => "token",
            LossPart::Drawing => "drawing",
        }
    }
}

/// Sums of a rank's losses, as they are: not to be divided any more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Token losses; the step's token loss is the sum over ranks.
    pub token: f64,
    /// The same for drawings, weighted by lambda.
    pub drawing: f64,
}

impl LossSums {
    fn add(&mut self, part: LossPart, value: f64) {
        match part {
            LossPart::Token => self.token += value,
            LossPart::Drawing => self.drawing += value,
        }
    }
}

/// The losses that a rank has computed in a step.
#[derive(Debug)]
pub enum Losses {
    /// On the CPU: all of them are finite.
    Known(LossSums),
    /// On a GPU.
    Queued(QueuedLosses),
}

/// Losses on a GPU that may not have been computed yet.
#[derive(Debug)]
pub struct QueuedLosses {
    step: u64,
    rank: Rank,
    /// F32: all token losses, then all losses of drawings.
    values: Tensor,
    tokens: usize,
    /// In the order of the ops: part and microbatch of a loss, and its place in `values`.
    places: Vec<(LossPart, usize, usize)>,
}

impl Losses {
    /// Sums of the losses; waits for the device.
    ///
    /// # Errors
    /// [`ExecuteError::NotFinite`] for the first that is not; those of the device.
    pub fn read(&self, ctx: &Context) -> Result<LossSums, ExecuteError> {
        match self {
            Losses::Known(sums) => Ok(*sums),
            Losses::Queued(losses) => losses.read(ctx),
        }
    }
}

impl QueuedLosses {
    /// Writes the sums of token losses and of losses of drawings to the first two elements of `to` (F32), without
    /// waiting for the device.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn write_sums(&self, ctx: &Context, to: &mut Tensor) -> Result<()> {
        let parts = [(0, self.tokens), (self.tokens, self.values.len() - self.tokens)];
        for (place, (start, len)) in parts.into_iter().enumerate() {
            let values = self.values.narrow(0, start, len)?;
            to.write(ctx, place, &Sum.compute(ctx, &[&values], &[])?)?;
        }
        Ok(())
    }

    /// See [`Losses::read`].
    ///
    /// # Errors
    /// As [`Losses::read`].
    pub fn read(&self, ctx: &Context) -> Result<LossSums, ExecuteError> {
        let mut sums = LossSums::default();
        let values = if self.places.is_empty() { Vec::new() } else { self.values.to_vec::<f32>(ctx)? };
        for &(part, microbatch, place) in &self.places {
            let value = values.get(place).copied().map_or(0.0, f64::from);
            check(self.step, self.rank, part, microbatch, value)?;
            sums.add(part, value);
        }
        Ok(sums)
    }
}

/// Takes the losses of a rank's units, one after the other.
pub(super) struct LossCounter {
    step: u64,
    rank: Rank,
    known: LossSums,
    /// Those on a device.
    queued: Vec<(LossPart, usize, Tensor)>,
}

impl LossCounter {
    pub fn new(step: u64, rank: Rank) -> Self {
        LossCounter { step, rank, known: LossSums::default(), queued: Vec::new() }
    }

    /// Counts a loss of `unit`.
    pub fn count(
        &mut self,
        ctx: &Context,
        unit: Unit,
        part: LossPart,
        loss: Tensor,
    ) -> Result<(), ExecuteError> {
        let microbatch = unit.microbatch().0;
        if ctx.is_gpu() {
            // The host does not wait for it. Until it is read it does not count as an activation.
            loss.move_to_scope(&ctx.memory().scope(scopes::WORKSPACE))?;
            self.queued.push((part, microbatch, loss));
            return Ok(());
        }
        let value = cast(ctx, &loss, DType::F64)?.as_slice::<f64>()?.iter().sum::<f64>();
        check(self.step, self.rank, part, microbatch, value)?;
        self.known.add(part, value);
        Ok(())
    }

    /// All of them.
    pub fn finish(self, ctx: &Context) -> Result<Losses> {
        if !ctx.is_gpu() {
            return Ok(Losses::Known(self.known));
        }
        let tokens = self.queued.iter().filter(|(part, ..)| *part == LossPart::Token).count();
        let ctx = ctx.in_scope(scopes::WORKSPACE);
        let mut values = Tensor::empty(&ctx, &[self.queued.len()], DType::F32)?;
        let (mut token, mut drawing) = (0, tokens);
        let mut places = Vec::with_capacity(self.queued.len());
        for (part, microbatch, loss) in self.queued {
            let next = if part == LossPart::Token { &mut token } else { &mut drawing };
            values.write(&ctx, *next, &loss)?;
            places.push((part, microbatch, *next));
            *next += 1;
        }
        Ok(Losses::Queued(QueuedLosses { step: self.step, rank: self.rank, values, tokens, places }))
    }
}

fn check(step: u64, rank: Rank, part: LossPart, microbatch: usize, value: f64) -> Result<(), ExecuteError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(ExecuteError::NotFinite { step, part: part.name(), value, rank: rank.0, microbatch })
}
