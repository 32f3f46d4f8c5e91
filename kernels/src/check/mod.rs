//! Checks one operator in one call: shape inference, gradients, strided inputs, every float dtype, any number of
//! threads.
//!
//! For everyone who changes a kernel or adds one:
//!
//! ```
//! use bigmac_kernels::{add::Add, check::Check};
//! Check::new(&Add).input(&[3, 5]).input(&[3, 5]).run().unwrap();
//! ```

mod devices;
mod differences;
mod values;

use crate::operator::*;
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};
use values::round_to;

pub use devices::{CHECK_DEVICE, gpus};
pub use differences::against_differences;
pub use values::{float_tensor, random, to_f64};

/// Inputs of an operator, and how closely it has to meet its reference.
pub struct Check<'a> {
    op: &'a dyn Operator,
    inputs: Vec<Argument>,
    weights: Vec<Argument>,
    dtypes: Vec<DType>,
    strided: bool,
    gpu: bool,
    tolerance: [f64; 4],
}

/// A float argument as its values in F64, or an integer argument.
enum Argument {
    Float {
        values: Vec<f64>,
        shape: Vec<usize>,
        differentiate: bool,
    },
    /// In the accumulator dtype of the one that is checked, without a gradient.
    Accumulator {
        values: Vec<f64>,
        shape: Vec<usize>,
    },
    Int {
        values: Vec<i32>,
        shape: Vec<usize>,
    },
}

/// Outputs, gradients of the inputs and gradients of the weights, as F64.
struct Outcome {
    outputs: Vec<Vec<f64>>,
    inputs: Vec<Option<Vec<f64>>>,
    weights: Vec<Option<Vec<f64>>>,
}

impl Outcome {
    /// Every vector with its name.
    fn parts(&self) -> Vec<(String, &[f64])> {
        let outputs = self.outputs.iter().enumerate().map(|(i, v)| (format!("output {i}"), v.as_slice()));
        let named = |what: &'static str| {
            move |(i, v): (usize, &'_ Option<Vec<f64>>)| v.as_ref().map(|_| format!("gradient of {what} {i}"))
        };
        let inputs =
            self.inputs.iter().enumerate().filter_map(|p| Some((named("input")(p)?, p.1.as_deref()?)));
        let weights =
            self.weights.iter().enumerate().filter_map(|p| Some((named("weight")(p)?, p.1.as_deref()?)));
        outputs.chain(inputs).chain(weights).collect()
    }
}

impl<'a> Check<'a> {
    /// A check of `op`; say its arguments next, then [`Check::run`].
    pub fn new(op: &'a dyn Operator) -> Self {
        Check {
            op,
            inputs: Vec::new(),
            weights: Vec::new(),
            dtypes: vec![DType::F32, DType::BF16, DType::F16],
            strided: true,
            gpu: true,
            tolerance: [1e-7, 2e-6, 8e-3, 1e-3],
        }
    }

    /// A float input of that shape with normal random values, whose gradient is checked.
    pub fn input(mut self, shape: &[usize]) -> Self {
        let values = random(shape, self.inputs.len() as u32);
        self.inputs.push(Argument::Float { values, shape: shape.to_vec(), differentiate: true });
        self
    }

    /// A float input with those values, whose gradient is checked when `differentiate`.
    pub fn input_values(mut self, values: Vec<f64>, shape: &[usize], differentiate: bool) -> Self {
        self.inputs.push(Argument::Float { values, shape: shape.to_vec(), differentiate });
        self
    }

    /// An input in the accumulator dtype of the one that is checked, such as a table, which has no gradient.
    pub fn input_accumulator(mut self, values: Vec<f64>, shape: &[usize]) -> Self {
        self.inputs.push(Argument::Accumulator { values, shape: shape.to_vec() });
        self
    }

    /// An input of type I32, which has no gradient.
    pub fn input_i32(mut self, values: Vec<i32>, shape: &[usize]) -> Self {
        self.inputs.push(Argument::Int { values, shape: shape.to_vec() });
        self
    }

    /// A weight of that shape with normal random values, whose gradient is checked.
    pub fn weight(mut self, shape: &[usize]) -> Self {
        let values = random(shape, 1000 + self.weights.len() as u32);
        self.weights.push(Argument::Float { values, shape: shape.to_vec(), differentiate: true });
        self
    }

    /// The dtypes to check beside F64, instead of F32, BF16 and F16.
    pub fn dtypes(mut self, dtypes: &[DType]) -> Self {
        self.dtypes = dtypes.to_vec();
        self
    }

    /// Do not try strided inputs: for an operator that asks for contiguous ones.
    pub fn contiguous_only(mut self) -> Self {
        self.strided = false;
        self
    }

    /// Do not run the operator's kernels: for an operator, or a dtype of it, that a GPU does not take.
    pub fn cpu_only(mut self) -> Self {
        self.gpu = false;
        self
    }

    /// The largest allowed norm of the error over the norm of the reference: for F64 of the analytic gradient against
    /// central differences, for the others against F64 on the same rounded inputs.
    pub fn tolerance(mut self, dtype: DType, relative: f64) -> Self {
        self.tolerance[slot(dtype)] = relative;
        self
    }

    /// Runs every check.
    ///
    /// # Errors
    /// The operator's own errors; [`Error::Argument`] that says which check failed and by how much.
    pub fn run(&self) -> Result<()> {
        let one = Context::cpu(0, 1)?;
        let exact = self.evaluate(&one, DType::F64, false)?;
        self.check_differences(&one, &exact)?;
        for &dtype in [DType::F64].iter().chain(&self.dtypes) {
            let plain = self.evaluate(&one, dtype, false)?;
            let rounded = self.rounded(dtype).evaluate(&one, DType::F64, false)?;
            let allowed = if dtype == DType::F64 { 1e-12 } else { self.tolerance[slot(dtype)] };
            self.compare(&format!("{dtype} against f64 on the same inputs"), &plain, &rounded, allowed)?;
            let threads = self.evaluate(&Context::cpu(0, 3)?, dtype, false)?;
            self.compare(&format!("{dtype} with 3 threads against 1"), &threads, &plain, 0.0)?;
            if self.strided {
                let strided = self.evaluate(&one, dtype, true)?;
                let allowed = self.tolerance[slot(dtype)].min(1e-6);
                self.compare(
                    &format!("{dtype} on strided inputs against contiguous ones"),
                    &strided,
                    &plain,
                    allowed,
                )?;
            }
        }
        if self.gpu { self.check_kernels() } else { Ok(()) }
    }

    /// The operator's kernels against f64 on the CPU, the same bits in every order and at every run.
    fn check_kernels(&self) -> Result<()> {
        let one = Context::cpu(0, 1)?;
        for &dtype in self.dtypes.iter().filter(|d| matches!(d, DType::F32 | DType::BF16)) {
            let wanted = self.rounded(dtype).evaluate(&one, DType::F64, false)?;
            let mut first = None;
            for gpu in gpus()? {
                let ctx = Context::on_gpu(0, 1, gpu)?;
                let plain = self.evaluate(&ctx, dtype, false)?;
                let (device, allowed) = (gpu.device(), self.tolerance[slot(dtype)]);
                self.compare(
                    &format!("{dtype} on {device} against f64 on the CPU"),
                    &plain,
                    &wanted,
                    allowed,
                )?;
                if let Some(first) = &first {
                    let what = format!("{dtype} on {device} in another order of threads, or once more");
                    self.compare(&what, &plain, first, 0.0)?;
                } else if self.strided {
                    let what = format!("{dtype} on {device}, strided inputs against contiguous ones");
                    let strided = self.evaluate(&ctx, dtype, true)?;
                    self.compare(&what, &strided, &plain, allowed.min(1e-6))?;
                }
                first.get_or_insert(plain);
            }
        }
        Ok(())
    }

    fn fail(&self, message: String) -> Error {
        Error::argument(self.op.name(), message)
    }

    /// The same check with every float argument rounded to `dtype`.
    fn rounded(&self, dtype: DType) -> Check<'a> {
        let round = |a: &Argument| match a {
            Argument::Float { values, shape, differentiate } => Argument::Float {
                values: values.iter().map(|&v| round_to(v, dtype)).collect(),
                shape: shape.clone(),
                differentiate: *differentiate,
            },
            Argument::Accumulator { values, shape } => Argument::Accumulator {
                values: values.iter().map(|&v| round_to(v, dtype.accumulator())).collect(),
                shape: shape.clone(),
            },
            Argument::Int { values, shape } => Argument::Int { values: values.clone(), shape: shape.clone() },
        };
        Check {
            op: self.op,
            inputs: self.inputs.iter().map(round).collect(),
            weights: self.weights.iter().map(round).collect(),
            dtypes: Vec::new(),
            strided: false,
            gpu: false,
            tolerance: self.tolerance,
        }
    }

    /// Forward and backward of the sum of all outputs, each weighted by a fixed random number.
    fn evaluate(&self, ctx: &Context, dtype: DType, strided: bool) -> Result<Outcome> {
        let op = self.op;
        let inputs = self.inputs.iter().map(|a| a.tensor(ctx, dtype, strided)).collect::<Result<Vec<_>>>()?;
        let weights = self.weights.iter().map(|a| a.tensor(ctx, dtype, false)).collect::<Result<Vec<_>>>()?;
        let (inputs, weights): (Vec<&Tensor>, Vec<&Tensor>) =
            (inputs.iter().collect(), weights.iter().collect());
        let differentiate = |a: &Argument| matches!(a, Argument::Float { differentiate: true, .. });
        let need_inputs: Vec<bool> = self.inputs.iter().map(differentiate).collect();
        let need_weights = vec![true; weights.len()];
        let need = Need { inputs: &need_inputs, weights: &need_weights };
        let specs = |t: &[&Tensor]| t.iter().map(|t| t.spec()).collect::<Vec<Spec>>();
        let inferred = op.infer(&specs(&inputs), &specs(&weights), need)?;
        let forwarded = op.forward(ctx, &Call { inputs: &inputs, weights: &weights, need })?;
        self.check_inferred(&inferred, &forwarded, &inputs)?;
        let Forwarded { outputs, new } = forwarded;
        let saved = inferred.saved(&inputs, &outputs, in_turn(op.name(), new))?;
        let grads = outputs
            .iter()
            .enumerate()
            .map(|(i, y)| {
                let values = random(y.shape(), 2000 + i as u32);
                let grad = Argument::Float { values, shape: y.shape().to_vec(), differentiate: false };
                grad.tensor(ctx, y.dtype(), strided).map(Some)
            })
            .collect::<Result<Vec<_>>>()?;
        let backward = Backward { saved: &saved, weights: &weights, grads: &grads, need };
        let mut outcome = Outcome {
            outputs: outputs.iter().map(|y| to_f64(ctx, y)).collect::<Result<_>>()?,
            inputs: vec![None; inputs.len()],
            weights: vec![None; weights.len()],
        };
        if need_inputs.iter().any(|&n| n) {
            for (i, grad) in op.backward_input(ctx, &backward)?.iter().enumerate() {
                if let (Some(grad), true) = (grad, need_inputs[i]) {
                    if grad.spec() != inputs[i].spec() {
                        let (grad, input) = (grad.spec(), inputs[i].spec());
                        return Err(
                            self.fail(format!("the gradient of input {i} is {grad:?}, the input {input:?}"))
                        );
                    }
                    outcome.inputs[i] = Some(to_f64(ctx, grad)?);
                } else if need_inputs[i] {
                    return Err(self.fail(format!("the backward gave no gradient of input {i}")));
                }
            }
        }
        for (i, weight) in weights.iter().enumerate() {
            outcome.weights[i] = Some(self.weight_gradient(ctx, &backward, i, weight)?);
        }
        Ok(outcome)
    }

    /// The gradient of one weight, written once and then added once: twice the gradient must be there.
    fn weight_gradient(
        &self,
        ctx: &Context,
        backward: &Backward<'_>,
        i: usize,
        weight: &Tensor,
    ) -> Result<Vec<f64>> {
        const GUARD: usize = 3;
        let len = weight.len();
        let mut buffer = Tensor::zeros(ctx, &[len + 2 * GUARD], weight.dtype().accumulator())?;
        let mut passes = Vec::new();
        for accumulate in [false, true] {
            let grad = WeightGrad { weight: i, buffer: &mut buffer, range: GUARD..GUARD + len, accumulate };
            self.op.backward_weight(ctx, backward, grad)?;
            passes.push(to_f64(ctx, &buffer)?);
        }
        let doubled =
            passes[0].iter().zip(&passes[1]).all(|(a, b)| (2.0 * a - b).abs() <= 1e-5 * (1.0 + a.abs()));
        if !doubled {
            return Err(self.fail(format!("the gradient of weight {i} is not added to what was there")));
        }
        if passes[0][..GUARD].iter().chain(&passes[0][GUARD + len..]).any(|&v| v != 0.0) {
            return Err(self.fail(format!("the gradient of weight {i} is written outside its range")));
        }
        Ok(passes[0][GUARD..GUARD + len].to_vec())
    }

    /// What was predicted against what came.
    fn check_inferred(&self, inferred: &Inferred, forwarded: &Forwarded, inputs: &[&Tensor]) -> Result<()> {
        let new = |saved: &SavedSpec| match saved {
            SavedSpec::New(spec) => Some(spec.clone()),
            _ => None,
        };
        let new: Vec<Spec> = inferred.saved.iter().filter_map(new).collect();
        if inferred.outputs.len() != forwarded.outputs.len() || new.len() != forwarded.new.len() {
            return Err(self.fail(format!(
                "infer predicted {} outputs and {} new saved tensors, forward gave {} and {}",
                inferred.outputs.len(),
                new.len(),
                forwarded.outputs.len(),
                forwarded.new.len()
            )));
        }
        for (i, (predicted, output)) in inferred.outputs.iter().zip(&forwarded.outputs).enumerate() {
            let storage_fits = match predicted {
                OutputSpec::New(_) => output.is_whole(),
                OutputSpec::View { input, .. } => output.storage_id() == inputs[*input].storage_id(),
            };
            if *predicted.spec() != output.spec() || !storage_fits {
                return Err(self.fail(format!(
                    "infer predicted {predicted:?} as output {i}, forward gave {:?}",
                    output.spec()
                )));
            }
        }
        for (i, (predicted, saved)) in new.iter().zip(&forwarded.new).enumerate() {
            if *predicted != saved.spec() || !saved.is_whole() {
                return Err(self.fail(format!(
                    "infer predicted {predicted:?} as new saved tensor {i}, forward gave {:?}",
                    saved.spec()
                )));
            }
        }
        Ok(())
    }

    /// The loss of [`Check::evaluate`] from a forward alone.
    fn loss(&self, ctx: &Context) -> Result<f64> {
        let inputs =
            self.inputs.iter().map(|a| a.tensor(ctx, DType::F64, false)).collect::<Result<Vec<_>>>()?;
        let weights =
            self.weights.iter().map(|a| a.tensor(ctx, DType::F64, false)).collect::<Result<Vec<_>>>()?;
        let (inputs, weights): (Vec<&Tensor>, Vec<&Tensor>) =
            (inputs.iter().collect(), weights.iter().collect());
        let call = Call { inputs: &inputs, weights: &weights, need: Need::NONE };
        let mut loss = 0.0;
        for (i, y) in self.op.forward(ctx, &call)?.outputs.iter().enumerate() {
            let factors = random(y.shape(), 2000 + i as u32);
            loss += to_f64(ctx, y)?.iter().zip(factors).map(|(y, f)| y * f).sum::<f64>();
        }
        Ok(loss)
    }

    /// Gradients against central differences, at up to 40 elements of each argument.
    fn check_differences(&self, ctx: &Context, exact: &Outcome) -> Result<()> {
        let mut moved = self.rounded(DType::F64);
        for (what, gradients) in [("input", &exact.inputs), ("weight", &exact.weights)] {
            for (argument, gradient) in gradients.iter().enumerate() {
                let Some(gradient) = gradient else { continue };
                let name = format!("{what} {argument}");
                against_differences(self.op.name(), &name, gradient, (40, self.tolerance[0]), |i, by| {
                    let value = moved.value(what, argument, i);
                    let old = std::mem::replace(value, *value + by);
                    let loss = moved.loss(ctx);
                    *moved.value(what, argument, i) = old;
                    loss
                })?;
            }
        }
        Ok(())
    }

    /// Element `i` of a float argument.
    fn value(&mut self, what: &str, argument: usize, i: usize) -> &mut f64 {
        let list = if what == "weight" { &mut self.weights } else { &mut self.inputs };
        match &mut list[argument] {
            Argument::Float { values, .. } | Argument::Accumulator { values, .. } => &mut values[i],
            Argument::Int { .. } => unreachable!("integers have no gradient"),
        }
    }

    fn compare(&self, what: &str, given: &Outcome, wanted: &Outcome, allowed: f64) -> Result<()> {
        for ((name, given), (_, wanted)) in given.parts().into_iter().zip(wanted.parts()) {
            let error: f64 = given.iter().zip(wanted).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            let norm: f64 = wanted.iter().map(|b| b * b).sum::<f64>().sqrt();
            if error.is_nan() || error > allowed * norm.max(1e-30) {
                let relative = error / norm.max(1e-30);
                return Err(self.fail(format!(
                    "{what}: {name} is off by {relative:.2e} of its norm, allowed {allowed:.1e}"
                )));
            }
        }
        Ok(())
    }
}

impl Argument {
    fn tensor(&self, ctx: &Context, dtype: DType, strided: bool) -> Result<Tensor> {
        let (contiguous, shape) = match self {
            Argument::Float { values, shape, .. } => (float_tensor(ctx, values, shape, dtype)?, shape),
            Argument::Accumulator { values, shape } => {
                (float_tensor(ctx, values, shape, dtype.accumulator())?, shape)
            }
            Argument::Int { values, shape } => return Tensor::from_slice(ctx, values, shape),
        };
        if !strided || shape.is_empty() {
            return Ok(contiguous);
        }
        let dtype = contiguous.dtype();
        // The same values with the dimensions in memory reversed, inside a storage that is one row longer.
        let order: Vec<usize> = (0..shape.len()).rev().collect();
        let reversed = contiguous.permute(&order)?.copy(ctx)?;
        let mut padded_shape = reversed.shape().to_vec();
        padded_shape[0] += 1;
        let mut padded = Tensor::zeros(ctx, &padded_shape, dtype)?;
        let start = padded.len() - reversed.len();
        padded.write(ctx, start, &reversed)?;
        padded.narrow(0, 1, reversed.shape()[0])?.permute(&order)
    }
}

fn slot(dtype: DType) -> usize {
    match dtype {
        DType::F64 => 0,
        DType::BF16 => 2,
        DType::F16 => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::add::Add;
    use crate::view::{Narrow, Permute, Reshape};

    #[test]
    fn add_and_views_pass() {
        Check::new(&Add).input(&[3, 5]).input(&[3, 5]).run().unwrap();
        Check::new(&Reshape::new(&[2, 6])).input(&[3, 4]).contiguous_only().run().unwrap();
        Check::new(&Permute::new(&[2, 0, 1])).input(&[2, 3, 5]).run().unwrap();
        Check::new(&Narrow { dim: 1, start: 1, len: 3 }).input(&[2, 5, 3]).run().unwrap();
    }

    /// `y = 2a`, whose backward claims `dy`.
    #[derive(Debug)]
    struct Wrong;

    impl Operator for Wrong {
        fn name(&self) -> &'static str {
            "wrong"
        }
        fn infer(&self, inputs: &[Spec], _: &[Spec], _: Need<'_>) -> Result<Inferred> {
            Ok(Inferred::one(inputs[0].clone(), []))
        }
        fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded> {
            Ok(Forwarded::one(crate::add::add(ctx, call.inputs[0], call.inputs[0])?))
        }
        fn backward_input(&self, _: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
            Ok(smallvec![Some(backward.grad("wrong")?.clone())])
        }
    }

    #[test]
    fn a_wrong_gradient_is_caught() {
        let error = Check::new(&Wrong).input(&[3]).run().unwrap_err().to_string();
        assert!(error.contains("central differences"), "{error}");
    }
}
