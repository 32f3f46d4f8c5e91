//! AdamW over a module's parameters, with its state in flat buffers.

use super::optimizer_state::{STATE_PARTS, UPDATES};
use crate::config::{ParameterGroup, Train};
use bigmac_autograd::{Gradients, Parameter, Parameters};
use bigmac_kernels::adamw::{AdamW, Clip, Group, Member, State};
use bigmac_kernels::cast::cast;
use bigmac_models::init::ParameterSpec;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Result, Tensor};
use bigmac_schedule::ModuleKind;

/// First and second moments of what learns of a module, fp32 master weights where the parameters are half precision, and
/// how often each parameter was updated. Moments and masters are flat F32 buffers in the order of the parameters.
///
/// A parameter without a gradient in a step is left alone, as in `torch.optim`: it neither moves nor decays, and its
/// number of updates, which corrects the bias of its moments, stays.
#[derive(Debug)]
pub struct Optimizer {
    first: Tensor,
    second: Tensor,
    master: Option<Tensor>,
    /// By parameter: its cohort, none for a frozen one.
    cohort_of: Vec<Option<usize>>,
    cohorts: Vec<Cohort>,
}

/// Parameters that are updated at one rate and were updated as often as each other.
#[derive(Debug)]
struct Cohort {
    group: ParameterGroup,
    updates: u64,
    kernel: Group,
}

/// What an update is made with.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The optimizer's numbers.
    pub train: &'a Train,
    /// Learning rate of the step, before that of the group is scaled.
    pub lr: f64,
    /// What gradients are multiplied with first, which is how clipping by a norm that the host knows is done.
    pub grad_scale: f64,
    /// Clips by a norm that only the device knows, so that the host does not wait for it; a norm that is not finite then
    /// changes nothing.
    pub clip: Option<Clip<'a>>,
}

/// Where the state of a run that goes on comes from: a part of a parameter's; `None` where it has not learned.
pub type Stored<'a> = dyn Fn(&Context, &str, &ParameterSpec) -> Result<Option<Tensor>> + 'a;

impl Optimizer {
    /// Zero moments, and masters equal to the weights, for what learns of a module.
    ///
    /// # Errors
    /// Those of allocation.
    pub fn new(ctx: &Context, module: ModuleKind, params: &Parameters) -> Result<Self> {
        let ctx = ctx.in_scope(scopes::OPTIMIZER);
        let zeros = || Tensor::zeros(&ctx, &[params.elements()], DType::F32);
        let learning = || params.iter().map(|(_, p)| p).filter(|p| p.trainable());
        let master = if learning().any(|p| p.tensor().dtype() != DType::F32) {
            let mut master = zeros()?;
            for p in learning() {
                let weight = cast(&ctx, p.tensor(), DType::F32)?;
                master.write(&ctx, p.range().start, &weight)?;
            }
            Some(master)
        } else {
            None
        };
        let (cohort_of, cohorts) = (Vec::new(), Vec::new());
        let mut optimizer = Optimizer { first: zeros()?, second: zeros()?, master, cohort_of, cohorts };
        optimizer.count(module, params, &vec![0; params.len()]);
        Ok(optimizer)
    }

    /// The state that a checkpoint has of these parameters. One that it has none of, since it did not learn, starts as
    /// in [`Optimizer::new`].
    ///
    /// # Errors
    /// When a part is missing or of another length; those of allocation.
    pub fn resume(
        ctx: &Context,
        module: ModuleKind,
        specs: &[ParameterSpec],
        params: &Parameters,
        stored: &Stored<'_>,
    ) -> Result<Self> {
        let mut optimizer = Optimizer::new(ctx, module, params)?;
        let mut updates = vec![0; params.len()];
        for ((spec, (_, parameter)), updates) in specs.iter().zip(params.iter()).zip(&mut updates) {
            if !parameter.trainable() {
                continue;
            }
            for part in STATE_PARTS {
                let Some(state) = optimizer.part_mut(part) else { continue };
                if let Some(values) = stored(ctx, part, spec)? {
                    state.write(ctx, parameter.range().start, &values)?;
                }
            }
            if let Some(count) = stored(&ctx.host(), UPDATES, spec)? {
                *updates = count.as_slice::<u32>()?.first().copied().map_or(0, u64::from);
            }
        }
        optimizer.count(module, params, &updates);
        Ok(optimizer)
    }

    /// Sorts the parameters by what they are updated with, each after so many updates.
    fn count(&mut self, module: ModuleKind, params: &Parameters, updates: &[u64]) {
        self.cohorts.clear();
        self.cohort_of.clear();
        for ((_, parameter), &updates) in params.iter().zip(updates) {
            let group = ParameterGroup::of(module, parameter.name());
            let index = parameter.trainable().then(|| {
                let alike = |cohort: &Cohort| cohort.group == group && cohort.updates == updates;
                self.cohorts.iter().position(alike).unwrap_or_else(|| {
                    self.cohorts.push(Cohort { group, updates, kernel: Group::default() });
                    self.cohorts.len() - 1
                })
            });
            self.cohort_of.push(index);
        }
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

    /// How often a parameter was updated, by its place in the module; 0 for a frozen one.
    pub fn updates(&self, parameter: usize) -> u64 {
        let cohort =
            self.cohort_of.get(parameter).copied().flatten().and_then(|index| self.cohorts.get(index));
        cohort.map_or(0, |cohort| cohort.updates)
    }

    /// One AdamW step (Loshchilov and Hutter, arXiv 1711.05101; as `torch.optim.AdamW`) of every parameter that learns,
    /// all of which have a gradient: in a step that has none for the module, leave it out.
    ///
    /// Matrices decay, vectors and the token embedding do not.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Shared`] when a tape still holds a parameter.
    pub fn step(
        &mut self,
        ctx: &Context,
        params: &mut Parameters,
        gradients: &Gradients,
        update: &Update<'_>,
    ) -> Result<()> {
        let Update { train, lr, grad_scale, clip } = *update;
        for (index, cohort) in self.cohorts.iter_mut().enumerate() {
            cohort.updates += 1;
            let settings = AdamW {
                lr: lr * train.lr_scale[cohort.group],
                betas: [train.beta1, train.beta2],
                eps: train.epsilon,
                weight_decay: train.weight_decay,
                step: cohort.updates,
                grad_scale,
            };
            let here = params.iter_mut().zip(&self.cohort_of).filter(|(_, of)| **of == Some(index));
            let members = here.map(|(parameter, _)| Member {
                decays: decays(parameter),
                range: parameter.range(),
                weight: parameter.tensor_mut(),
            });
            let state =
                State { first: &mut self.first, second: &mut self.second, master: self.master.as_mut() };
            cohort.kernel.step(ctx, settings, clip, members, gradients.flat(), state)?;
        }
        Ok(())
    }
}

/// Rows of an embedding are learned when they are met; decay between would only forget the rare ones.
fn decays(parameter: &Parameter) -> bool {
    let name = parameter.name();
    let is_embedding = name.ends_with("embed_tokens.weight")
        || name.ends_with("position_embedding.weight")
        || name == "lm_head.weight";
    parameter.tensor().shape().len() > 1 && !is_embedding
}
