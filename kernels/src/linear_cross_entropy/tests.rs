use super::*;
use crate::check::{Check, float_tensor, random, to_f64};
use bigmac_close::{absolute, assert_close};

fn targets(tokens: usize, words: usize) -> Vec<i32> {
    (0..tokens).map(|i| if i % 3 == 1 { IGNORED } else { (i * 7 % words) as i32 }).collect()
}

#[test]
fn gradients_agree_for_chunks_that_do_and_do_not_divide() {
    for (tokens, dim, words, chunk) in
        [(1, 1, 1, 1), (5, 8, 11, 4), (9, 24, 33, 33), (7, 5, 40, 100), (300, 3, 9, 5), (17, 16, 20, 20)]
    {
        Check::new(&LinearCrossEntropy { scale: 0.37, chunk })
            .input(&[tokens, dim])
            .input_i32(targets(tokens, words), &[tokens])
            .weight(&[words, dim])
            .run()
            .unwrap();
    }
}

#[test]
fn all_targets_and_none_and_no_tokens_work() {
    let op = LinearCrossEntropy { scale: 1.0, chunk: 3 };
    for targets in [vec![0, 3, 6, 1], vec![IGNORED; 4], vec![]] {
        let tokens = targets.len();
        Check::new(&op).input(&[tokens, 6]).input_i32(targets, &[tokens]).weight(&[7, 6]).run().unwrap();
    }
}

#[test]
fn the_loss_is_the_sum_of_cross_entropies() {
    let ctx = Context::cpu(0, 1).unwrap();
    let (h, w, t) = (random(&[10, 6], 1), random(&[13, 6], 2), targets(10, 13));
    let op = LinearCrossEntropy { scale: 0.5, chunk: 4 };
    let (th, tw) = (
        float_tensor(&ctx, &h, &[10, 6], DType::F64).unwrap(),
        float_tensor(&ctx, &w, &[13, 6], DType::F64).unwrap(),
    );
    let tt = Tensor::from_slice(&ctx, &t, &[10]).unwrap();
    let call = Call { inputs: &[&th, &tt], weights: &[&tw], need: Need::NONE };
    let (outputs, saved) = op.record(&ctx, &call).unwrap();
    let wanted: f64 = (0..10)
        .filter(|&i| t[i] != IGNORED)
        .map(|i| {
            let logit = |v: usize| (0..6).map(|d| h[i * 6 + d] * w[v * 6 + d]).sum::<f64>();
            (0..13).map(|v| logit(v).exp()).sum::<f64>().ln() - logit(t[i] as usize)
        })
        .sum();
    assert_close(to_f64(&ctx, &outputs[0]).unwrap()[0], 0.5 * wanted, absolute(1e-12));
    assert!(saved.is_empty());
}

#[test]
fn a_target_outside_the_vocabulary_is_an_error() {
    let ctx = Context::cpu(0, 1).unwrap();
    let h = float_tensor(&ctx, &[1.0; 4], &[2, 2], DType::F32).unwrap();
    let w = float_tensor(&ctx, &[1.0; 6], &[3, 2], DType::F32).unwrap();
    for wrong in [3, -1, -101, i32::MAX] {
        let t = Tensor::from_slice(&ctx, &[0, wrong], &[2]).unwrap();
        let op = LinearCrossEntropy { scale: 1.0, chunk: 8 };
        let error = op.compute(&ctx, &[&h, &t], &[&w]).unwrap_err().to_string();
        assert!(error.contains(&wrong.to_string()) && error.contains("token 1"), "{error}");
    }
}

#[test]
fn wrong_shapes_are_told() {
    let op = LinearCrossEntropy { scale: 1.0, chunk: 8 };
    let infer = |op: LinearCrossEntropy, h: &[usize], t: &[usize], w: &[usize], dtype| {
        let inputs = [Spec::new(h, DType::BF16), Spec::new(t, dtype)];
        op.infer(&inputs, &[Spec::new(w, DType::BF16)], Need::NONE)
    };
    let fine = infer(op, &[4, 3], &[4], &[9, 3], DType::I32).unwrap();
    assert_eq!(*fine.outputs[0].spec(), Spec::new(&[1], DType::F32));
    assert!(matches!(infer(op, &[4, 3], &[5], &[9, 3], DType::I32), Err(Error::Shape { .. })));
    assert!(matches!(infer(op, &[4, 3], &[4], &[9, 2], DType::I32), Err(Error::Shape { .. })));
    assert!(matches!(infer(op, &[4, 3], &[4], &[9, 3], DType::U32), Err(Error::DType { .. })));
    let none = LinearCrossEntropy { chunk: 0, ..op };
    assert!(matches!(infer(none, &[4, 3], &[4], &[9, 3], DType::I32), Err(Error::Argument { .. })));
}
