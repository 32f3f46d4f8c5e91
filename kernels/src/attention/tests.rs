use super::*;
use crate::check::{Check, float_tensor, random, to_f64};
use bigmac_close::{absolute, assert_close};
use bigmac_runtime::DType;

fn attention(bounds_q: &[usize], bounds_k: &[usize], causal: bool, dim: usize) -> Attention {
    let scale = 1.0 / (dim as f64).sqrt();
    Attention { bounds_q: bounds_q.into(), bounds_k: bounds_k.into(), causal, scale, variant: None }
}

fn check(
    bounds_q: &[usize],
    bounds_k: &[usize],
    causal: bool,
    (heads, key_heads, dim): (usize, usize, usize),
) {
    let (t, s) = (bounds_q[bounds_q.len() - 1], bounds_k[bounds_k.len() - 1]);
    let kv = [s, key_heads, dim];
    Check::new(&attention(bounds_q, bounds_k, causal, dim))
        .input(&[t, heads, dim])
        .input(&kv)
        .input(&kv)
        .run()
        .unwrap();
}

#[test]
fn gradients_agree_over_packed_sequences() {
    for causal in [false, true] {
        check(&[0, 1], &[0, 1], causal, (1, 1, 1));
        check(&[0, 5, 12], &[0, 5, 12], causal, (4, 2, 24));
        check(&[0, 3, 3, 20], &[0, 3, 3, 20], causal, (3, 1, 7));
        check(&[0, 17], &[0, 17], causal, (2, 2, 33));
        // More keys than queries, as with a cache, and more queries than keys, where the first see none if causal.
        check(&[0, 2, 5], &[0, 9, 20], causal, (2, 1, 8));
        check(&[0, 6, 7], &[0, 4, 6], causal, (2, 2, 5));
        check(&[0, 4, 6], &[0, 0, 3], causal, (2, 1, 4));
    }
}

#[test]
fn gradients_agree_over_several_blocks_of_keys() {
    check(&[0, 20, 150], &[0, 140, 410], true, (2, 1, 3));
    check(&[0, 20], &[0, 260], false, (2, 1, 3));
}

#[test]
fn no_tokens_give_no_tokens() {
    check(&[0], &[0], true, (2, 1, 4));
    check(&[0, 0], &[0, 0], true, (2, 1, 4));
}

/// Scores, softmax and sum written out.
fn reference(
    op: &Attention,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    (heads, key_heads, dim): (usize, usize, usize),
) -> Vec<f64> {
    let mut out = vec![0.0; q.len()];
    for (bq, bk) in op.bounds_q.windows(2).zip(op.bounds_k.windows(2)) {
        let (n, m) = (bq[1] - bq[0], bk[1] - bk[0]);
        for i in 0..n {
            for h in 0..heads {
                let g = h / (heads / key_heads);
                let at = ((bq[0] + i) * heads + h) * dim;
                let row = |x: &[f64], j: usize| x[((bk[0] + j) * key_heads + g) * dim..][..dim].to_vec();
                let seen: Vec<usize> = (0..m)
                    .filter(|&j| !op.causal || j as isize <= i as isize + m as isize - n as isize)
                    .collect();
                let e: Vec<f64> = seen
                    .iter()
                    .map(|&j| {
                        let dot: f64 = q[at..at + dim].iter().zip(row(k, j)).map(|(a, b)| a * b).sum();
                        (dot * op.scale).exp()
                    })
                    .collect();
                let sum: f64 = e.iter().sum();
                for (&j, e) in seen.iter().zip(&e) {
                    for (out, v) in out[at..at + dim].iter_mut().zip(row(v, j)) {
                        *out += e / sum * v;
                    }
                }
            }
        }
    }
    out
}

#[test]
fn outputs_agree_with_the_definition() {
    let ctx = Context::cpu(0, 1).unwrap();
    for causal in [false, true] {
        for (bounds_q, bounds_k) in [
            (&[0, 7, 40, 40][..], &[0, 7, 40, 40][..]),
            (&[0, 1, 3], &[0, 150, 153]),
            (&[0, 9, 60], &[0, 3, 300]),
        ] {
            let (heads, key_heads, dim) = (4, 2, 24);
            let op = attention(bounds_q, bounds_k, causal, dim);
            let (t, s) = (bounds_q[bounds_q.len() - 1], bounds_k[bounds_k.len() - 1]);
            let (q, k, v) = (
                random(&[t, heads, dim], 1),
                random(&[s, key_heads, dim], 2),
                random(&[s, key_heads, dim], 3),
            );
            let tensor = |x: &[f64], shape: &[usize]| float_tensor(&ctx, x, shape, DType::F64).unwrap();
            let (tq, tk, tv) = (
                tensor(&q, &[t, heads, dim]),
                tensor(&k, &[s, key_heads, dim]),
                tensor(&v, &[s, key_heads, dim]),
            );
            let out = op.compute(&ctx, &[&tq, &tk, &tv], &[]).unwrap();
            let out = to_f64(&ctx, &out).unwrap();
            for (a, b) in out.iter().zip(reference(&op, &q, &k, &v, (heads, key_heads, dim))) {
                assert_close(*a, b, absolute(1e-12));
            }
        }
    }
}

#[test]
fn slices_of_a_fused_projection_give_the_same() {
    let ctx = Context::cpu(0, 1).unwrap();
    let fused = float_tensor(&ctx, &random(&[30, 8, 24], 5), &[30, 8, 24], DType::F32).unwrap();
    let parts: Vec<Tensor> =
        [(0, 4), (4, 2), (6, 2)].iter().map(|&(at, len)| fused.narrow(1, at, len).unwrap()).collect();
    let copies: Vec<Tensor> = parts.iter().map(|p| p.copy(&ctx).unwrap()).collect();
    let op = attention(&[0, 11, 30], &[0, 11, 30], true, 24);
    let dy = Some(float_tensor(&ctx, &random(&[30, 4, 24], 6), &[30, 4, 24], DType::F32).unwrap());
    let run = |inputs: &[Tensor]| {
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let need = Need { inputs: &[true; 3], weights: &[] };
        let (outputs, saved) = op.record(&ctx, &Call { inputs: &inputs, weights: &[], need }).unwrap();
        let grads = [dy.clone()];
        let backward = Backward { saved: &saved, weights: &[], grads: &grads, need };
        let grads = op.backward_input(&ctx, &backward).unwrap();
        let all = [Some(outputs[0].clone())].into_iter().chain(grads);
        all.map(|t| to_f64(&ctx, &t.unwrap()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(&parts), run(&copies));
}

#[test]
fn only_wanted_gradients_come_and_scores_may_be_huge() {
    let ctx = Context::cpu(0, 1).unwrap();
    let big: Vec<f64> = random(&[20, 1, 8], 7).iter().map(|x| x * 1e3).collect();
    let x = float_tensor(&ctx, &big, &[20, 1, 8], DType::F32).unwrap();
    let op = attention(&[0, 20], &[0, 20], true, 8);
    for wanted in 0..3 {
        let need = [wanted == 0, wanted == 1, wanted == 2];
        let need = Need { inputs: &need, weights: &[] };
        let (_, saved) = op.record(&ctx, &Call { inputs: &[&x, &x, &x], weights: &[], need }).unwrap();
        let grads = [Some(x.clone())];
        let backward = Backward { saved: &saved, weights: &[], grads: &grads, need };
        let grads = op.backward_input(&ctx, &backward).unwrap();
        for (i, grad) in grads.iter().enumerate() {
            assert_eq!(grad.is_some(), i == wanted);
            let finite = |g: &Tensor| to_f64(&ctx, g).unwrap().iter().all(|x| x.is_finite());
            assert!(grad.as_ref().is_none_or(finite));
        }
    }
}

#[test]
fn wrong_shapes_and_bounds_are_told() {
    let infer = |op: &Attention, q: &[usize], k: &[usize]| {
        let k = Spec::new(k, DType::F32);
        op.infer(&[Spec::new(q, DType::F32), k.clone(), k], &[], Need::NONE)
    };
    let op = attention(&[0, 4], &[0, 4], true, 8);
    assert!(infer(&op, &[4, 4, 8], &[4, 2, 8]).is_ok());
    assert!(matches!(infer(&op, &[4, 3, 8], &[4, 2, 8]), Err(Error::Shape { .. })));
    assert!(matches!(infer(&op, &[4, 4, 8], &[4, 2, 7]), Err(Error::Shape { .. })));
    assert!(matches!(infer(&op, &[5, 4, 8], &[4, 2, 8]), Err(Error::Argument { .. })));
    assert!(matches!(
        infer(&attention(&[0, 3, 2, 4], &[0, 1, 2, 4], true, 8), &[4, 4, 8], &[4, 2, 8]),
        Err(Error::Argument { .. })
    ));
    assert!(matches!(
        infer(&attention(&[0, 4], &[0, 1, 4], true, 8), &[4, 4, 8], &[4, 2, 8]),
        Err(Error::Argument { .. })
    ));
    assert!(matches!(
        infer(&attention(&[], &[], true, 8), &[4, 4, 8], &[4, 2, 8]),
        Err(Error::Argument { .. })
    ));
}
