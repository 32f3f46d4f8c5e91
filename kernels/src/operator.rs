//! The one trait that every operator implements.

use crate::numeric::Real;
use bigmac_gpu::Arg;
use bigmac_runtime::{Context, DType, Dims, Error, Result, Spec, Tensor};
use smallvec::SmallVec;
use std::ops::Range;

pub(crate) use smallvec::smallvec;

/// Which gradients are wanted of an operator's application; what is saved depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// One flag per input.
    pub inputs: &'a [bool],
    /// One flag per weight.
    pub weights: &'a [bool],
}

impl Need<'_> {
    /// Nothing is wanted: nothing needs to be saved.
    pub const NONE: Need<'static> = Need { inputs: &[], weights: &[] };

    /// True when the gradient of input `i` is wanted.
    pub fn input(&self, i: usize) -> bool {
        self.inputs.get(i).copied().unwrap_or(false)
    }

    /// True when the gradient of weight `i` is wanted.
    pub fn weight(&self, i: usize) -> bool {
        self.weights.get(i).copied().unwrap_or(false)
    }

    /// True when any gradient is wanted.
    pub fn any(&self) -> bool {
        self.inputs.iter().chain(self.weights).any(|&n| n)
    }
}

/// An output as [`Operator::infer`] predicts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputSpec {
    /// A tensor in a storage of its own.
    New(Spec),
    /// A view of that input's storage.
    View {
        /// The input.
        input: usize,
        /// Shape and dtype of the view.
        spec: Spec,
    },
}

impl OutputSpec {
    /// Shape and dtype.
    pub fn spec(&self) -> &Spec {
        match self {
            OutputSpec::New(spec) | OutputSpec::View { spec, .. } => spec,
        }
    }
}

/// A tensor that [`Operator::forward`] saves for its backward, as [`Operator::infer`] predicts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SavedSpec {
    /// That input, or a view of it.
    Input(usize),
    /// That output, or a view of it.
    Output(usize),
    /// The shape and dtype of that input without its values: see [`carried_shape`].
    Shape(usize),
    /// A tensor that the forward makes for the purpose.
    New(Spec),
}

/// The shape of the input that was saved as [`SavedSpec::Shape`], given the saved tensor.
pub fn carried_shape(saved: &Tensor) -> &[usize] {
    saved.shape().get(1..).unwrap_or_default()
}

/// An empty tensor that carries the shape and dtype of `input`: its leading extent 0 makes it take no bytes.
fn carrier(input: &Tensor) -> Tensor {
    let shape: Dims = std::iter::once(0).chain(input.shape().iter().copied()).collect();
    Tensor::shape_only(&Spec { shape, dtype: input.dtype() })
}

/// What [`Operator::infer`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// One per output.
    pub outputs: SmallVec<[OutputSpec; 1]>,
    /// What a forward saves, in its order.
    pub saved: SmallVec<[SavedSpec; 4]>,
}

impl Inferred {
    /// One new output, and what is saved.
    pub fn one(output: Spec, saved: impl IntoIterator<Item = SavedSpec>) -> Self {
        Inferred { outputs: smallvec![OutputSpec::New(output)], saved: saved.into_iter().collect() }
    }

    /// One view of input 0, and what is saved.
    pub fn view(spec: Spec, saved: impl IntoIterator<Item = SavedSpec>) -> Self {
        Inferred {
            outputs: smallvec![OutputSpec::View { input: 0, spec }],
            saved: saved.into_iter().collect(),
        }
    }

    /// What is saved of an application: its inputs and outputs, and the tensors that `new` gives one after the other.
    pub fn saved(
        &self,
        inputs: &[&Tensor],
        outputs: &[Tensor],
        mut new: impl FnMut(&Spec) -> Result<Tensor>,
    ) -> Result<Saved> {
        let saved = |spec: &SavedSpec| match spec {
            SavedSpec::Input(i) => Ok(inputs[*i].clone()),
            SavedSpec::Output(i) => Ok(outputs[*i].clone()),
            SavedSpec::Shape(i) => Ok(carrier(inputs[*i])),
            SavedSpec::New(spec) => new(spec),
        };
        self.saved.iter().map(saved).collect()
    }
}

/// What a forward is given.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The inputs.
    pub inputs: &'a [&'a Tensor],
    /// The weights.
    pub weights: &'a [&'a Tensor],
    /// Which gradients will be wanted.
    pub need: Need<'a>,
}

/// What [`Operator::forward`] returns.
#[derive(Debug)]
pub struct Forwarded {
    /// The outputs.
    pub outputs: SmallVec<[Tensor; 1]>,
    /// The tensors that [`Operator::infer`] predicted as [`SavedSpec::New`], in their order.
    pub new: Saved,
}

impl Forwarded {
    /// One output.
    pub fn one(output: Tensor) -> Self {
        Self::with(output, [])
    }

    /// One output, and the new tensors that are saved.
    pub fn with(output: Tensor, new: impl IntoIterator<Item = Tensor>) -> Self {
        Forwarded { outputs: smallvec![output], new: new.into_iter().collect() }
    }
}

/// Tensors saved by a forward for its backward.
pub type Saved = SmallVec<[Tensor; 4]>;

/// One gradient per input; `None` where none was wanted.
pub type InputGrads = SmallVec<[Option<Tensor>; 4]>;

/// What a backward is given.
#[derive(Clone, Copy, Debug)]
pub struct Backward<'a> {
    /// What the forward saved.
    pub saved: &'a [Tensor],
    /// The weights, as the forward was given them.
    pub weights: &'a [&'a Tensor],
    /// One gradient per output, of the output's shape and dtype, possibly strided; `None` where nothing depends on that
    /// output.
    pub grads: &'a [Option<Tensor>],
    /// Which gradients are wanted, as the forward was told.
    pub need: Need<'a>,
}

impl<'a> Backward<'a> {
    /// The gradient of output 0.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is missing: the walk backward never calls an operator none of whose outputs has one.
    pub fn grad(&self, op: &'static str) -> Result<&'a Tensor> {
        self.grads
            .first()
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::argument(op, "backward was called without a gradient of output 0"))
    }

    /// Saved tensor `i`.
    ///
    /// # Errors
    /// [`Error::Argument`] when the forward did not save it, since it was told that no gradient needs it.
    pub fn saved(&self, op: &'static str, i: usize) -> Result<&'a Tensor> {
        self.saved
            .get(i)
            .ok_or_else(|| Error::argument(op, format!("backward needs saved tensor {i}, which is missing")))
    }
}

/// Where the gradient of one weight goes: a range of a module's flat gradient buffer, in the accumulator type of the
/// weight's dtype, row-major in the weight's shape.
#[derive(Debug)]
pub struct WeightGrad<'a> {
    /// Number of the weight among the operator's.
    pub weight: usize,
    /// The flat buffer.
    pub buffer: &'a mut Tensor,
    /// The weight's elements in it.
    pub range: Range<usize>,
    /// True: add to what is there. False: this is the first gradient of the step, write it.
    pub accumulate: bool,
}

impl WeightGrad<'_> {
    /// The elements to write or to add to.
    ///
    /// # Errors
    /// [`Error::DType`] and the like when the buffer is not of type `T`.
    pub fn slice<T: bigmac_runtime::Element>(&mut self) -> Result<&mut [T]> {
        let len = self.buffer.len();
        let range = self.range.clone();
        self.buffer.as_mut_slice::<T>()?.get_mut(range).ok_or_else(|| {
            Error::shape("weight gradient", [len], format!("a buffer that holds {:?}", self.range))
        })
    }

    /// The first element of the range as a kernel's argument.
    ///
    /// # Errors
    /// As [`Tensor::arg_mut`]; [`Error::Shape`] when the buffer does not hold the range.
    pub fn arg_mut(&mut self) -> Result<Arg> {
        if self.range.end > self.buffer.len() {
            let wanted = format!("a buffer that holds {:?}", self.range);
            return Err(Error::shape("weight gradient", [self.buffer.len()], wanted));
        }
        self.buffer.arg_mut_at(self.range.start)
    }

    /// Writes `values`, one per element of the weight, or adds them to what is there.
    ///
    /// # Errors
    /// As [`WeightGrad::slice`]; [`Error::Shape`] when there are more or fewer values than elements.
    pub fn put<T: Real>(&mut self, values: &[T]) -> Result<()> {
        let accumulate = self.accumulate;
        let to = self.slice::<T>()?;
        if to.len() != values.len() {
            return Err(Error::shape("weight gradient", [values.len()], format!("{} values", to.len())));
        }
        if accumulate {
            to.iter_mut().zip(values).for_each(|(to, value)| *to += *value);
        } else {
            to.copy_from_slice(values);
        }
        Ok(())
    }
}

/// Where the gradients of an operator's weights go.
pub trait WeightGrads {
    /// Where to write, or to add, the gradient of weight number `weight`; asked for once per weight.
    fn of(&mut self, weight: usize) -> WeightGrad<'_>;

    /// The gradients of all weights are computed, and those of the inputs come next. An operator that computes both
    /// together does not say so.
    fn written(&mut self) {}
}

/// Floating-point operations of an operator's passes by its definition, of products alone, whatever its kernels compute
/// again or leave out: what model FLOPs utilisation counts (Chowdhery et al., *PaLM*, arXiv 2204.02311, appendix B).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flops {
    /// The forward.
    pub forward: f64,
    /// The gradients of inputs that are wanted.
    pub backward_input: f64,
    /// The gradients of weights that are wanted.
    pub backward_weight: f64,
}

impl Flops {
    /// A product of an input and a weight, `2 m n k` operations: as many again for each gradient.
    pub(crate) fn weighted(product: f64, need: Need<'_>) -> Self {
        let wanted = |wanted: bool| if wanted { product } else { 0.0 };
        Flops {
            forward: product,
            backward_input: wanted(need.input(0)),
            backward_weight: wanted(need.weight(0)),
        }
    }
}

/// A differentiable (or not) function of tensors.
///
/// Inputs are activations: they may need a gradient, and what is saved of them counts as activation memory. Weights are
/// a module's parameters: they outlive the tape, and their gradients go to a flat buffer. Inputs may be strided views
/// unless the operator's docstring says otherwise; outputs are contiguous, or views of an input.
///
/// Results never depend on the number of threads. No operator writes to its inputs.
pub trait Operator: std::fmt::Debug + Send + Sync {
    /// The operator's name, for errors and profiles.
    fn name(&self) -> &'static str;

    /// Checks shapes and dtypes, and predicts output shapes and what will be saved, without computing.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Argument`].
    fn infer(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Result<Inferred>;

    /// Computes the outputs, and the new tensors that are saved. Its caller has called [`Operator::infer`] on the same
    /// shapes.
    ///
    /// # Errors
    /// Those of allocation, and [`Error::NotContiguous`] where the docstring asks for contiguous data.
    fn forward(&self, ctx: &Context, call: &Call<'_>) -> Result<Forwarded>;

    /// The outputs, and everything that a backward will be given, as a recording graph has them.
    fn record(&self, ctx: &Context, call: &Call<'_>) -> Result<(SmallVec<[Tensor; 1]>, Saved)> {
        let specs = |tensors: &[&Tensor]| tensors.iter().map(|t| t.spec()).collect::<SmallVec<[Spec; 4]>>();
        let inferred = self.infer(&specs(call.inputs), &specs(call.weights), call.need)?;
        let Forwarded { outputs, new } = self.forward(ctx, call)?;
        let saved = inferred.saved(call.inputs, &outputs, in_turn(self.name(), new))?;
        Ok((outputs, saved))
    }

    /// The one output, when no gradient will be wanted.
    fn compute(&self, ctx: &Context, inputs: &[&Tensor], weights: &[&Tensor]) -> Result<Tensor> {
        let call = Call { inputs, weights, need: Need::NONE };
        self.forward(ctx, &call)?
            .outputs
            .into_iter()
            .next()
            .ok_or_else(|| Error::argument(self.name(), "the operator has no output"))
    }

    /// False for an operator without a backward; a graph that needs a gradient through it is an error when it is built.
    fn differentiable(&self) -> bool {
        true
    }

    /// Operations of its passes on such inputs and weights, which [`Operator::infer`] accepts; none for an operator
    /// without products.
    fn flops(&self, inputs: &[Spec], weights: &[Spec], need: Need<'_>) -> Flops {
        let _ = (inputs, weights, need);
        Flops::default()
    }

    /// True when [`Operator::backward_weight`] is a matrix product worth deferring in a split backward.
    fn defers_weight(&self) -> bool {
        false
    }

    /// The gradients of the inputs for which `backward.need` asks, each of its input's shape and dtype.
    ///
    /// # Errors
    /// [`Error::NoBackward`] when the operator has none.
    fn backward_input(&self, ctx: &Context, backward: &Backward<'_>) -> Result<InputGrads> {
        let _ = (ctx, backward);
        Err(Error::NoBackward { op: self.name() })
    }

    /// Writes or adds the gradient of the weight whose number `dw` has.
    ///
    /// # Errors
    /// [`Error::NoBackward`] when the operator has no weights.
    fn backward_weight(&self, ctx: &Context, backward: &Backward<'_>, dw: WeightGrad<'_>) -> Result<()> {
        let _ = (ctx, backward, dw);
        Err(Error::NoBackward { op: self.name() })
    }

    /// All gradients for which `backward.need` asks: those of the weights, then those of the inputs, none of which are
    /// returned where none is wanted. For an operator to override whose gradients have work in common.
    ///
    /// # Errors
    /// As [`Operator::backward_weight`] and [`Operator::backward_input`].
    fn backward_all(
        &self,
        ctx: &Context,
        backward: &Backward<'_>,
        weights: &mut dyn WeightGrads,
    ) -> Result<InputGrads> {
        one_by_one(self, ctx, backward, weights)
    }
}

/// All gradients that are wanted, one after the other.
pub(crate) fn one_by_one<O: Operator + ?Sized>(
    op: &O,
    ctx: &Context,
    backward: &Backward<'_>,
    weights: &mut dyn WeightGrads,
) -> Result<InputGrads> {
    for weight in (0..backward.weights.len()).filter(|&i| backward.need.weight(i)) {
        op.backward_weight(ctx, backward, weights.of(weight))?;
    }
    weights.written();
    if backward.need.inputs.contains(&true) {
        op.backward_input(ctx, backward)
    } else {
        Ok(InputGrads::new())
    }
}

/// The inputs and weights of an operator that takes `I` and `W` of them.
///
/// # Errors
/// [`Error::Argument`] for other numbers.
pub fn expect_counts<'a, const I: usize, const W: usize>(
    op: &'static str,
    inputs: &'a [Spec],
    weights: &'a [Spec],
) -> Result<(&'a [Spec; I], &'a [Spec; W])> {
    if let (Ok(inputs), Ok(weights)) = (inputs.try_into(), weights.try_into()) {
        return Ok((inputs, weights));
    }
    let given = format!("{} inputs and {} weights", inputs.len(), weights.len());
    Err(Error::argument(op, format!("expected {I} inputs and {W} weights, got {given}")))
}

/// Gives the new tensors of a forward one after the other.
pub fn in_turn(op: &'static str, new: Saved) -> impl FnMut(&Spec) -> Result<Tensor> {
    let mut new = new.into_iter();
    move |_| new.next().ok_or_else(|| Error::argument(op, "forward made fewer tensors than infer predicted"))
}

/// What an operator that takes any float type says it wants.
pub const FLOATS: &str = "f64, f32, bf16 or f16";

/// Checks that all specs have one float dtype, and returns it.
///
/// # Errors
/// [`Error::DType`].
pub fn expect_float<'a>(op: &'static str, specs: impl IntoIterator<Item = &'a Spec>) -> Result<DType> {
    let mut dtype = None;
    for spec in specs {
        if !spec.dtype.is_float() {
            return Err(Error::DType { op, given: spec.dtype, wanted: FLOATS.into() });
        }
        match dtype {
            Some(first) if first != spec.dtype => {
                return Err(Error::DType {
                    op,
                    given: spec.dtype,
                    wanted: format!("{first}, as its other arguments"),
                });
            }
            _ => dtype = Some(spec.dtype),
        }
    }
    dtype.ok_or_else(|| Error::argument(op, "expected at least one tensor"))
}
