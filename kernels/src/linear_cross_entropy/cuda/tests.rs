use super::*;
use crate::check::{float_tensor, gpus, random, to_f64};
use crate::linear_cross_entropy::IGNORED;
use crate::operator::{Backward, Call, Need, Operator, WeightGrads};

/// Extents and arguments of a loss.
struct Case {
    tokens: usize,
    dim: usize,
    words: usize,
    /// Factor of the hidden states: how far logits spread.
    spread: f64,
    targets: Vec<i32>,
}

const SCALE: f64 = 0.37;
const GRAD: f64 = -1.7;

/// Loss, gradient of the hidden states, gradient of the weight.
type Outcome = [Vec<f64>; 3];

impl Case {
    fn new(tokens: usize, dim: usize, words: usize) -> Self {
        let target = |i| if i % 3 == 1 { IGNORED } else { (i * 7 % words) as i32 };
        Case { tokens, dim, words, spread: 1.0, targets: (0..tokens).map(target).collect() }
    }

    /// Hidden states, targets and weight.
    fn arguments(&self, ctx: &Context, dtype: DType) -> [Tensor; 3] {
        let (h, w) = ([self.tokens, self.dim], [self.words, self.dim]);
        let hidden: Vec<f64> = random(&h, 1).iter().map(|x| x * self.spread).collect();
        [
            float_tensor(ctx, &hidden, &h, dtype).unwrap(),
            Tensor::from_slice(ctx, &self.targets, &[self.tokens]).unwrap(),
            float_tensor(ctx, &random(&w, 2), &w, dtype).unwrap(),
        ]
    }

    /// What the kernels give under that plan, the weight's gradient after three other elements, written or added to
    /// ones.
    fn on_gpu(&self, ctx: &Context, dtype: DType, plan: Plan, accumulate: bool) -> Outcome {
        let [hidden, targets, w] = self.arguments(ctx, dtype);
        let pass = Pass::with_plan(ctx, &hidden, &targets, &w, plan).unwrap();
        let (loss, lse) = forward(ctx, &pass, SCALE).unwrap();
        let grad = Tensor::from_slice(ctx, &[GRAD as f32], &[1]).unwrap();
        let len = 3 + w.len() + 2;
        let mut buffer = Tensor::from_slice(ctx, &vec![1f32; len], &[len]).unwrap();
        let range = 3..3 + w.len();
        let dw = WeightGrad { weight: 0, buffer: &mut buffer, range: range.clone(), accumulate };
        let dh = backward(ctx, &pass, &lse, (&grad, SCALE), true, Some(dw)).unwrap().unwrap();
        assert_eq!(dh.spec(), hidden.spec());
        let all: Vec<f64> = buffer.to_vec::<f32>(ctx).unwrap().into_iter().map(f64::from).collect();
        assert!(all[..3].iter().chain(&all[range.end..]).all(|&x| x == 1.0));
        let start = if accumulate { 1.0 } else { 0.0 };
        let host = ctx.host();
        let download = |t: &Tensor| to_f64(&host, &t.to_cpu(ctx).unwrap()).unwrap();
        [download(&loss), download(&dh), all[range].iter().map(|x| x - start).collect()]
    }

    /// The formulas in f64 on arguments rounded to `dtype`.
    fn reference(&self, dtype: DType) -> Outcome {
        let ctx = Context::cpu(0, 1).unwrap();
        let [hidden, _, w] = self.arguments(&ctx, dtype).map(|t| to_f64(&ctx, &t).unwrap_or_default());
        let (dim, mut loss) = (self.dim, 0.0);
        let (mut dh, mut dw) = (vec![0.0; hidden.len()], vec![0.0; w.len()]);
        for (row, &target) in self.targets.iter().enumerate().filter(|(_, t)| **t != IGNORED) {
            let h = &hidden[row * dim..][..dim];
            let logits: Vec<f64> = w.chunks(dim).map(|w| w.iter().zip(h).map(|(w, h)| w * h).sum()).collect();
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let lse = max + logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            loss += lse - logits[target as usize];
            for (word, logit) in logits.iter().enumerate() {
                let hit = if word == target as usize { 1.0 } else { 0.0 };
                let g = GRAD * SCALE * ((logit - lse).exp() - hit);
                for d in 0..dim {
                    dh[row * dim + d] += g * w[word * dim + d];
                    dw[word * dim + d] += g * h[d];
                }
            }
        }
        [vec![SCALE * loss], dh, dw]
    }

    /// Compares every part, as a share of its norm.
    fn compare(&self, given: &Outcome, dtype: DType, allowed: [f64; 3]) {
        for (part, (given, wanted)) in given.iter().zip(self.reference(dtype)).enumerate() {
            let error: f64 = given.iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            let norm: f64 = wanted.iter().map(|b| b * b).sum::<f64>().sqrt();
            let Case { tokens, dim, words, .. } = self;
            let what = format!("{tokens} x {dim} x {words} {dtype}, part {part}: {error:e} of {norm:e}");
            assert_eq!(given.len(), wanted.len());
            assert!(error <= allowed[part] * norm + 1e-30, "{what}");
        }
    }
}

/// The loss has no rounding to bf16 in it, gradients have.
fn allowed(dtype: DType) -> [f64; 3] {
    if dtype == DType::F32 { [2e-6, 3e-6, 3e-6] } else { [3e-6, 4e-3, 4e-3] }
}

fn contexts() -> Vec<Context> {
    gpus().unwrap().iter().map(|gpu| Context::on_gpu(0, 1, gpu).unwrap()).collect()
}

#[test]
fn blocks_and_chunks_of_every_size_agree() {
    for (number, (tokens, words, plan)) in [
        (1, 1, Plan { tokens: 1, words: 8 }),
        (5, 7, Plan { tokens: 5, words: 8 }),
        (5, 8, Plan { tokens: 4, words: 8 }),
        (9, 9, Plan { tokens: 4, words: 8 }),
        (8, 40, Plan { tokens: 4, words: 16 }),
        (13, 41, Plan { tokens: 13, words: 40 }),
        (7, 100, Plan { tokens: 3, words: 40 }),
        (8, 24, Plan { tokens: 4, words: 8 }),
    ]
    .into_iter()
    .enumerate()
    {
        let case = Case::new(tokens, 16, words);
        for dtype in [DType::F32, DType::BF16] {
            let mut first = None;
            for ctx in contexts() {
                let given = case.on_gpu(&ctx, dtype, plan, number % 2 == 1);
                case.compare(&given, dtype, allowed(dtype));
                // The order of threads changes nothing.
                assert_eq!(first.get_or_insert_with(|| given.clone()), &given);
            }
        }
    }
}

#[test]
fn rows_around_what_a_block_of_threads_has_under_way_agree() {
    for words in [512, 517, 4099] {
        let case = Case::new(4, 8, words);
        for dtype in [DType::F32, DType::BF16] {
            for ctx in contexts() {
                let given = case.on_gpu(&ctx, dtype, Plan::new(4, words, 6), false);
                case.compare(&given, dtype, allowed(dtype));
            }
        }
    }
}

#[test]
fn far_apart_logits_lose_nothing() {
    // Logits of up to a few hundred: exponentials of most are 0, and sums of the earlier chunks vanish beside a later
    // maximum.
    for spread in [30.0, 1e-4] {
        let case = Case { spread, ..Case::new(6, 16, 50) };
        let plan = Plan { tokens: 4, words: 16 };
        for dtype in [DType::F32, DType::BF16] {
            for ctx in contexts() {
                case.compare(&case.on_gpu(&ctx, dtype, plan, false), dtype, allowed(dtype));
            }
        }
    }
}

#[test]
fn tokens_without_a_target_cost_nothing() {
    let plan = Plan { tokens: 4, words: 8 };
    for targets in [vec![IGNORED; 6], vec![]] {
        let case = Case { targets: targets.clone(), ..Case::new(targets.len(), 16, 20) };
        for ctx in contexts() {
            for dtype in [DType::F32, DType::BF16] {
                let [loss, dh, dw] = case.on_gpu(&ctx, dtype, plan, false);
                assert_eq!(loss, [0.0]);
                assert!(dh.iter().chain(&dw).all(|&x| x == 0.0));
                assert!(case.on_gpu(&ctx, dtype, plan, true)[2].iter().all(|&x| x == 0.0));
            }
        }
    }
}

#[test]
fn a_target_outside_the_vocabulary_makes_the_loss_nan() {
    let plan = Plan { tokens: 8, words: 8 };
    for wrong in [20, -1, -99, -101, i32::MAX, i32::MIN] {
        let case = Case { targets: vec![3, wrong, IGNORED, 19], ..Case::new(4, 16, 20) };
        let right = Case { targets: vec![3, IGNORED, IGNORED, 19], ..Case::new(4, 16, 20) };
        for ctx in contexts() {
            let [loss, dh, dw] = case.on_gpu(&ctx, DType::F32, plan, false);
            assert!(loss[0].is_nan() && dw.iter().all(|x| x.is_nan()));
            assert!(dh[16..32].iter().all(|x| x.is_nan()));
            let [_, wanted, _] = right.on_gpu(&ctx, DType::F32, plan, false);
            assert!(dh[..16] == wanted[..16] && dh[32..] == wanted[32..]);
        }
    }
}

#[test]
fn both_gradients_at_once_are_those_one_by_one() {
    struct Sink<'a>(&'a mut Tensor);
    impl WeightGrads for Sink<'_> {
        fn of(&mut self, _weight: usize) -> WeightGrad<'_> {
            let range = 0..self.0.len();
            WeightGrad { weight: 0, buffer: self.0, range, accumulate: false }
        }
    }
    let op = LinearCrossEntropy { scale: SCALE, chunk: 8 };
    let case = Case::new(5, 16, 20);
    for ctx in contexts() {
        let [hidden, targets, w] = case.arguments(&ctx, DType::BF16);
        let need = Need { inputs: &[true, false], weights: &[true] };
        let call = Call { inputs: &[&hidden, &targets], weights: &[&w], need };
        let (_, saved) = op.record(&ctx, &call).unwrap();
        let grads = [Some(Tensor::from_slice(&ctx, &[GRAD as f32], &[1]).unwrap())];
        let backward = Backward { saved: &saved, weights: &[&w], grads: &grads, need };
        let buffer = || Tensor::zeros(&ctx, &[w.len()], DType::F32).unwrap();
        let (mut together, mut alone) = (buffer(), buffer());
        let both = op.backward_all(&ctx, &backward, &mut Sink(&mut together)).unwrap();
        op.backward_weight(&ctx, &backward, Sink(&mut alone).of(0)).unwrap();
        let single = op.backward_input(&ctx, &backward).unwrap();
        let bytes = |t: &Tensor| t.to_cpu(&ctx).unwrap().as_bytes().unwrap().to_vec();
        assert!(bytes(&together) == bytes(&alone));
        assert!(bytes(both[0].as_ref().unwrap()) == bytes(single[0].as_ref().unwrap()));
    }
}

#[test]
fn plans_keep_to_the_workspace_and_make_whole_tiles() {
    for tokens in [0, 1, 700, 8192, 100_000] {
        for words in [1, 127, 260, 32_000, 151_936] {
            for bytes in [4, 6] {
                let plan = Plan::new(tokens, words, bytes);
                assert!(plan.tokens >= 1 && plan.tokens <= TOKENS && plan.words.is_multiple_of(WORDS));
                let used = plan.tokens * plan.words.min(words) * bytes;
                assert!(used <= WORKSPACE + plan.tokens * WORDS * bytes, "{tokens} {words}: {used}");
            }
        }
    }
    // A vocabulary that fits is one chunk.
    assert_eq!(Plan::new(4096, 260, 6), Plan { tokens: 4096, words: 384 });
}
