//! Losses and norm of a step: known at once on the CPU, read late on a GPU, so that its queue never runs dry.

use super::TrainError;
use crate::execute::{ExecuteError, LossSums, QueuedLosses};
use bigmac_comm::{Communicator, Reduce};
use bigmac_kernels::adamw::Clip;
use bigmac_kernels::{finite, norm};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Download, Result, Tensor};

/// Sums over all ranks, the same on every rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Totals {
    /// Token loss of the step.
    pub token_loss: f64,
    /// Drawing loss of the step, weighted.
    pub drawing_loss: f64,
    /// Norm of the whole gradient.
    pub grad_norm: f64,
}

/// Lets the squares of gradients through to the optimizer, step by step, until a loss or a norm is not finite: from
/// then on weights and moments stay as they are, whatever is queued before the host learns of it.
#[derive(Debug)]
pub struct Gate {
    /// F32 `[1]`: the last squares that were let through, NaN once it is closed. None on the CPU, where the host knows
    /// before it goes on.
    squares: Option<Tensor>,
}

impl Gate {
    /// An open gate.
    ///
    /// # Errors
    /// Those of allocation.
    pub fn new(ctx: &Context) -> Result<Self> {
        let zero = || Tensor::zeros(&ctx.in_scope(scopes::OPTIMIZER), &[1], DType::F32);
        Ok(Gate { squares: ctx.is_gpu().then(zero).transpose()? })
    }

    /// What the optimizer clips by, where the host does not know the norm: by the largest norm, 0 for none.
    pub fn clip(&self, max_norm: f64) -> Option<Clip<'_>> {
        let max_norm = if max_norm > 0.0 { max_norm } else { f64::INFINITY };
        self.squares.as_ref().map(|squares| Clip { squares, max_norm })
    }
}

/// Losses and norm of a step, over all ranks.
#[derive(Debug)]
pub enum Numbers {
    /// On the CPU.
    Known(Totals),
    /// On their way from a GPU.
    Queued {
        /// This rank's losses one by one, for the case that one is not finite.
        losses: Box<QueuedLosses>,
        /// Token loss, drawing loss and squares of the gradient.
        sums: Download,
    },
}

/// What a reduction leaves beside the gradients.
#[derive(Debug)]
pub struct Reduced {
    /// Losses and norm, over all ranks.
    pub numbers: Numbers,
    /// Some rank wishes to stop after this step.
    pub stop: bool,
}

impl Numbers {
    /// On the CPU: added up in f64, together with the wish to stop.
    pub(super) fn known(
        ctx: &Context,
        comm: &dyn Communicator,
        losses: LossSums,
        gradients: &[Tensor],
        stop: bool,
    ) -> Result<Reduced, ExecuteError> {
        let squares = gradients.iter().map(|view| norm::sum_of_squares(ctx, view)).sum::<Result<f64, _>>()?;
        let values = [losses.token, losses.drawing, squares, f64::from(u8::from(stop))];
        let mut sums = Tensor::from_slice(ctx, &values, &[values.len()])?;
        comm.all_reduce(ctx, &mut sums, Reduce::Sum)?;
        let sums = sums.as_slice::<f64>()?;
        let totals = Totals { token_loss: sums[0], drawing_loss: sums[1], grad_norm: sums[2].sqrt() };
        Ok(Reduced { numbers: Numbers::Known(totals), stop: sums[3] > 0.0 })
    }

    /// On a GPU: added up there in f32, by rank. They pass the gate, and are sent to the host.
    pub(super) fn queued(
        ctx: &Context,
        comm: &dyn Communicator,
        losses: QueuedLosses,
        gradients: &[Tensor],
        gate: &mut Gate,
    ) -> Result<Self, ExecuteError> {
        let ctx = &ctx.in_scope(scopes::WORKSPACE);
        let mut squares = Tensor::zeros(ctx, &[1], DType::F32)?;
        for view in gradients {
            norm::add_sum_of_squares(ctx, view, &mut squares)?;
        }
        let mut sums = Tensor::empty(ctx, &[3], DType::F32)?;
        losses.write_sums(ctx, &mut sums)?;
        sums.write(ctx, 2, &squares)?;
        if comm.size() > 1 {
            comm.all_reduce(ctx, &mut sums, Reduce::Sum)?;
        }
        if let Some(admitted) = &mut gate.squares {
            finite::admit(ctx, &sums, admitted)?;
        }
        Ok(Numbers::Queued { losses: Box::new(losses), sums: sums.download(ctx)? })
    }

    /// What gradients are multiplied with before an optimizer step with that largest norm (0 for none), where the host
    /// knows: 1 where the device sees to it.
    ///
    /// # Errors
    /// [`TrainError::Gradient`] for a norm that is not finite.
    pub(super) fn scale(&self, step: u64, max_norm: f64) -> Result<f64, TrainError> {
        match self {
            Numbers::Known(totals) => {
                let norm = check_norm(step, totals)?;
                Ok(if max_norm > 0.0 && norm > max_norm { max_norm / norm } else { 1.0 })
            }
            Numbers::Queued { .. } => Ok(1.0),
        }
    }

    /// The totals; on a GPU it waits for them. A norm, or a sum with a loss of another rank, may not be finite.
    ///
    /// # Errors
    /// [`ExecuteError::NotFinite`] for a loss of this rank; those of the device.
    pub fn read(self, ctx: &Context) -> Result<Totals, ExecuteError> {
        match self {
            Numbers::Known(totals) => Ok(totals),
            Numbers::Queued { losses, sums } => {
                let sums: Vec<f64> = sums.wait::<f32>()?.into_iter().map(f64::from).collect();
                let [token_loss, drawing_loss, squares] = sums[..] else {
                    return Err(bigmac_runtime::Error::argument("totals", "expected 3 numbers").into());
                };
                if !(token_loss + drawing_loss).is_finite() {
                    losses.read(ctx)?;
                }
                Ok(Totals { token_loss, drawing_loss, grad_norm: squares.sqrt() })
            }
        }
    }
}

impl Totals {
    /// True when all of them are finite.
    pub(super) fn are_finite(&self) -> bool {
        [self.token_loss, self.drawing_loss, self.grad_norm].iter().all(|number| number.is_finite())
    }

    /// Checks that all of them are finite.
    ///
    /// # Errors
    /// [`TrainError::Gradient`]; that of the communicator where it is another rank whose loss is not: that rank says
    /// which.
    pub(super) fn check(&self, comm: &dyn Communicator, step: u64) -> Result<(), TrainError> {
        if !(self.token_loss + self.drawing_loss).is_finite() {
            comm.barrier()?;
            // No rank has such a loss: it is their sum that overflows.
            return Err(TrainError::Gradient { step, norm: f64::INFINITY });
        }
        check_norm(step, self).map(drop)
    }
}

fn check_norm(step: u64, totals: &Totals) -> Result<f64, TrainError> {
    let norm = totals.grad_norm;
    if norm.is_finite() { Ok(norm) } else { Err(TrainError::Gradient { step, norm }) }
}
