//! Everything that a run has learned, brought together on one rank.

use super::TrainError;
use super::optimizer::Optimizer;
use super::optimizer_state::{STATE_PARTS, UPDATES, state_name, state_spec};
use crate::model::{ModelShape, Placement, RankModules};
use bigmac_autograd::Parameters;
use bigmac_comm::{Communicator, Tag};
use bigmac_kernels::norm;
use bigmac_models::init::{ParameterSpec, find};
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};
use bigmac_schedule::Rank;
use std::collections::BTreeMap;

/// Weights and optimizer state of all modules, on the CPU. Nothing in it depends on how the model was cut.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Every parameter by its name.
    pub weights: BTreeMap<String, Tensor>,
    /// Of what learns: moments and master weights, flat, and numbers of updates, under [`state_name`].
    pub optimizer: BTreeMap<String, Tensor>,
}

/// First of the tags that a gathering counts from; far above those of values, far below those of reductions.
const FIRST_TAG: u64 = 1 << 62;

impl Snapshot {
    /// Brings everything to the first rank of `comm`, the ranks of one pipeline, which gets the snapshot; the others get
    /// `None`.
    ///
    /// `optimizers` are those of [`RankModules::parts`], in that order; leave them out when only weights are wanted.
    ///
    /// # Errors
    /// Those of the communicator and of allocation.
    pub fn gather(
        ctx: &Context,
        comm: &dyn Communicator,
        modules: &RankModules,
        optimizers: Option<&[Optimizer]>,
        shape: &ModelShape,
    ) -> Result<Option<Snapshot>, TrainError> {
        let mut snapshot = Snapshot::default();
        let host = ctx.host();
        let mut tag = FIRST_TAG;
        for (index, (kind, specs, params, _)) in modules.parts().enumerate() {
            // Rank 0 has what every rank has: of the others only what they alone hold is news.
            if comm.rank() != 0 && modules.placement().is_replicated(kind) {
                continue;
            }
            let optimizer = optimizers.and_then(|o| o.get(index));
            for spec in specs.iter().filter(|s| !s.is_copy()) {
                for (part, _) in expected(spec, shape.dtype, optimizer.is_some()) {
                    let tensor = match part.zip(optimizer) {
                        Some((part, optimizer)) => state(ctx, spec, params, (optimizer, part))?,
                        None => on_host(ctx, params.get(find(params, &spec.name)?))?,
                    };
                    if comm.rank() == 0 {
                        snapshot.put(part, spec, tensor);
                    } else {
                        comm.send(&host, tensor, 0, Tag(tag))?;
                        tag += 1;
                    }
                }
            }
        }
        if comm.rank() != 0 {
            return Ok(None);
        }
        for rank in 1..comm.size() {
            let mut tag = FIRST_TAG;
            for (kind, stage) in modules.placement().held_by(Rank(rank)) {
                for spec in shape.specs(kind, stage)?.iter().filter(|s| !s.is_copy()) {
                    for (part, wanted) in expected(spec, shape.dtype, optimizers.is_some()) {
                        let tensor = comm.recv(&host, rank, Tag(tag), &wanted)?;
                        snapshot.put(part, spec, tensor);
                        tag += 1;
                    }
                }
            }
        }
        Ok(Some(snapshot))
    }

    fn put(&mut self, part: Option<&str>, spec: &ParameterSpec, tensor: Tensor) {
        match part {
            None => self.weights.insert(spec.name.clone(), tensor),
            Some(part) => self.optimizer.insert(state_name(part, &spec.name), tensor),
        };
    }

    /// The first parameter whose norm is not a finite f32: it has a value that is not finite, or squares overflow.
    ///
    /// # Errors
    /// Those of allocation.
    pub fn overflown(&self, ctx: &Context) -> Result<Option<String>> {
        for (name, tensor) in &self.weights {
            if !norm::sum_of_squares(ctx, tensor)?.is_finite() {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }

    /// The whole model, uncut, with these weights.
    ///
    /// # Errors
    /// [`Error::Argument`] when a parameter is missing; those of allocation.
    pub fn whole_model(&self, ctx: &Context, shape: &ModelShape) -> Result<RankModules> {
        RankModules::new(ctx, shape, &Placement::whole(shape)?, 0, &|_, _, specs| {
            let mut params = Parameters::new();
            for spec in specs {
                let found = self.weights.get(&spec.source).map(|tensor| tensor.to_device(ctx)).transpose()?;
                let missing =
                    || Error::argument("snapshot", format!("parameter '{}' not found", spec.source));
                params.add(spec.name.clone(), found.ok_or_else(missing)?, spec.trainable)?;
            }
            Ok(params)
        })
    }
}

/// A part of one parameter's optimizer state in a tensor of its own on the CPU.
fn state(
    ctx: &Context,
    spec: &ParameterSpec,
    params: &Parameters,
    (optimizer, part): (&Optimizer, &str),
) -> Result<Tensor> {
    if part == UPDATES {
        let place = params.iter().position(|(_, parameter)| parameter.name() == spec.name);
        let updates = place.map_or(0, |place| optimizer.updates(place));
        // Beyond 2^32 updates nothing is left of the bias that they correct.
        let updates = u32::try_from(updates).unwrap_or(u32::MAX);
        return Tensor::from_slice(&ctx.host(), &[updates], &[1]);
    }
    let range = params.parameter(find(params, &spec.name)?).range();
    let missing = || Error::argument("snapshot", format!("optimizer state '{part}' not found"));
    let state = optimizer.part(part).ok_or_else(missing)?;
    on_host(ctx, &state.narrow(0, range.start, range.len())?)
}

fn on_host(ctx: &Context, tensor: &Tensor) -> Result<Tensor> {
    if ctx.is_gpu() { tensor.to_cpu(ctx) } else { tensor.copy(ctx) }
}

/// The weight of a parameter and, if it learns, the parts of its optimizer's state, each with its shape.
fn expected(spec: &ParameterSpec, dtype: DType, optimizer: bool) -> Vec<(Option<&'static str>, Spec)> {
    let mut list = vec![(None, Spec::new(&spec.shape, dtype))];
    if optimizer && spec.trainable {
        let parts = STATE_PARTS.into_iter().filter(|p| *p != "master" || dtype != DType::F32);
        list.extend(parts.chain([UPDATES]).map(|part| (Some(part), state_spec(part, spec))));
    }
    list
}
