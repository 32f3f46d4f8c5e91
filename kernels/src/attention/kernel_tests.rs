//! The GPU's kernels against f64 on the CPU, around the edges of their tiles.

use super::*;
use crate::check::{float_tensor, gpus, random, to_f64};
use bigmac_runtime::DType;
use std::ops::Range;

/// Heads of queries, heads of keys, head size.
type Heads = (usize, usize, usize);

struct Case {
    op: Attention,
    heads: Heads,
    dtype: DType,
    /// q, k, v and the gradient of the output, rounded to `dtype`.
    values: [Vec<f64>; 4],
    /// Whether one order takes tensors out of wider ones, at places that are not multiples of 16 bytes.
    wider: bool,
}

/// Output, log-sum-exps, gradients of q, k and v.
type Results = [Vec<f64>; 5];

const NAMES: [&str; 5] = ["output", "log-sum-exp", "dq", "dk", "dv"];

fn last(bounds: &[usize]) -> usize {
    bounds[bounds.len() - 1]
}

/// Bounds of sequences of those lengths.
fn packed(lengths: &[usize]) -> Vec<usize> {
    let mut bounds = vec![0];
    bounds.extend(lengths.iter().scan(0, |end, len| {
        *end += len;
        Some(*end)
    }));
    bounds
}

impl Case {
    fn new(bounds_q: &[usize], bounds_k: &[usize], causal: bool, heads: Heads, dtype: DType) -> Case {
        let scale = 1.0 / (heads.2 as f64).sqrt();
        let op = Attention {
            bounds_q: bounds_q.into(),
            bounds_k: bounds_k.into(),
            causal,
            scale,
            variant: Some(0),
        };
        let mut case = Case { op, heads, dtype, values: Default::default(), wider: false };
        let host = Context::cpu(0, 1).unwrap();
        for i in 0..4 {
            let shape = case.shape(i);
            let rounded = float_tensor(&host, &random(&shape, i as u32), &shape, dtype).unwrap();
            case.values[i] = to_f64(&host, &rounded).unwrap();
        }
        case
    }

    fn variant(mut self, variant: usize) -> Case {
        self.op.variant = Some(variant);
        self
    }

    fn scale(mut self, scale: f64) -> Case {
        self.op.scale = scale;
        self
    }

    fn wider(mut self) -> Case {
        self.wider = true;
        self
    }

    fn shape(&self, i: usize) -> [usize; 3] {
        let Attention { bounds_q, bounds_k, .. } = &self.op;
        let (heads, key_heads, dim) = self.heads;
        if i == 1 || i == 2 { [last(bounds_k), key_heads, dim] } else { [last(bounds_q), heads, dim] }
    }

    fn run(&self, ctx: &Context, dtype: DType, view: impl Fn(Tensor) -> Tensor) -> Results {
        let [q, k, v, dout] =
            [0, 1, 2, 3].map(|i| view(float_tensor(ctx, &self.values[i], &self.shape(i), dtype).unwrap()));
        let need = Need { inputs: &[true; 3], weights: &[] };
        let call = Call { inputs: &[&q, &k, &v], weights: &[], need };
        let (outputs, saved) = self.op.record(ctx, &call).unwrap();
        let grads = [Some(dout)];
        let backward = Backward { saved: &saved, weights: &[], grads: &grads, need };
        let grads = self.op.backward_input(ctx, &backward).unwrap();
        let lse = backward.saved("attention", 4).unwrap();
        let [dq, dk, dv] = [0, 1, 2].map(|i| to_f64(ctx, grads[i].as_ref().unwrap()).unwrap());
        [to_f64(ctx, &outputs[0]).unwrap(), to_f64(ctx, lse).unwrap(), dq, dk, dv]
    }

    /// Every part within so much of the norm of what f64 gives, and the same bits in every order of threads.
    fn check(&self) {
        let allowed = match self.dtype {
            DType::BF16 => [3e-3, 1e-6, 4e-3, 4e-3, 3e-3],
            _ => [6e-7, 6e-7, 2e-6, 2e-6, 1e-6],
        };
        let wanted = self.run(&Context::cpu(0, 1).unwrap(), DType::F64, |t| t);
        let mut first: Option<Results> = None;
        for (order, gpu) in gpus().unwrap().iter().enumerate() {
            let ctx = Context::on_gpu(0, 1, gpu).unwrap();
            let wider = self.wider && order == 1;
            let given = self.run(&ctx, self.dtype, |t| if wider { in_wider(&ctx, &t) } else { t });
            for (((name, given), wanted), allowed) in NAMES.iter().zip(&given).zip(&wanted).zip(allowed) {
                let pairs = || given.iter().zip(wanted).filter(|(_, w)| w.is_finite());
                let error = pairs().map(|(g, w)| (g - w).powi(2)).sum::<f64>().sqrt();
                let norm = pairs().map(|(_, w)| w * w).sum::<f64>().sqrt();
                assert!(
                    error <= allowed * norm,
                    "{} of {:?} in {}: {:.1e}, allowed {allowed:.1e}",
                    name,
                    self.op,
                    self.dtype,
                    error / norm
                );
                let infinite =
                    |x: &[f64]| x.iter().map(|x| if x.is_finite() { 0.0 } else { *x }).collect::<Vec<_>>();
                assert_eq!(infinite(given), infinite(wanted), "{name} of {:?}", self.op);
            }
            let first = first.get_or_insert_with(|| given.clone());
            assert!(*first == given, "{:?} in order {order} gives other bits", self.op);
        }
    }
}

/// The same values as a view into a tensor whose rows are one element longer.
fn in_wider(ctx: &Context, tensor: &Tensor) -> Tensor {
    let &[tokens, heads, dim] = tensor.shape() else { panic!("{tensor:?}") };
    let values = to_f64(ctx, tensor).unwrap();
    let mut wider = vec![f64::NAN; tokens * heads * (dim + 1)];
    for (wide, row) in wider.chunks_exact_mut(dim + 1).zip(values.chunks_exact(dim)) {
        wide[1..].copy_from_slice(row);
    }
    let wider = float_tensor(ctx, &wider, &[tokens, heads, dim + 1], tensor.dtype()).unwrap();
    wider.narrow(2, 1, dim).unwrap()
}

const EDGES: [usize; 12] = [129, 0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 0];

#[test]
fn every_variant_agrees_around_the_edges_of_tiles() {
    let bounds = packed(&EDGES);
    for (dtype, dim) in [(DType::BF16, 64), (DType::BF16, 128), (DType::F32, 128)] {
        for variant in 0..variants(dtype, dim).len() {
            Case::new(&bounds, &bounds, true, (1, 1, dim), dtype).variant(variant).check();
        }
    }
    Case::new(&bounds, &bounds, false, (1, 1, 64), DType::BF16).wider().check();
    Case::new(&bounds, &bounds, false, (1, 1, 128), DType::F32).wider().check();
}

#[test]
fn more_keys_than_queries_and_fewer_agree() {
    // One query with a cache, queries without keys, keys without queries, queries of which the first see nothing; in
    // the last the first query does not see the last key of a fragment, and sees all before it.
    let bounds_q = packed(&[1, 65, 0, 33, 130, 16, 20]);
    let bounds_k = packed(&[129, 0, 17, 70, 67, 1, 34]);
    for (dtype, dim) in [(DType::BF16, 64), (DType::BF16, 128), (DType::F32, 128)] {
        for causal in [false, true] {
            for variant in [0, 1, 3].into_iter().filter(|&v| v < variants(dtype, dim).len()) {
                Case::new(&bounds_q, &bounds_k, causal, (2, 1, dim), dtype).variant(variant).check();
            }
        }
    }
}

#[test]
fn heads_of_every_size_and_grouping_agree() {
    let bounds = packed(&[31, 0, 66]);
    for (dim, heads, key_heads) in [(8, 4, 1), (24, 4, 2), (40, 2, 2), (72, 4, 1), (256, 2, 1)] {
        for dtype in [DType::BF16, DType::F32] {
            let variant = usize::from(variants(dtype, dim).len() > 1);
            Case::new(&bounds, &bounds, true, (heads, key_heads, dim), dtype).variant(variant).check();
        }
    }
}

/// What belongs to tokens outside `range`, of `tokens` under one head.
fn outside(values: &[f64], tokens: usize, range: &Range<usize>) -> Vec<f64> {
    let width = values.len() / tokens;
    [&values[..range.start * width], &values[range.end * width..]].concat()
}

/// A case over sequences of `before`, 70 and 20 tokens, of which the second has no finite number, and the same case
/// without it.
fn beside_infinities(before: usize, causal: bool, dim: usize, dtype: DType) -> (Case, Case) {
    let case = |lengths: &[usize]| Case::new(&packed(lengths), &packed(lengths), causal, (1, 1, dim), dtype);
    let (mut beside, mut alone) = (case(&[before, 70, 20]), case(&[before, 20]));
    let wild = before..before + 70;
    for (beside, alone) in beside.values.iter_mut().zip(&mut alone.values) {
        *alone = outside(beside, before + 90, &wild);
        let places = beside[wild.start * dim..wild.end * dim].iter_mut().enumerate();
        places.for_each(|(i, x)| *x = [f64::INFINITY, f64::NAN, f64::NEG_INFINITY][i % 3]);
    }
    (beside, alone)
}

#[test]
fn a_sequence_of_infinities_leaves_its_neighbours_as_they_are() {
    for (dtype, dim) in [
        (DType::BF16, 64),
        (DType::BF16, 128),
        (DType::BF16, 40),
        (DType::BF16, 160),
        (DType::F32, 40),
        (DType::F32, 160),
    ] {
        for (variant, (before, causal)) in
            (0..variants(dtype, dim).len()).flat_map(|v| [(v, (130, true)), (v, (33, false))])
        {
            let (beside, alone) = beside_infinities(before, causal, dim, dtype);
            let (beside, alone) = (beside.variant(variant), alone.variant(variant));
            let gpus = gpus().unwrap().iter().map(|gpu| Context::on_gpu(0, 1, gpu).unwrap());
            for (order, ctx) in gpus.chain([Context::cpu(0, 1).unwrap()]).enumerate() {
                // Rows that are not aligned are loaded in another way, which those by warpgroups do not have.
                let wider = order == 1 && dim == 40;
                let run = |case: &Case| case.run(&ctx, dtype, |t| if wider { in_wider(&ctx, &t) } else { t });
                for ((name, given), wanted) in NAMES.iter().zip(run(&beside)).zip(run(&alone)) {
                    let given = outside(&given, before + 90, &(before..before + 70));
                    let same = given.iter().zip(&wanted).all(|(g, w)| g.to_bits() == w.to_bits());
                    assert!(
                        same && given.len() == wanted.len() && wanted.iter().all(|w| w.is_finite()),
                        "{name} of {:?} in {dtype}, order {order}, is not what it is alone",
                        beside.op
                    );
                }
            }
        }
    }
}

#[test]
fn scales_of_any_sign_and_scores_of_any_size_agree() {
    let bounds = packed(&[50, 20]);
    for dtype in [DType::BF16, DType::F32] {
        for scale in [-0.1, 0.0] {
            Case::new(&bounds, &bounds, true, (1, 1, 128), dtype).scale(scale).check();
        }
    }
    // Scores of some thousands: a maximum that is not subtracted would overflow, one of another row would leave
    // nothing.
    let mut case = Case::new(&bounds, &bounds, false, (1, 1, 128), DType::F32);
    case.values[0].iter_mut().for_each(|x| *x = (*x * 1e3).round());
    let wanted = case.run(&Context::cpu(0, 1).unwrap(), DType::F64, |t| t);
    for gpu in gpus().unwrap() {
        let given = case.run(&Context::on_gpu(0, 1, gpu).unwrap(), DType::F32, |t| t);
        for (given, wanted) in given.iter().zip(&wanted) {
            let error = given.iter().zip(wanted).map(|(g, w)| (g - w).powi(2)).sum::<f64>().sqrt();
            let norm = wanted.iter().map(|w| w * w).sum::<f64>().sqrt();
            assert!(error <= 2e-3 * norm, "{:.1e}", error / norm);
        }
    }
}

#[test]
fn slices_of_a_fused_projection_agree_with_copies() {
    for gpu in gpus().unwrap().iter().take(1) {
        let ctx = Context::on_gpu(0, 1, gpu).unwrap();
        let fused = float_tensor(&ctx, &random(&[30, 8, 64], 5), &[30, 8, 64], DType::BF16).unwrap();
        let parts = [(0, 4), (4, 2), (6, 2)].map(|(at, len)| fused.narrow(1, at, len).unwrap());
        let op = Attention {
            bounds_q: [0, 11, 30].into(),
            bounds_k: [0, 11, 30].into(),
            causal: true,
            scale: 0.1,
            variant: None,
        };
        let run = |inputs: [&Tensor; 3]| to_f64(&ctx, &op.compute(&ctx, &inputs, &[]).unwrap()).unwrap();
        let copies = [0, 1, 2].map(|i| parts[i].copy(&ctx).unwrap());
        assert_eq!(run(parts.each_ref()), run(copies.each_ref()));
    }
}

#[test]
fn what_no_kernel_takes_is_told() {
    let Some(gpu) = gpus().unwrap().first() else { return };
    let ctx = Context::on_gpu(0, 1, gpu).unwrap();
    let attention = Attention {
        bounds_q: [0, 1].into(),
        bounds_k: [0, 1].into(),
        causal: true,
        scale: 1.0,
        variant: None,
    };
    let run = |dim: usize, dtype: DType, variant: usize| {
        let x = Tensor::zeros(&ctx, &[1, 1, dim], dtype).unwrap();
        let op = Attention { variant: Some(variant), ..attention.clone() };
        op.compute(&ctx, &[&x, &x, &x], &[]).map(|_| ())
    };
    run(256, DType::BF16, 0).unwrap();
    let message = |dim, variant| run(dim, DType::BF16, variant).unwrap_err().to_string();
    assert!(message(257, 0).contains("257"), "{}", message(257, 0));
    assert!(message(64, 9).contains("variant 9"), "{}", message(64, 9));
    assert!(matches!(run(64, DType::F64, 0), Err(Error::DType { .. })));
}

#[test]
fn tiles_cover_every_token_once_and_long_ones_come_first() {
    let (bounds_q, bounds_k) = (packed(&[100, 0, 7]), packed(&[90, 4, 40]));
    let problem = Problem {
        bounds_q: &bounds_q,
        bounds_k: &bounds_k,
        causal: true,
        scale: 1.0,
        heads: 1,
        key_heads: 1,
        dim: 8,
    };
    for (of_keys, tokens) in [(false, 107), (true, 134)] {
        let tiles = problem.tiles(32, of_keys);
        let tiles: Vec<&[i32]> = tiles.chunks(5).collect();
        let mut covered = vec![0; tokens];
        for tile in &tiles {
            assert!((1..=32).contains(&tile[1]), "{tile:?}");
            covered[tile[0] as usize..][..tile[1] as usize].iter_mut().for_each(|c| *c += 1);
        }
        assert!(covered.iter().all(|&c| c == 1), "{covered:?}");
    }
    // Queries 0..10 of the first sequence see no key; 96..100 see all 90.
    let tiles = problem.tiles(32, false);
    assert_eq!(&tiles[..5], &[96, 4, 0, 90, 87]);
    assert_eq!(&tiles[tiles.len() - 5..], &[0, 32, 0, 90, -9]);
    // Keys that no query reads come last.
    let tiles = problem.tiles(32, true);
    assert_eq!(&tiles[tiles.len() - 5..], &[90, 4, 100, 0, -4]);
}
