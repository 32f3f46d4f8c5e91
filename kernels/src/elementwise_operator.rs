//! Operators that are a function of numbers, applied element by element: on the CPU and on a GPU, with their backward.

use crate::elementwise::{infer_like_inputs, map, map_to_two};
use crate::elementwise_cuda::{over, variants};
use crate::numeric::Real;
use crate::operator::*;
use bigmac_gpu::{Arg, Source, Variants};
use bigmac_runtime::{Context, DType, Element, Error, Result, Spec, Tensor};
use smallvec::SmallVec;
use std::array::from_fn;

/// A differentiable function of `N` numbers (one or two), of which [`elementwise_operator`] makes an operator: its
/// inputs are `N` tensors of one shape and float dtype, its output is like them.
pub(crate) trait Elementwise<const N: usize>: Copy + Send + Sync {
    /// The operator's name.
    const NAME: &'static str;
    /// `READS[i][k]`: the gradient of input `i` is computed from input `k`. What no wanted gradient reads is not saved.
    const READS: [[bool; N]; N];

    /// The function on a GPU.
    const KERNELS: Kernels;

    /// The value of the kernels' choice, if they have one.
    fn choice(&self) -> i64 {
        0
    }

    /// The kernels' last argument, if they have one beside tensors.
    fn parameter(&self) -> Option<Arg> {
        None
    }

    /// The function.
    fn value<A: Real>(&self, x: [A; N]) -> A;

    /// `dy` times the derivative by each input. A gradient that is not wanted may be computed from anything, and is
    /// dropped.
    fn gradients<A: Real>(&self, x: [A; N], dy: A) -> [A; N];
}

/// The two kernels of an elementwise operator, over `n` elements of `x` and so on: `forward(i64 n, const T* x.., T* y,
/// parameter)` and `backward(i64 n, const T* x.., const T* dy, T* dx.., parameter)`.
///
/// Of a backward's pointers, those of inputs that were not saved and of gradients that are not wanted are null.
pub(crate) struct Kernels {
    source: &'static Source,
    forward: &'static str,
    backward: &'static str,
    choice: Option<(&'static str, &'static [i64])>,
}

impl Kernels {
    /// Those of a source.
    pub(crate) const fn new(source: &'static Source, forward: &'static str, backward: &'static str) -> Self {
        Kernels { source, forward, backward, choice: None }
    }

    /// Compiled with the macro `name` as each of `values`, one of which is the operator's [`Elementwise::choice`].
    pub(crate) const fn choice(self, name: &'static str, values: &'static [i64]) -> Self {
        Kernels { choice: Some((name, values)), ..self }
    }

    /// See [`programs`](crate::programs::programs).
    pub(crate) fn programs(&self) -> Vec<Variants> {
        vec![variants(self.source, self.choice)]
    }
}

fn launch<E: Elementwise<N>, const N: usize>(
    op: E,
    ctx: &Context,
    kernel: &'static str,
    (dtype, n): (DType, usize),
    pointers: impl Iterator<Item = Result<Arg>>,
) -> Result<()> {
    let mut launch = over(E::NAME, E::KERNELS.source, kernel, dtype, n)?;
    if let Some((name, _)) = E::KERNELS.choice {
        launch = launch.knob(name, op.choice());
    }
    let all = std::iter::once(Ok(Arg::i64(n)?)).chain(pointers).chain(op.parameter().map(Ok));
    ctx.launch(&launch, &all.collect::<Result<SmallVec<[Arg; 8]>>>()?)
}

/// Implements [`Operator`] for an [`Elementwise`] of that many inputs, which is the only one of its folder.
macro_rules! elementwise_operator {
    ($op:ty, $inputs:literal) => {
        /// See [`programs`](crate::programs::programs).
        pub(crate) fn programs() -> Vec<bigmac_gpu::Variants> {
            <$op as $crate::elementwise_operator::Elementwise<$inputs>>::KERNELS.programs()
        }

        impl $crate::operator::Operator for $op {
            fn name(&self) -> &'static str {
                <Self as $crate::elementwise_operator::Elementwise<$inputs>>::NAME
            }

            fn infer(
                &self,
                inputs: &[bigmac_runtime::Spec],
                weights: &[bigmac_runtime::Spec],
                need: $crate::operator::Need<'_>,
            ) -> bigmac_runtime::Result<$crate::operator::Inferred> {
                $crate::elementwise_operator::infer::<Self, $inputs>(inputs, weights, need)
            }

            fn forward(
                &self,
                ctx: &bigmac_runtime::Context,
                call: &$crate::operator::Call<'_>,
            ) -> bigmac_runtime::Result<$crate::operator::Forwarded> {
                $crate::elementwise_operator::forward::<Self, $inputs>(*self, ctx, call)
            }

            fn backward_input(
                &self,
                ctx: &bigmac_runtime::Context,
                backward: &$crate::operator::Backward<'_>,
            ) -> bigmac_runtime::Result<$crate::operator::InputGrads> {
                $crate::elementwise_operator::backward::<Self, $inputs>(*self, ctx, backward)
            }
        }
    };
}
pub(crate) use elementwise_operator;

/// True when a gradient that is wanted reads input `k`.
fn saves<E: Elementwise<N>, const N: usize>(need: Need<'_>, k: usize) -> bool {
    (0..N).any(|i| need.input(i) && E::READS[i][k])
}

pub(crate) fn infer<E: Elementwise<N>, const N: usize>(
    inputs: &[Spec],
    weights: &[Spec],
    need: Need<'_>,
) -> Result<Inferred> {
    let saved = (0..N).filter(|&k| saves::<E, N>(need, k)).map(SavedSpec::Input);
    infer_like_inputs::<N>(E::NAME, inputs, weights, saved)
}

/// The elements of `N` contiguous tensors.
fn slices<T: Element, const N: usize>(tensors: [&Tensor; N]) -> Result<[&[T]; N]> {
    let mut slices = [&[][..]; N];
    for (slice, tensor) in slices.iter_mut().zip(tensors) {
        *slice = tensor.as_slice()?;
    }
    Ok(slices)
}

pub(crate) fn forward<E: Elementwise<N>, const N: usize>(
    op: E,
    ctx: &Context,
    call: &Call<'_>,
) -> Result<Forwarded> {
    let x = call.inputs.iter().map(|x| x.contiguous(ctx)).collect::<Result<SmallVec<[Tensor; 2]>>>()?;
    let mut y = Tensor::empty(ctx, x[0].shape(), x[0].dtype())?;
    if ctx.is_gpu() {
        let pointers = x.iter().map(Tensor::arg).chain([y.arg_mut()]);
        launch(op, ctx, E::KERNELS.forward, (x[0].dtype(), x[0].len()), pointers)?;
    } else {
        crate::for_float!(E::NAME, x[0].dtype(), T => {
            map(ctx, slices::<T, N>(from_fn(|k| &x[k]))?, y.as_mut_slice()?, move |x| op.value(x));
            Ok(())
        })?;
    }
    Ok(Forwarded::one(y))
}

pub(crate) fn backward<E: Elementwise<N>, const N: usize>(
    op: E,
    ctx: &Context,
    backward: &Backward<'_>,
) -> Result<InputGrads> {
    let need = backward.need;
    let dy = backward.grad(E::NAME)?.contiguous(ctx)?;
    let mut x: [Option<Tensor>; N] = from_fn(|_| None);
    for (at, k) in (0..N).filter(|&k| saves::<E, N>(need, k)).enumerate() {
        x[k] = Some(backward.saved(E::NAME, at)?.contiguous(ctx)?);
    }
    let mut dx = InputGrads::new();
    for i in 0..N {
        let wanted = need.input(i).then(|| Tensor::empty(ctx, dy.shape(), dy.dtype()));
        dx.push(wanted.transpose()?);
    }
    if ctx.is_gpu() {
        let read = x.iter().map(|x| x.as_ref().map_or(Ok(Arg::NULL), Tensor::arg)).chain([dy.arg()]);
        let written = dx.iter_mut().map(|dx| dx.as_mut().map_or(Ok(Arg::NULL), Tensor::arg_mut));
        launch(op, ctx, E::KERNELS.backward, (dy.dtype(), dy.len()), read.chain(written))?;
    } else {
        // No wanted gradient reads what was not saved: anything of the right length may stand there.
        let read = from_fn(|k| x.get(k).and_then(Option::as_ref).unwrap_or(&dy));
        backward_on_cpu(op, ctx, read, &mut dx)?;
    }
    Ok(dx)
}

/// Writes the wanted gradients; `x` holds the inputs and the output's gradient, which stands last.
fn backward_on_cpu<E: Elementwise<N>, const N: usize>(
    op: E,
    ctx: &Context,
    x: [&Tensor; 3],
    dx: &mut [Option<Tensor>],
) -> Result<()> {
    const { assert!(N == 1 || N == 2) };
    crate::for_float!(E::NAME, x[2].dtype(), T => {
        type A = <T as crate::Float>::Acc;
        let x = slices::<T, 3>(x)?;
        let gradients = move |x: [A; 3]| op.gradients(from_fn(|k| x[k]), x[2]);
        match dx {
            [Some(a), Some(b)] => map_to_two(ctx, x, a.as_mut_slice()?, b.as_mut_slice()?, move |x| {
                let gradients = gradients(x);
                [gradients[0], gradients[N - 1]]
            }),
            [Some(a), ..] => map(ctx, x, a.as_mut_slice()?, move |x| gradients(x)[0]),
            [None, Some(b)] => map(ctx, x, b.as_mut_slice()?, move |x| gradients(x)[N - 1]),
            _ => return Err(Error::argument(E::NAME, "backward was called without a gradient that is wanted")),
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{float_tensor, gpus, random};
    use crate::gelu::Gelu;
    use crate::scale::Scale;
    use crate::silu::Silu;
    use crate::swiglu::SwiGlu;
    use bigmac_close::{absolute, is_close};

    /// Elements `offset..` of a tensor that is longer: contiguous, and not aligned.
    fn view(ctx: &Context, stream: u32, n: usize, offset: usize, dtype: DType) -> Tensor {
        let all = random(&[n + offset], stream);
        float_tensor(ctx, &all, &[n + offset], dtype).unwrap().narrow(0, offset, n).unwrap()
    }

    fn values(ctx: &Context, tensor: &Tensor) -> Vec<f64> {
        let host = tensor.to_cpu(ctx).unwrap();
        crate::check::to_f64(&ctx.host(), &host).unwrap()
    }

    /// The output and the wanted gradients; input `i` starts `i` elements, and the output's gradient `count` elements,
    /// after an aligned one.
    fn evaluate(ctx: &Context, op: &dyn Operator, wanted: &[bool], n: usize, dtype: DType) -> Vec<Vec<f64>> {
        let inputs: Vec<Tensor> = (0..wanted.len()).map(|i| view(ctx, i as u32, n, i, dtype)).collect();
        let need = Need { inputs: wanted, weights: &[] };
        let call = Call { inputs: &inputs.iter().collect::<Vec<_>>(), weights: &[], need };
        let (outputs, saved) = op.record(ctx, &call).unwrap();
        let grads = [Some(view(ctx, 9, n, wanted.len(), dtype))];
        let backward = Backward { saved: &saved, weights: &[], grads: &grads, need };
        let dx = op.backward_input(ctx, &backward).unwrap();
        assert!(dx.iter().map(Option::is_some).eq(wanted.iter().copied()));
        outputs.iter().chain(dx.iter().flatten()).map(|t| values(ctx, t)).collect()
    }

    #[test]
    fn ragged_and_unaligned_tensors_agree_with_the_cpu() {
        let cpu = Context::cpu(0, 1).unwrap();
        let ops: [(&dyn Operator, usize); 5] = [
            (&Gelu { tanh: false }, 1),
            (&Gelu { tanh: true }, 1),
            (&Silu, 1),
            (&Scale { factor: -0.3 }, 1),
            (&SwiGlu, 2),
        ];
        for gpu in gpus().unwrap() {
            let gpu = Context::on_gpu(0, 1, gpu).unwrap();
            for (op, count) in ops {
                // A tile is 2048 elements of F32 and 4096 of BF16, a pack 4 and 8.
                for n in [0, 1, 7, 8, 9, 2047, 2049, 4095, 4096, 4097] {
                    for (dtype, allowed) in [(DType::F32, 1e-6), (DType::BF16, 4e-3)] {
                        for wanted in
                            [&[true, true][..count], &[true, false][..count], &[false, true][..count]]
                        {
                            if !wanted.contains(&true) {
                                continue;
                            }
                            let given = evaluate(&gpu, op, wanted, n, dtype);
                            let expected = evaluate(&cpu, op, wanted, n, dtype);
                            for (given, expected) in given.iter().flatten().zip(expected.iter().flatten()) {
                                let allowed = absolute(allowed * (0.1 + expected.abs()));
                                assert!(
                                    is_close(*given, *expected, allowed),
                                    "{op:?} {dtype} {n}: {given} {expected}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn other_dtypes_are_refused_on_a_gpu() {
        for gpu in gpus().unwrap() {
            let gpu = Context::on_gpu(0, 1, gpu).unwrap();
            let x = Tensor::zeros(&gpu, &[3], DType::F16).unwrap();
            let error = Silu.compute(&gpu, &[&x], &[]).unwrap_err().to_string();
            assert!(error.contains("silu") && error.contains("f16"), "{error}");
        }
    }
}
