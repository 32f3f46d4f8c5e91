use super::*;
use crate::adamw::cuda::CHUNK;
use crate::adamw::step;
use crate::adamw::tests::{ADAMW, reference};
use crate::check::{float_tensor, gpus, random};
use bigmac_close::{absolute, is_close};
use std::ops::Range;

/// Odd lengths put what follows out of step with packs; there are chunks one short, full and one over.
const SHAPES: [&[usize]; 9] =
    [&[4, 24], &[7], &[3, 5], &[1], &[CHUNK - 1], &[CHUNK], &[CHUNK / 4 + 1, 4], &[2 * CHUNK + 8], &[0, 3]];
const FROZEN: usize = 3;

fn contexts() -> Vec<Context> {
    let gpus = gpus().unwrap().iter().map(|gpu| Context::on_gpu(0, 1, gpu).unwrap());
    [Context::cpu(0, 2).unwrap()].into_iter().chain(gpus).collect()
}

/// A module in training.
struct Module {
    weights: Vec<Tensor>,
    ranges: Vec<Range<usize>>,
    len: usize,
    first: Tensor,
    second: Tensor,
    master: Option<Tensor>,
    group: Group,
}

fn values(i: usize) -> Vec<f64> {
    random(SHAPES[i], 40 + i as u32)
}

impl Module {
    /// Weight `i` has dtype `dtype(i)`; with masters when one of them is not F32.
    fn new(ctx: &Context, dtype: impl Fn(usize) -> DType) -> Self {
        let count = SHAPES.len();
        let weights: Vec<Tensor> =
            (0..count).map(|i| float_tensor(ctx, &values(i), SHAPES[i], dtype(i)).unwrap()).collect();
        let mut len = 0;
        let mut ranges = Vec::new();
        for weight in &weights {
            ranges.push(len..len + weight.len());
            len += weight.len();
        }
        let zeros = || Tensor::zeros(ctx, &[len], DType::F32).unwrap();
        let all: Vec<f64> = (0..count).flat_map(values).collect();
        let half = (0..count).any(|i| dtype(i) != DType::F32);
        let master = half.then(|| float_tensor(ctx, &all, &[len], DType::F32).unwrap());
        Module { weights, ranges, len, first: zeros(), second: zeros(), master, group: Group::default() }
    }

    fn gradients(&self, number: u64) -> Vec<f32> {
        random(&[self.len], number as u32).iter().map(|&g| g as f32).collect()
    }

    fn step(&mut self, ctx: &Context, number: u64, clip: Option<(f32, f64)>) {
        let gradients = Tensor::from_slice(ctx, &self.gradients(number), &[self.len]).unwrap();
        let squares = clip.map(|(squares, _)| Tensor::from_slice(ctx, &[squares], &[1]).unwrap());
        let clip = clip.zip(squares.as_ref()).map(|((_, max_norm), squares)| Clip { squares, max_norm });
        let members = self.weights.iter_mut().zip(&self.ranges).enumerate();
        let members = members.filter(|(i, _)| *i != FROZEN).map(|(i, (weight, range))| Member {
            weight,
            range: range.clone(),
            decays: SHAPES[i].len() > 1,
        });
        let state = State { first: &mut self.first, second: &mut self.second, master: self.master.as_mut() };
        let adamw = AdamW { step: number, ..ADAMW };
        self.group.step(ctx, adamw, clip, members, &gradients, state).unwrap();
    }

    /// All that a step changes, as bytes.
    fn bytes(&self, ctx: &Context) -> Vec<Vec<u8>> {
        let state = [&self.first, &self.second].into_iter().chain(&self.master);
        let download = |t: &Tensor| t.to_cpu(ctx).unwrap().as_bytes().unwrap().to_vec();
        self.weights.iter().chain(state).map(download).collect()
    }
}

/// What [`step`] makes of each parameter alone, on the CPU.
fn one_by_one(dtype: impl Fn(usize) -> DType, steps: u64, grad_scale: f64) -> (Context, Module) {
    let ctx = Context::cpu(0, 1).unwrap();
    let mut module = Module::new(&ctx, dtype);
    for number in 1..=steps {
        let gradients = module.gradients(number);
        for i in (0..SHAPES.len()).filter(|&i| i != FROZEN) {
            let range = module.ranges[i].clone();
            let weight_decay = if SHAPES[i].len() > 1 { ADAMW.weight_decay } else { 0.0 };
            let adamw = AdamW { step: number, weight_decay, grad_scale, ..ADAMW };
            let master = module.master.as_mut().map(|m| &mut m.as_mut_slice().unwrap()[range.clone()]);
            let m = &mut module.first.as_mut_slice().unwrap()[range.clone()];
            let v = &mut module.second.as_mut_slice().unwrap()[range.clone()];
            step(&ctx, adamw, &mut module.weights[i], master, &gradients[range], m, v).unwrap();
        }
    }
    (ctx, module)
}

fn mixed(i: usize) -> DType {
    if i.is_multiple_of(3) { DType::F32 } else { DType::BF16 }
}

#[test]
fn all_at_once_gives_what_each_alone_gives_to_the_bit() {
    for dtype in [|_| DType::F32, |_| DType::BF16, mixed] {
        let (cpu, wanted) = one_by_one(dtype, 3, ADAMW.grad_scale);
        for ctx in contexts() {
            let mut module = Module::new(&ctx, dtype);
            (1..=3).for_each(|number| module.step(&ctx, number, None));
            assert!(module.bytes(&ctx) == wanted.bytes(&cpu), "{:?}", ctx.device());
        }
    }
}

#[test]
fn half_precision_weights_without_masters_are_rounded_at_each_step() {
    let without = |ctx: &Context| Module { master: None, ..Module::new(ctx, |_| DType::BF16) };
    let all: Vec<_> = contexts()
        .iter()
        .map(|ctx| {
            let mut module = without(ctx);
            (1..=2).for_each(|number| module.step(ctx, number, None));
            module.bytes(ctx)
        })
        .collect();
    assert!(all.iter().all(|bytes| *bytes == all[0]));
    let ctx = &contexts()[0];
    assert!(all[0][0] != without(ctx).bytes(ctx)[0]);
}

#[test]
fn three_steps_agree_with_the_formulas() {
    for ctx in contexts() {
        let mut module = Module::new(&ctx, |_| DType::F32);
        (1..=3).for_each(|number| module.step(&ctx, number, None));
        for (i, range) in module.ranges.iter().enumerate() {
            let given: Vec<f32> = module.weights[i].to_vec(&ctx).unwrap();
            let mut wanted = values(i);
            if i != FROZEN {
                let weight_decay = if SHAPES[i].len() > 1 { ADAMW.weight_decay } else { 0.0 };
                let (mut m, mut v) = (vec![0.0; range.len()], vec![0.0; range.len()]);
                for number in 1..=3 {
                    let gradients = &module.gradients(number)[range.clone()];
                    let adamw = AdamW { step: number, weight_decay, ..ADAMW };
                    for (k, &g) in gradients.iter().enumerate() {
                        reference(adamw, &mut wanted[k], f64::from(g), &mut m[k], &mut v[k]);
                    }
                }
            }
            for (given, wanted) in given.iter().zip(wanted) {
                assert!(is_close(*given, wanted, absolute(1e-6)), "{i}: {given} {wanted}");
            }
        }
    }
}

#[test]
fn gradients_are_clipped_by_a_norm_on_the_device() {
    // A norm of 2 against at most 0.5, 2 and 3.
    let (_, quarter) = one_by_one(|_| DType::F32, 1, ADAMW.grad_scale / 4.0);
    let cpu = Context::cpu(0, 1).unwrap();
    for ctx in contexts() {
        for (max_norm, wanted) in [(0.5, Some(&quarter)), (2.0, None), (3.0, None), (f64::INFINITY, None)] {
            let mut module = Module::new(&ctx, |_| DType::F32);
            module.step(&ctx, 1, Some((4.0, max_norm)));
            let mut plain = Module::new(&ctx, |_| DType::F32);
            plain.step(&ctx, 1, None);
            // Powers of two: scaling is exact.
            let wanted = wanted.map_or_else(|| plain.bytes(&ctx), |w| w.bytes(&cpu));
            assert!(module.bytes(&ctx) == wanted, "{:?} {max_norm}", ctx.device());
        }
    }
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing() {
    for ctx in contexts() {
        for squares in [f32::NAN, f32::INFINITY, -1.0] {
            let mut module = Module::new(&ctx, mixed);
            module.step(&ctx, 1, None);
            let before = module.bytes(&ctx);
            module.step(&ctx, 2, Some((squares, 1.0)));
            assert!(module.bytes(&ctx) == before, "{:?} {squares}", ctx.device());
        }
    }
}

#[test]
fn weights_that_have_moved_are_found() {
    for ctx in contexts() {
        let mut module = Module::new(&ctx, |_| DType::F32);
        module.step(&ctx, 1, None);
        let left = module.weights[0].copy(&ctx).unwrap();
        let old = std::mem::replace(&mut module.weights[0], left);
        let before: Vec<f32> = old.to_vec(&ctx).unwrap();
        module.step(&ctx, 2, None);
        assert_eq!(old.to_vec::<f32>(&ctx).unwrap(), before);
        let (cpu, wanted) = one_by_one(|_| DType::F32, 2, ADAMW.grad_scale);
        assert!(module.bytes(&ctx) == wanted.bytes(&cpu), "{:?}", ctx.device());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for ctx in contexts() {
        let zeros = |len: usize, dtype| Tensor::zeros(&ctx, &[len], dtype).unwrap();
        let call = |adamw: AdamW, ranges: [Range<usize>; 2], len: usize, squares: Tensor, max_norm: f64| {
            let (mut a, mut b) = (zeros(3, DType::F32), zeros(5, DType::F32));
            let weights = [&mut a, &mut b];
            let members = weights.into_iter().zip(ranges);
            let members = members.map(|(weight, range)| Member { weight, range, decays: true });
            let (mut first, mut second) = (zeros(8, DType::F32), zeros(8, DType::F32));
            let state = State { first: &mut first, second: &mut second, master: None };
            let clip = Some(Clip { squares: &squares, max_norm });
            let mut group = Group::default();
            let done = group.step(&ctx, adamw, clip, members, &zeros(len, DType::F32), state);
            done.map_err(|e| e.to_string())
        };
        let one = || zeros(1, DType::F32);
        assert_eq!(call(ADAMW, [0..3, 3..8], 8, one(), 1.0), Ok(()));
        let refused = [
            (call(AdamW { step: 0, ..ADAMW }, [0..3, 3..8], 8, one(), 1.0), "step 0"),
            (call(ADAMW, [0..3, 2..7], 8, one(), 1.0), "from 3 on"),
            (call(ADAMW, [0..3, 4..9], 8, one(), 1.0), "within 8"),
            (call(ADAMW, [0..2, 3..8], 8, one(), 1.0), "weight of 3"),
            (call(ADAMW, [0..3, 3..8], 9, one(), 1.0), "flat buffer [9]"),
            (call(ADAMW, [0..3, 3..8], 8, zeros(2, DType::F32), 1.0), "flat buffer [1]"),
            (call(ADAMW, [0..3, 3..8], 8, zeros(1, DType::I32), 1.0), "got i32"),
            (call(ADAMW, [0..3, 3..8], 8, one(), 0.0), "norm above 0"),
        ];
        for (given, wanted) in refused {
            let message = given.unwrap_err();
            assert!(message.contains(wanted), "{wanted}: {message}");
        }
    }
}
