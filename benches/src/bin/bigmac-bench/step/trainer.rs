//! The training loop. It never waits for the device: losses and norms stay there until all steps are through.

use super::clock::{Clock, Moment};
use super::ledger::{Ledger, Observed, Phase};
use super::net::{Net, Run};
use super::sizes::{Module, Sizes};
use super::{generator, llm};
use anyhow::ensure;
use bigmac::config::Train;
use bigmac::train::{Optimizer, Update};
use bigmac_autograd::{Gradients, Observer, Parameters};
use bigmac_kernels::adamw::Clip;
use bigmac_kernels::norm::add_sum_of_squares;
use bigmac_runtime::{Context, DType, Tensor};
use bigmac_schedule::ModuleKind;
use std::sync::Arc;
use std::time::Instant;

/// Low enough for a network of any size to learn from the first step on.
const RATE: f64 = 1e-4;

/// A network in training.
#[derive(Debug)]
pub struct Trainer {
    ctx: Context,
    clock: Clock,
    net: Box<dyn Net>,
    params: Parameters,
    gradients: Gradients,
    optimizer: Optimizer,
    settings: Train,
    microbatches: usize,
}

/// What is read when a step is over.
#[derive(Debug)]
struct Results {
    losses: Vec<Tensor>,
    squares: Tensor,
}

/// Steps that were timed.
#[derive(Debug)]
pub struct Timed {
    /// Seconds of each, from the end of the one before it on.
    pub seconds: Vec<f64>,
    /// Of them, until the first operators were through.
    pub first: Vec<f64>,
    /// Seconds until each was queued.
    pub issued: Vec<f64>,
    /// Kernels that were launched in each; none on the CPU.
    pub launches: Option<f64>,
    /// Loss of each.
    pub losses: Vec<f64>,
    /// Norm of the gradients of each.
    pub norms: Vec<f64>,
}

impl Trainer {
    /// A network of those sizes, with random weights and data on the context's device.
    ///
    /// # Errors
    /// Those of the model and of allocation.
    pub fn new(ctx: &Context, sizes: &Sizes, dtype: DType) -> anyhow::Result<Trainer> {
        let (net, params) = build(ctx, sizes, dtype)?;
        let kind = match sizes.module()? {
            Module::Llm(_) => ModuleKind::Llm,
            Module::Generator(_) => ModuleKind::Generator,
        };
        Ok(Trainer {
            gradients: Gradients::new(ctx, &params)?,
            optimizer: Optimizer::new(ctx, kind, &params)?,
            ctx: ctx.clone(),
            clock: Clock::new(ctx.gpu()),
            net,
            params,
            settings: Train::default(),
            microbatches: sizes.microbatches,
        })
    }

    /// Parameters of the network, those that nothing reads included.
    pub fn parameters(&self) -> usize {
        self.params.iter().map(|(_, parameter)| parameter.tensor().len()).sum()
    }

    /// Queues a step; calls `began` when its first operators are queued.
    fn step(
        &mut self,
        ledger: Option<&Arc<Ledger>>,
        began: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Results> {
        let ctx = &self.ctx;
        let observer: Option<Arc<dyn Observer>> = ledger.map(|ledger| Arc::clone(ledger) as _);
        self.gradients.begin_step();
        let mut losses = Vec::with_capacity(self.microbatches);
        for microbatch in 0..self.microbatches {
            let later: &mut dyn FnMut() -> anyhow::Result<()> = &mut || Ok(());
            let mut run = Run {
                ctx,
                params: &self.params,
                gradients: &mut self.gradients,
                observer: observer.as_ref(),
                began: if microbatch == 0 { &mut *began } else { later },
            };
            losses.push(self.net.run(&mut run, microbatch)?);
        }
        self.gradients.finish_step()?;
        let mut squares = Tensor::zeros(ctx, &[1], DType::F32)?;
        add_sum_of_squares(ctx, self.gradients.flat(), &mut squares)?;
        let write = |operator, bytes| {
            if let Some(ledger) = ledger {
                ledger.write(operator, Phase::Optimizer, 0.0, bytes);
            }
        };
        write("gradient norm", self.gradients.flat().spec().bytes() as f64);
        let clip = Clip { squares: &squares, max_norm: self.settings.clip };
        let (params, gradients) = (&mut self.params, &self.gradients);
        let update = Update { train: &self.settings, lr: RATE, grad_scale: 1.0, clip: Some(clip) };
        self.optimizer.step(ctx, params, gradients, &update)?;
        write("adamw", self.update_bytes());
        Ok(Results { losses, squares })
    }

    /// Bytes that AdamW reads and writes: the gradient once, moments and whatever weights there are twice, but
    /// weights that are rounded masters only once.
    fn update_bytes(&self) -> f64 {
        let learning = self.params.iter().map(|(_, p)| p).filter(|p| p.trainable());
        let weights: usize = learning.map(|p| p.tensor().spec().bytes()).sum();
        let states = ["first", "second", "master"].iter().filter_map(|part| self.optimizer.part(part));
        let states: usize = states.map(|state| 2 * state.spec().bytes()).sum();
        let weights = if self.optimizer.part("master").is_some() { weights } else { 2 * weights };
        (self.gradients.flat().spec().bytes() + states + weights) as f64
    }

    /// Takes steps that are neither measured nor waited for: the first step that is measured follows as the others do.
    ///
    /// # Errors
    /// Those of the operators.
    pub fn warm_up(&mut self, steps: usize) -> anyhow::Result<()> {
        for _ in 0..steps {
            self.step(None, &mut || Ok(()))?;
        }
        Ok(())
    }

    /// Takes steps and times them, as they are and one after the other.
    ///
    /// # Errors
    /// Those of the operators and the driver; a loss or norm that is not finite.
    pub fn time(&mut self, steps: usize) -> anyhow::Result<Timed> {
        let clock = self.clock.clone();
        let launches = |trainer: &Trainer| trainer.ctx.gpu().map(|gpu| gpu.launches());
        let (mut results, mut issued) = (Vec::new(), Vec::new());
        let mut moments: Vec<[Moment; 2]> = Vec::new();
        let before = launches(self);
        let begin = clock.now()?;
        for _ in 0..steps {
            let host = Instant::now();
            let mut first = None;
            results.push(self.step(None, &mut || {
                first = Some(clock.now()?);
                Ok(())
            })?);
            if let Some(first) = first {
                moments.push([first, clock.now()?]);
            }
            issued.push(host.elapsed().as_secs_f64());
        }
        clock.wait()?;
        let launches = launches(self).zip(before);
        let launches = launches.map(|(after, before)| (after - before) as f64 / steps as f64);
        let (mut seconds, mut firsts) = (Vec::new(), Vec::new());
        let mut before = begin;
        for [first, end] in moments {
            firsts.push(clock.seconds(&before, &first)?);
            seconds.push(clock.seconds(&before, &end)?);
            clock.forget(first);
            clock.forget(std::mem::replace(&mut before, end));
        }
        clock.forget(before);
        let (losses, norms) = self.read(&results)?;
        Ok(Timed { seconds, first: firsts, issued, launches, losses, norms })
    }

    fn read(&self, results: &[Results]) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let sum = |tensor: &Tensor| -> anyhow::Result<f64> {
            Ok(tensor.to_vec::<f32>(&self.ctx)?.into_iter().map(f64::from).sum())
        };
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for (step, result) in results.iter().enumerate() {
            let loss = result.losses.iter().map(sum).sum::<anyhow::Result<f64>>()?;
            let norm = sum(&result.squares)?.sqrt();
            ensure!(
                loss.is_finite() && norm.is_finite(),
                "measured step {step} has loss {loss} and a gradient of norm {norm}"
            );
            losses.push(loss);
            norms.push(norm);
        }
        Ok((losses, norms))
    }

    /// Takes one step and writes down every operator.
    ///
    /// # Errors
    /// Those of the operators and the driver.
    pub fn observe(&mut self) -> anyhow::Result<Observed> {
        let ledger = Ledger::new(&self.clock)?;
        self.step(Some(&ledger), &mut || {
            ledger.begun();
            Ok(())
        })?;
        self.clock.wait()?;
        Ok(ledger.close()?)
    }
}

/// The network of those sizes and its parameters, random.
///
/// # Errors
/// For sizes that the models do not take; those of allocation.
fn build(ctx: &Context, sizes: &Sizes, dtype: DType) -> anyhow::Result<(Box<dyn Net>, Parameters)> {
    match sizes.module()? {
        Module::Llm(described) => {
            let (net, params) = llm::build(ctx, sizes, described, dtype)?;
            Ok((Box::new(net), params))
        }
        Module::Generator(described) => {
            let (net, params) = generator::build(ctx, sizes, described, dtype)?;
            Ok((Box::new(net), params))
        }
    }
}
