//! Any operator as a subject: its forward, or its backward, on random data.

use super::case::{Ready, Subject, Variant};
use super::compare::{Values, values, widened};
use super::data::Noise;
use anyhow::Context as _;
use bigmac_kernels::{Backward, Call, Need, Operator, Saved, WeightGrad};
use bigmac_runtime::{Context, DType, Tensor};
use std::collections::HashSet;
use std::sync::Arc;

/// What an input holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Normal numbers; its gradient is wanted.
    Activation,
    /// Normal numbers without a gradient.
    Constant,
    /// Normal numbers in the accumulator dtype, without a gradient.
    Table,
    /// Whole numbers below that.
    Ids(u32),
}

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Outputs, and what is saved.
    Forward,
    /// All gradients.
    Backward,
    /// Gradients of the inputs.
    Inputs,
    /// Gradients of the weights.
    Weights,
}

/// A slice of one dimension: dimension, start, length.
pub type Slice = (usize, usize, usize);

/// Results that can be computed by themselves on the CPU, where computing all would take too long.
pub struct Part {
    /// The operator on the part.
    pub operator: Arc<dyn Operator>,
    /// The part of each input.
    pub inputs: Vec<Option<Slice>>,
    /// The part of each weight, and of its gradient.
    pub weights: Vec<Option<Slice>>,
    /// The part of the output, and of its gradient.
    pub output: Option<Slice>,
}

/// What of an operator is compared with the CPU's.
pub enum Checked {
    /// Every result.
    Whole,
    /// That part of every result.
    Part(Part),
    /// Every result at another shape, in the place of this one.
    Instead(Box<OperatorSubject>),
}

/// An operator with the shapes of its arguments.
pub struct OperatorSubject {
    /// The operator.
    pub operator: Arc<dyn Operator>,
    /// Its inputs.
    pub inputs: Vec<(Vec<usize>, Kind)>,
    /// Its weights.
    pub weights: Vec<Vec<usize>>,
    /// What is run.
    pub pass: Pass,
    /// The dtype of activations and weights.
    pub dtype: DType,
    /// What is compared.
    pub checked: Checked,
    /// Other ways to compute it, by the numbers of their variants.
    pub alternatives: Vec<(Variant, Arc<dyn Operator>)>,
    /// Bytes that a run moves, where they are not those of all arguments and results.
    pub bytes: Option<f64>,
    /// Rows, one to a line of every input, do not know of each other.
    by_rows: bool,
}

impl OperatorSubject {
    /// An operator on activations of these shapes, all of whose results are compared.
    pub fn new(operator: impl Operator + 'static, pass: Pass, dtype: DType, inputs: &[&[usize]]) -> Self {
        OperatorSubject {
            operator: Arc::new(operator),
            inputs: inputs.iter().map(|shape| (shape.to_vec(), Kind::Activation)).collect(),
            weights: Vec::new(),
            pass,
            dtype,
            checked: Checked::Whole,
            alternatives: Vec::new(),
            bytes: None,
            by_rows: false,
        }
    }

    /// The same with weights.
    pub fn weights(self, weights: &[&[usize]]) -> Self {
        OperatorSubject { weights: weights.iter().map(|shape| shape.to_vec()).collect(), ..self }
    }

    /// The same with input number `input` of another kind.
    pub fn kind(mut self, input: usize, kind: Kind) -> Self {
        if let Some((_, old)) = self.inputs.get_mut(input) {
            *old = kind;
        }
        self
    }

    /// The same, compared in part.
    pub fn checked(self, checked: Checked) -> Self {
        OperatorSubject { checked, ..self }
    }

    /// The same for an operator whose rows do not know of each other, one to a line of every input: where there are
    /// very many elements, the last rows are compared.
    pub fn by_rows(mut self) -> Self {
        const MANY: usize = 1 << 28;
        self.by_rows = true;
        if self.inputs.iter().any(|(shape, _)| shape.iter().product::<usize>() >= MANY) {
            self.compare_last_rows();
        }
        self
    }

    fn compare_last_rows(&mut self) {
        const COMPARED: usize = 64;
        let rows = self.inputs.first().and_then(|(shape, _)| shape.first().copied()).unwrap_or(0);
        let last = Some((0, rows.saturating_sub(COMPARED), rows.min(COMPARED)));
        let inputs = vec![last; self.inputs.len()];
        let weights = vec![None; self.weights.len()];
        self.checked = Checked::Part(Part { operator: self.operator.clone(), inputs, weights, output: last });
    }

    /// The same, with other ways to compute it.
    pub fn alternatives(self, ways: impl IntoIterator<Item = (Variant, Arc<dyn Operator>)>) -> Self {
        OperatorSubject { alternatives: ways.into_iter().collect(), ..self }
    }

    /// The same, with so many bytes to a run.
    pub fn bytes(self, bytes: f64) -> Self {
        OperatorSubject { bytes: Some(bytes), ..self }
    }

    /// What is compared of it, in F32.
    fn compared(&self) -> OperatorSubject {
        let cut = |shape: &[usize], slice: Option<&Option<Slice>>| {
            let mut shape = shape.to_vec();
            if let Some(&Some((dim, _, len))) = slice {
                shape[dim] = len;
            }
            shape
        };
        let part = self.part();
        let inputs = self.inputs.iter().enumerate();
        let weights = self.weights.iter().enumerate();
        OperatorSubject {
            operator: part.map_or(&self.operator, |p| &p.operator).clone(),
            inputs: inputs
                .map(|(i, (shape, kind))| (cut(shape, part.and_then(|p| p.inputs.get(i))), *kind))
                .collect(),
            weights: weights.map(|(i, shape)| cut(shape, part.and_then(|p| p.weights.get(i)))).collect(),
            pass: self.pass,
            dtype: DType::F32,
            checked: Checked::Whole,
            alternatives: Vec::new(),
            bytes: None,
            by_rows: false,
        }
    }

    fn part(&self) -> Option<&Part> {
        match &self.checked {
            Checked::Part(part) => Some(part),
            _ => None,
        }
    }

    fn needs(&self) -> (Vec<bool>, Vec<bool>) {
        let inputs = self.inputs.iter().map(|(_, kind)| matches!(kind, Kind::Activation)).collect();
        (inputs, vec![true; self.weights.len()])
    }

    fn ready<'a>(&'a self, ctx: &'a Context, noise: &Noise) -> anyhow::Result<OperatorReady<'a>> {
        let input = |(shape, kind): &(Vec<usize>, Kind)| match *kind {
            Kind::Activation | Kind::Constant => noise.tensor(ctx, shape, self.dtype, 1.0),
            Kind::Table => noise.tensor(ctx, shape, self.dtype.accumulator(), 1.0),
            Kind::Ids(below) => noise.integers(ctx, shape, below),
        };
        let weight = |shape: &Vec<usize>| {
            // As large as trained weights are: outputs neither vanish nor saturate.
            let factor = shape.last().map_or(1.0, |&width| (width as f32).sqrt().recip());
            noise.tensor(ctx, shape, self.dtype, factor)
        };
        let gradient = |shape: &Vec<usize>| {
            Tensor::zeros(ctx, &[shape.iter().product()], self.dtype.accumulator())
                .map_err(anyhow::Error::from)
        };
        let mut ready = OperatorReady {
            subject: self,
            ctx,
            weights: self.weights.iter().map(weight).collect::<anyhow::Result<_>>()?,
            gradients: self.weights.iter().map(gradient).collect::<anyhow::Result<_>>()?,
            sets: Vec::new(),
            bytes: 0.0,
            instead: None,
        };
        let mut wanted = 1;
        while ready.sets.len() < wanted {
            let inputs = self.inputs.iter().map(input).collect::<anyhow::Result<Vec<_>>>()?;
            let forwarded = ready.forward(&*ready.subject.operator, &inputs)?;
            let output = |y: &Tensor| noise.tensor(ctx, y.shape(), y.dtype(), 1.0).map(Some);
            let grads = forwarded.outputs.iter().map(output).collect::<anyhow::Result<_>>()?;
            if ready.sets.is_empty() {
                ready.bytes = match self.bytes {
                    Some(bytes) => bytes,
                    None => ready.count(&inputs, &forwarded),
                };
                wanted = noise.sets(ready.bytes);
            }
            ready.sets.push(Set { inputs, grads, kept: Kept::of(self.pass, forwarded) });
        }
        if let Checked::Instead(other) = &self.checked {
            ready.instead = Some(Box::new(other.ready(ctx, noise)?));
        }
        Ok(ready)
    }
}

impl Subject for OperatorSubject {
    fn variants(&self, _ctx: &Context) -> Vec<Variant> {
        self.alternatives.iter().map(|(variant, _)| variant.clone()).collect()
    }

    fn sample(&mut self) {
        if self.by_rows && matches!(self.checked, Checked::Whole) {
            self.compare_last_rows();
        }
    }

    fn prepare<'a>(&'a self, ctx: &'a Context, noise: &'a Noise) -> anyhow::Result<Box<dyn Ready + 'a>> {
        Ok(Box::new(self.ready(ctx, noise)?))
    }
}

/// One set of buffers. The results of its last run stay until its next: each run then writes to other memory than the
/// one before.
struct Set {
    inputs: Vec<Tensor>,
    grads: Vec<Option<Tensor>>,
    kept: Kept,
}

/// The results of a forward: outputs, and what it saved for the backward.
struct Recorded {
    outputs: Vec<Tensor>,
    saved: Saved,
}

enum Kept {
    Forwarded(Recorded),
    /// What the forward saved, and gradients of the inputs.
    Gradients(Saved, Vec<Option<Tensor>>),
}

impl Kept {
    fn of(pass: Pass, forwarded: Recorded) -> Kept {
        match pass {
            Pass::Forward => Kept::Forwarded(forwarded),
            _ => Kept::Gradients(forwarded.saved, Vec::new()),
        }
    }
}

struct OperatorReady<'a> {
    subject: &'a OperatorSubject,
    ctx: &'a Context,
    weights: Vec<Tensor>,
    /// Flat, of each weight.
    gradients: Vec<Tensor>,
    sets: Vec<Set>,
    bytes: f64,
    instead: Option<Box<OperatorReady<'a>>>,
}

fn sliced(tensor: &Tensor, slice: Option<&Option<Slice>>) -> anyhow::Result<Tensor> {
    match slice {
        Some(&Some((dim, start, len))) => Ok(tensor.narrow(dim, start, len)?),
        _ => Ok(tensor.clone()),
    }
}

fn unique_bytes<'t>(tensors: impl IntoIterator<Item = &'t Tensor>) -> f64 {
    let mut seen = HashSet::new();
    let each = tensors.into_iter().filter(|t| seen.insert(t.storage_id()));
    each.map(|t| (t.len() * t.dtype().size()) as f64).sum()
}

impl OperatorReady<'_> {
    fn forward(&self, operator: &dyn Operator, inputs: &[Tensor]) -> anyhow::Result<Recorded> {
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let weights: Vec<&Tensor> = self.weights.iter().collect();
        let (need_inputs, need_weights) = self.subject.needs();
        let need = Need { inputs: &need_inputs, weights: &need_weights };
        let (outputs, saved) =
            operator.record(self.ctx, &Call { inputs: &inputs, weights: &weights, need })?;
        Ok(Recorded { outputs: outputs.into_iter().collect(), saved })
    }

    /// Bytes of all arguments and results.
    fn count(&self, inputs: &[Tensor], forwarded: &Recorded) -> f64 {
        let pass = self.subject.pass;
        if pass == Pass::Forward {
            let (outputs, saved) = (&forwarded.outputs, &forwarded.saved);
            return unique_bytes(inputs.iter().chain(&self.weights).chain(outputs).chain(saved));
        }
        // An output's gradient is as large as the output.
        let read = unique_bytes(&forwarded.saved) + unique_bytes(&forwarded.outputs);
        let (need_inputs, _) = self.subject.needs();
        let inputs = inputs.iter().zip(need_inputs).filter(|(_, need)| *need).map(|(input, _)| input);
        let of_inputs = if pass == Pass::Weights { 0.0 } else { unique_bytes(inputs) };
        // In a step's later microbatches weight gradients are read as well.
        let of_weights = if pass == Pass::Inputs { 0.0 } else { 2.0 * unique_bytes(&self.gradients) };
        read + unique_bytes(&self.weights) + of_inputs + of_weights
    }

    fn backward(&mut self, operator: &dyn Operator, set: usize, accumulate: bool) -> anyhow::Result<()> {
        let subject = self.subject;
        let (need_inputs, need_weights) = subject.needs();
        let need = Need { inputs: &need_inputs, weights: &need_weights };
        let weights: Vec<&Tensor> = self.weights.iter().collect();
        let set = self.sets.get_mut(set).context("no such set of buffers")?;
        let Kept::Gradients(saved, kept) = &mut set.kept else { return Ok(()) };
        let backward = Backward { saved, weights: &weights, grads: &set.grads, need };
        if subject.pass != Pass::Weights && need_inputs.contains(&true) {
            *kept = operator.backward_input(self.ctx, &backward)?.into_iter().collect();
        }
        if subject.pass != Pass::Inputs {
            for (i, buffer) in self.gradients.iter_mut().enumerate() {
                let range = 0..buffer.len();
                let grad = WeightGrad { weight: i, buffer, range, accumulate };
                operator.backward_weight(self.ctx, &backward, grad)?;
            }
        }
        Ok(())
    }

    fn once(&mut self, variant: Option<u32>, set: usize, accumulate: bool) -> anyhow::Result<()> {
        let subject = self.subject;
        let operator = match variant {
            None => &subject.operator,
            Some(number) => {
                let found = subject.alternatives.iter().find(|(variant, _)| variant.number == number);
                &found.with_context(|| format!("no variant {number}"))?.1
            }
        };
        if subject.pass != Pass::Forward {
            return self.backward(&**operator, set, accumulate);
        }
        let place = self.sets.get(set).context("no such set of buffers")?;
        let forwarded = self.forward(&**operator, &place.inputs)?;
        self.sets[set].kept = Kept::Forwarded(forwarded);
        Ok(())
    }

    /// Results of the first set, as far as they are compared.
    fn results(&self) -> anyhow::Result<Values> {
        let part = self.subject.part();
        let set = self.sets.first().context("no buffers")?;
        let mut found = Vec::new();
        match &set.kept {
            Kept::Forwarded(forwarded) => {
                for (i, y) in forwarded.outputs.iter().enumerate() {
                    let y = sliced(y, part.map(|p| &p.output))?;
                    found.push((format!("output {i}"), values(self.ctx, &y)?));
                }
            }
            Kept::Gradients(_, of_inputs) => {
                for (i, grad) in of_inputs.iter().enumerate() {
                    let Some(grad) = grad else { continue };
                    let grad = sliced(grad, part.and_then(|p| p.inputs.get(i)))?;
                    found.push((format!("gradient of input {i}"), values(self.ctx, &grad)?));
                }
                if self.subject.pass != Pass::Inputs {
                    for (i, (grad, shape)) in self.gradients.iter().zip(&self.subject.weights).enumerate() {
                        let grad = sliced(&grad.reshape(shape)?, part.and_then(|p| p.weights.get(i)))?;
                        found.push((format!("gradient of weight {i}"), values(self.ctx, &grad)?));
                    }
                }
            }
        }
        Ok(found)
    }

    /// The part of the first set that is compared, on the CPU in F32.
    fn on_cpu<'c>(
        &self,
        cpu: &'c Context,
        subject: &'c OperatorSubject,
    ) -> anyhow::Result<OperatorReady<'c>> {
        let part = self.subject.part();
        let bring = |tensor: &Tensor, slice: Option<&Option<Slice>>| {
            let tensor = sliced(tensor, slice)?;
            if tensor.dtype().is_float() { widened(self.ctx, &tensor) } else { Ok(tensor.to_cpu(self.ctx)?) }
        };
        let set = self.sets.first().context("no buffers")?;
        let all = |tensors: &[Tensor], slices: Option<&Vec<Option<Slice>>>| {
            let each = tensors.iter().enumerate();
            each.map(|(i, t)| bring(t, slices.and_then(|s| s.get(i)))).collect::<anyhow::Result<Vec<_>>>()
        };
        let inputs = all(&set.inputs, part.map(|p| &p.inputs))?;
        let weights = all(&self.weights, part.map(|p| &p.weights))?;
        let grads = set.grads.iter().flatten().map(|g| bring(g, part.map(|p| &p.output)).map(Some));
        let grads = grads.collect::<anyhow::Result<_>>()?;
        let gradients = weights.iter().map(|w| Tensor::zeros(cpu, &[w.len()], DType::F32));
        let gradients = gradients.collect::<bigmac_runtime::Result<_>>()?;
        let mut ready = OperatorReady {
            subject,
            ctx: cpu,
            weights,
            gradients,
            sets: Vec::new(),
            bytes: 0.0,
            instead: None,
        };
        let forwarded = ready.forward(&*ready.subject.operator, &inputs)?;
        ready.sets.push(Set { inputs, grads, kept: Kept::of(subject.pass, forwarded) });
        Ok(ready)
    }
}

impl Ready for OperatorReady<'_> {
    fn reference(&mut self, cpu: &Context) -> anyhow::Result<Values> {
        if let Some(instead) = &mut self.instead {
            return instead.reference(cpu);
        }
        let subject = self.subject.compared();
        let mut ready = self.on_cpu(cpu, &subject)?;
        ready.once(None, 0, false)?;
        ready.results()
    }

    fn check(&mut self, variant: Option<u32>) -> anyhow::Result<Values> {
        if let Some(instead) = &mut self.instead {
            return instead.check(variant);
        }
        self.once(variant, 0, false)?;
        self.results()
    }

    fn run(&mut self, variant: Option<u32>, set: usize) -> anyhow::Result<()> {
        self.once(variant, set, true)
    }

    fn sets(&self) -> usize {
        self.sets.len()
    }

    fn bytes(&self) -> f64 {
        self.bytes
    }
}
