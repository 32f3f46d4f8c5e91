//! The optimizer's step over many parameters, and the norms that it clips by.

use super::super::case::{Case, Ready, Subject};
use super::super::compare::{Tolerance, Values, values};
use super::super::data::Noise;
use super::Family;
use bigmac_kernels::adamw::{AdamW, Clip, Group, Member, State};
use bigmac_kernels::norm::add_sum_of_squares;
use bigmac_runtime::{Context, DType, Tensor};

pub(super) const FAMILY: Family = Family {
    name: "optimizer",
    dims: &["elements"],
    real: &[("100 million parameters", &[100_000_000])],
    small: &[&[5003]],
    cases,
};

fn cases(extents: &[usize], dtype: DType) -> anyhow::Result<Vec<Case>> {
    let &[elements] = extents else { return Ok(Vec::new()) };
    Ok(vec![
        Case::new("adamw", "step", dtype, Step { elements, dtype }).tolerance(Tolerance(4e-3)),
        Case::new("sum_of_squares", "forward", DType::F32, Squares { elements }),
    ])
}

const ADAMW: AdamW =
    AdamW { lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, step: 10, grad_scale: 1.0 };
const MAX_NORM: f64 = 1.0;
/// Elements of a parameter: about those of a layer's matrix.
const PARAMETER: usize = 1 << 22;

/// Weights of `dtype`, with masters where that is not F32, clipped by a norm on the device.
struct Step {
    elements: usize,
    dtype: DType,
}

/// Weights, then gradients, moments and masters as flat buffers.
struct Buffers {
    weights: Vec<Tensor>,
    gradients: Tensor,
    first: Tensor,
    second: Tensor,
    master: Option<Tensor>,
    squares: Tensor,
    group: Group,
}

impl Buffers {
    /// A copy of these, where `ctx` runs.
    fn copy(&self, ctx: &Context) -> anyhow::Result<Buffers> {
        let copy = |tensor: &Tensor| -> anyhow::Result<Tensor> {
            Ok(if tensor.device() == ctx.device() { tensor.copy(ctx)? } else { tensor.to_device(ctx)? })
        };
        Ok(Buffers {
            weights: self.weights.iter().map(copy).collect::<anyhow::Result<_>>()?,
            gradients: copy(&self.gradients)?,
            first: copy(&self.first)?,
            second: copy(&self.second)?,
            master: self.master.as_ref().map(copy).transpose()?,
            squares: copy(&self.squares)?,
            group: Group::default(),
        })
    }

    fn step(&mut self, ctx: &Context) -> anyhow::Result<()> {
        let mut end = 0;
        let members = self.weights.iter_mut().map(|weight| {
            let range = end..end + weight.len();
            end = range.end;
            Member { weight, range, decays: true }
        });
        let state = State { first: &mut self.first, second: &mut self.second, master: self.master.as_mut() };
        let clip = Some(Clip { squares: &self.squares, max_norm: MAX_NORM });
        Ok(self.group.step(ctx, ADAMW, clip, members, &self.gradients, state)?)
    }

    fn results(&self, ctx: &Context) -> anyhow::Result<Values> {
        let weights = self.weights.iter().enumerate().map(|(i, w)| (format!("weight {i}"), w));
        let state = [("first moments", &self.first), ("second moments", &self.second)];
        let state = state.into_iter().chain(self.master.as_ref().map(|m| ("masters", m)));
        let all = weights.chain(state.map(|(name, tensor)| (name.to_owned(), tensor)));
        all.map(|(name, tensor)| Ok((name, values(ctx, tensor)?))).collect()
    }
}

impl Subject for Step {
    fn prepare<'a>(&'a self, ctx: &'a Context, noise: &'a Noise) -> anyhow::Result<Box<dyn Ready + 'a>> {
        let (len, f32) = ([self.elements], DType::F32);
        let starts = (0..self.elements).step_by(PARAMETER);
        let lengths = starts.map(|start| PARAMETER.min(self.elements - start));
        let weights = lengths.map(|len| noise.tensor(ctx, &[len], self.dtype, 0.02));
        let gradients = noise.tensor(ctx, &len, f32, 1e-3)?;
        let mut squares = Tensor::zeros(ctx, &[1], f32)?;
        add_sum_of_squares(ctx, &gradients, &mut squares)?;
        let buffers = Buffers {
            weights: weights.collect::<anyhow::Result<_>>()?,
            gradients,
            first: noise.tensor(ctx, &len, f32, 1e-3)?,
            // Second moments as they are: above 0.
            second: noise.squares(ctx, &len, 1e-6)?,
            master: (self.dtype != f32).then(|| noise.tensor(ctx, &len, f32, 0.02)).transpose()?,
            squares,
            group: Group::default(),
        };
        Ok(Box::new(StepReady { subject: self, ctx, buffers }))
    }
}

struct StepReady<'a> {
    subject: &'a Step,
    ctx: &'a Context,
    buffers: Buffers,
}

impl Ready for StepReady<'_> {
    fn reference(&mut self, cpu: &Context) -> anyhow::Result<Values> {
        let mut there = self.buffers.copy(cpu)?;
        there.step(cpu)?;
        there.results(cpu)
    }

    fn check(&mut self, _variant: Option<u32>) -> anyhow::Result<Values> {
        let mut copy = self.buffers.copy(self.ctx)?;
        copy.step(self.ctx)?;
        copy.results(self.ctx)
    }

    fn run(&mut self, _variant: Option<u32>, _set: usize) -> anyhow::Result<()> {
        self.buffers.step(self.ctx)
    }

    fn sets(&self) -> usize {
        1
    }

    fn bytes(&self) -> f64 {
        // Gradient and moments are read, moments written; a master is read and written and a weight beside it
        // written, else the weight is both.
        let (f32, weight) = (DType::F32.size(), self.subject.dtype.size());
        let weight = if self.buffers.master.is_some() { 2 * f32 + weight } else { 2 * weight };
        (self.subject.elements * (5 * f32 + weight)) as f64
    }
}

/// The sum of squares of a flat F32 buffer.
struct Squares {
    elements: usize,
}

struct SquaresReady<'a> {
    ctx: &'a Context,
    sets: Vec<Tensor>,
    sum: Tensor,
}

impl Subject for Squares {
    fn prepare<'a>(&'a self, ctx: &'a Context, noise: &'a Noise) -> anyhow::Result<Box<dyn Ready + 'a>> {
        let sets = noise.sets((self.elements * DType::F32.size()) as f64);
        let tensor = |_| noise.tensor(ctx, &[self.elements], DType::F32, 1.0);
        let sets = (0..sets).map(tensor).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Box::new(SquaresReady { ctx, sets, sum: Tensor::zeros(ctx, &[1], DType::F32)? }))
    }
}

impl SquaresReady<'_> {
    fn sum(&self, ctx: &Context, x: &Tensor) -> anyhow::Result<Values> {
        let mut sum = Tensor::zeros(ctx, &[1], DType::F32)?;
        add_sum_of_squares(ctx, x, &mut sum)?;
        Ok(vec![("sum".into(), values(ctx, &sum)?)])
    }
}

impl Ready for SquaresReady<'_> {
    fn reference(&mut self, cpu: &Context) -> anyhow::Result<Values> {
        self.sum(cpu, &self.sets[0].to_cpu(self.ctx)?)
    }

    fn check(&mut self, _variant: Option<u32>) -> anyhow::Result<Values> {
        self.sum(self.ctx, &self.sets[0])
    }

    fn run(&mut self, _variant: Option<u32>, set: usize) -> anyhow::Result<()> {
        Ok(add_sum_of_squares(self.ctx, &self.sets[set], &mut self.sum)?)
    }

    fn sets(&self) -> usize {
        self.sets.len()
    }

    fn bytes(&self) -> f64 {
        self.sets.first().map_or(0.0, |x| (x.len() * x.dtype().size()) as f64)
    }
}
