//! AdamW over a module's parameters, with its state in flat buffers.

use crate::config::Train;
use bigmac_autograd::{Gradients, Parameters};
use bigmac_kernels::adamw::{AdamW, Clip, Group, Member, State};
use bigmac_kernels::cast::cast;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Result, Tensor};

/// First and second moments of a module's parameters, and fp32 master weights where the parameters are half precision.
/// All are flat F32 buffers in the order of the parameters.
#[derive(Debug)]
pub struct Optimizer {
    first: Tensor,
    second: Tensor,
    master: Option<Tensor>,
    group: Group,
}

/// The parts of an optimizer's state that are written to checkpoints.
pub const STATE_PARTS: [&str; 3] = ["first", "second", "master"];

impl Optimizer {
    /// Zero moments, and masters equal to the weights.
    ///
    /// # Errors
    /// Those of allocation.
    pub fn new(ctx: &Context, params: &Parameters) -> Result<Self> {
        let ctx = ctx.in_scope(scopes::OPTIMIZER);
        let zeros = || Tensor::zeros(&ctx, &[params.elements()], DType::F32);
        let half = params.iter().any(|(_, p)| p.tensor().dtype() != DType::F32);
        let master = if half {
            let mut master = zeros()?;
            for (_, p) in params.iter() {
                let weight = cast(&ctx, p.tensor(), DType::F32)?;
                master.write(&ctx, p.range().start, &weight)?;
            }
            Some(master)
        } else {
            None
        };
        Ok(Optimizer { first: zeros()?, second: zeros()?, master, group: Group::default() })
    }

    /// A part of the state by its name in [`STATE_PARTS`]; `None` where the parameters need no masters.
    pub fn part(&self, name: &str) -> Option<&Tensor> {
        match name {
            "first" => Some(&self.first),
            "second" => Some(&self.second),
            _ => self.master.as_ref(),
        }
    }

    /// As [`Optimizer::part`], to be restored.
    pub fn part_mut(&mut self, name: &str) -> Option<&mut Tensor> {
        match name {
            "first" => Some(&mut self.first),
            "second" => Some(&mut self.second),
            _ => self.master.as_mut(),
        }
    }

    /// One AdamW step (Loshchilov and Hutter, arXiv 1711.05101; as `torch.optim.AdamW`) of every trainable parameter.
    ///
    /// `step` counts from 0. `grad_scale` multiplies gradients first, which is how clipping by a norm that the host
    /// knows is done; `clip` clips by a norm that only the device knows, so that the host does not wait for it, and a
    /// norm that is not finite then changes nothing. Matrices decay, vectors and the token embedding do not.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Shared`] when a tape still holds a parameter.
    pub fn step(
        &mut self,
        ctx: &Context,
        params: &mut Parameters,
        gradients: &Gradients,
        train: &Train,
        lr: f64,
        step: u64,
        grad_scale: f64,
        clip: Option<Clip<'_>>,
    ) -> Result<()> {
        let settings = AdamW {
            lr,
            betas: [train.beta1, train.beta2],
            eps: train.epsilon,
            weight_decay: train.weight_decay,
            step: step + 1,
            grad_scale,
        };
        let members = params.iter_mut().filter(|p| p.trainable()).map(|parameter| Member {
            decays: parameter.tensor().shape().len() > 1 && !is_embedding(parameter.name()),
            range: parameter.range(),
            weight: parameter.tensor_mut(),
        });
        let state = State { first: &mut self.first, second: &mut self.second, master: self.master.as_mut() };
        self.group.step(ctx, settings, clip, members, gradients.flat(), state)
    }
}

/// Rows of an embedding are learned when they are met; decay between would only forget the rare ones.
fn is_embedding(name: &str) -> bool {
    name.ends_with("embed_tokens.weight")
        || name.ends_with("position_embedding.weight")
        || name == "lm_head.weight"
}
