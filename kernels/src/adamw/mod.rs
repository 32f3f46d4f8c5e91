//! AdamW.

mod cpu;
pub(crate) mod cuda;
mod group;
mod member;

pub use group::Group;
pub use member::{Clip, Member, State};

use crate::numeric::Float;
use bigmac_runtime::{Context, DType, Error, Result, Tensor};

/// The numbers of one AdamW step.
///
/// Source: Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, arXiv 1711.05101, algorithm 2, with the
/// arithmetic of `torch.optim.AdamW`: the decay is `lr * weight_decay`, and `eps` is added after the bias correction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of the weight.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// What gradients are multiplied with first: 1, or less to clip their norm.
    pub grad_scale: f64,
}

/// What stays the same for all elements, worked out in f64.
#[derive(Clone, Copy)]
struct Coefficients {
    grad_scale: f32,
    one_minus_beta: [f32; 2],
    beta2: f32,
    inverse_root: f32,
    eps: f32,
    keep: f32,
    rate: f32,
}

impl Coefficients {
    fn of(a: AdamW) -> Self {
        let corrections = a.betas.map(|beta| 1.0 - beta.powf(a.step as f64));
        Coefficients {
            grad_scale: a.grad_scale as f32,
            one_minus_beta: a.betas.map(|beta| (1.0 - beta) as f32),
            beta2: a.betas[1] as f32,
            inverse_root: (1.0 / corrections[1].sqrt()) as f32,
            eps: a.eps as f32,
            keep: (1.0 - a.lr * a.weight_decay) as f32,
            rate: (a.lr / corrections[0]) as f32,
        }
    }
}

const OP: &str = "adamw";

impl AdamW {
    fn check(&self) -> Result<()> {
        if self.step == 0 {
            return Err(Error::argument(OP, "expected a step from 1, got step 0"));
        }
        Ok(())
    }
}

/// Updates a parameter on the CPU and its moments in one pass. [`Group::step`] updates many, on any device.
///
/// `param` is contiguous, unshared, and F32, BF16 or F16. With a `master` copy in f32 that copy is updated, and the
/// parameter is written as the master rounded. All slices are as long as the parameter.
///
/// # Errors
/// [`Error::Argument`] for step 0 or slices of another length; [`Error::DType`] for any other dtype;
/// [`Error::NotContiguous`], [`Error::Shared`].
pub fn step(
    ctx: &Context,
    adamw: AdamW,
    param: &mut Tensor,
    master: Option<&mut [f32]>,
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) -> Result<()> {
    adamw.check()?;
    let len = param.len();
    for (what, given) in [
        ("gradients", grad.len()),
        ("first moments", m.len()),
        ("second moments", v.len()),
        ("master weights", master.as_ref().map_or(len, |m| m.len())),
    ] {
        if given != len {
            return Err(Error::argument(
                OP,
                format!("expected {len} {what}, one per element of the parameter, got {given} {what}"),
            ));
        }
    }
    fn update<T: Float<Acc = f32>>(
        ctx: &Context,
        adamw: AdamW,
        param: &mut Tensor,
        master: Option<&mut [f32]>,
        grad: &[f32],
        moments: (&mut [f32], &mut [f32]),
    ) -> Result<()> {
        cpu::update::<T>(ctx, adamw, param.as_mut_slice()?, master, grad, moments);
        Ok(())
    }
    match param.dtype() {
        DType::F32 => update::<f32>(ctx, adamw, param, master, grad, (m, v)),
        DType::BF16 => update::<half::bf16>(ctx, adamw, param, master, grad, (m, v)),
        DType::F16 => update::<half::f16>(ctx, adamw, param, master, grad, (m, v)),
        given => Err(Error::DType { op: OP, given, wanted: "f32, bf16 or f16".into() }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::check::{float_tensor, random, to_f64};
    use bigmac_close::{absolute, assert_all_close, assert_close};

    pub(crate) const ADAMW: AdamW =
        AdamW { lr: 3e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 0.5 };

    /// The formulas of `torch.optim.AdamW`'s documentation, one after the other, in f64.
    pub(crate) fn reference(a: AdamW, p: &mut f64, g: f64, m: &mut f64, v: &mut f64) {
        let g = g * a.grad_scale;
        *p -= a.lr * a.weight_decay * *p;
        *m = a.betas[0] * *m + (1.0 - a.betas[0]) * g;
        *v = a.betas[1] * *v + (1.0 - a.betas[1]) * g * g;
        let m_hat = *m / (1.0 - a.betas[0].powf(a.step as f64));
        let v_hat = *v / (1.0 - a.betas[1].powf(a.step as f64));
        *p -= a.lr * m_hat / (v_hat.sqrt() + a.eps);
    }

    struct State {
        param: Tensor,
        master: Option<Vec<f32>>,
        m: Vec<f32>,
        v: Vec<f32>,
    }

    fn run(ctx: &Context, values: &[f64], dtype: DType, with_master: bool, steps: u64) -> State {
        let len = values.len();
        let mut state = State {
            param: float_tensor(ctx, values, &[len], dtype).unwrap(),
            master: with_master.then(|| values.iter().map(|&v| v as f32).collect()),
            m: vec![0.0; len],
            v: vec![0.0; len],
        };
        for number in 1..=steps {
            let grad: Vec<f32> = random(&[len], number as u32).iter().map(|&g| g as f32).collect();
            let adamw = AdamW { step: number, ..ADAMW };
            let State { param, master, m, v } = &mut state;
            step(ctx, adamw, param, master.as_deref_mut(), &grad, m, v).unwrap();
        }
        state
    }

    #[test]
    fn ten_steps_agree_with_the_formulas_for_any_number_of_threads() {
        let len = 40_001;
        let values = random(&[len], 99);
        let (mut p, mut m, mut v) = (values.clone(), vec![0.0; len], vec![0.0; len]);
        for number in 1..=10 {
            let adamw = AdamW { step: number, ..ADAMW };
            for (i, g) in random(&[len], number as u32).iter().enumerate() {
                reference(adamw, &mut p[i], f64::from(*g as f32), &mut m[i], &mut v[i]);
            }
        }
        let (one, three) = (Context::cpu(0, 1).unwrap(), Context::cpu(0, 3).unwrap());
        let state = run(&one, &values, DType::F32, false, 10);
        let given = state.param.as_slice::<f32>().unwrap();
        assert_all_close(given, &p, absolute(2e-6));
        assert_all_close(&state.m, &m, absolute(1e-6));
        assert_all_close(&state.v, &v, absolute(1e-6));
        let other = run(&three, &values, DType::F32, false, 10);
        assert_eq!(other.param.as_slice::<f32>().unwrap(), given);
        assert_eq!((other.m, other.v), (state.m, state.v));
        // A master moves as an f32 parameter does, and the parameter is the master rounded.
        for dtype in [DType::BF16, DType::F16] {
            let halved = run(&one, &values, dtype, true, 10);
            let master = halved.master.unwrap();
            assert_eq!(master, given);
            let master: Vec<f64> = master.iter().map(|&x| f64::from(x)).collect();
            let rounded = float_tensor(&one, &master, &[len], dtype).unwrap();
            assert_eq!(to_f64(&one, &halved.param).unwrap(), to_f64(&one, &rounded).unwrap());
        }
    }

    #[test]
    fn a_half_parameter_without_a_master_is_rounded_at_each_step() {
        let ctx = Context::cpu(0, 1).unwrap();
        let state = run(&ctx, &[1.0, -2.0], DType::BF16, false, 1);
        // The first step moves by lr against the sign of the gradient, after the decay.
        for ((p, start), g) in
            to_f64(&ctx, &state.param).unwrap().iter().zip([1.0, -2.0]).zip(random(&[2], 1))
        {
            let exact = start * (1.0 - 3e-4) - 3e-3 * g.signum();
            assert_close(*p, exact, absolute(exact.abs() / 256.0));
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let ctx = Context::cpu(0, 1).unwrap();
        let mut param = Tensor::zeros(&ctx, &[2], DType::F32).unwrap();
        let mut call = |adamw: AdamW, grad: &[f32]| {
            step(&ctx, adamw, &mut param, None, grad, &mut [0.0; 2], &mut [0.0; 2]).map_err(|e| e.to_string())
        };
        assert!(call(AdamW { step: 0, ..ADAMW }, &[0.0; 2]).unwrap_err().contains("step 0"));
        assert!(call(ADAMW, &[0.0; 3]).unwrap_err().contains("3 gradients"));
        assert!(call(ADAMW, &[0.0; 2]).is_ok());
        let mut wrong = Tensor::zeros(&ctx, &[2], DType::F64).unwrap();
        assert!(step(&ctx, ADAMW, &mut wrong, None, &[0.0; 2], &mut [0.0; 2], &mut [0.0; 2]).is_err());
    }
}
