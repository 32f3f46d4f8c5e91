use super::*;
use crate::check::{Check, float_tensor, gpus, random, to_f64};
use bigmac_close::{absolute, is_close};

#[test]
fn repeated_and_missing_ids_pass() {
    let ids = vec![3, 0, 3, 6, 3, 0, 1];
    for width in [1, 5, 96] {
        Check::new(&Embedding).input_i32(ids.clone(), &[7]).weight(&[7, width]).run().unwrap();
    }
    Check::new(&Embedding).input_i32(vec![1; 6], &[2, 3]).weight(&[2, 4]).run().unwrap();
    Check::new(&Embedding).input_i32(vec![], &[0]).weight(&[2, 4]).run().unwrap();
}

#[test]
fn ids_outside_the_table_are_refused() {
    let ctx = Context::cpu(0, 1).unwrap();
    let table = Tensor::zeros(&ctx, &[4, 2], DType::F32).unwrap();
    for id in [-1, 4] {
        let ids = Tensor::from_slice(&ctx, &[0, id], &[2]).unwrap();
        let error = Embedding.compute(&ctx, &[&ids], &[&table]).unwrap_err().to_string();
        assert!(error.contains(&format!("id {id} of token 1")), "{error}");
    }
}

/// What the gradient of a table `[rows, width]` is, in F64, from `dy` `[ids.len(), width]`.
fn reference(ids: &[i32], dy: &[f64], [rows, width]: [usize; 2]) -> Vec<f64> {
    let mut sums = vec![0.0; rows * width];
    for (&id, dy) in ids.iter().zip(dy.chunks_exact(width)) {
        if let Some(row) = usize::try_from(id).ok().filter(|&row| row < rows) {
            sums[row * width..][..width].iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
        }
    }
    sums
}

/// Checks the gradient on a GPU, written and then added to, for a table whose gradient starts at element `start` of its
/// buffer.
fn check_gradient(ctx: &Context, ids: &[i32], table: [usize; 2], dtype: DType, start: usize) {
    let [rows, width] = table;
    let dy = float_tensor(&ctx.host(), &random(&[ids.len(), width], 3), &[ids.len(), width], dtype).unwrap();
    let wanted = reference(ids, &to_f64(&ctx.host(), &dy).unwrap(), table);
    let saved = [Tensor::from_slice(ctx, ids, &[ids.len()]).unwrap()];
    let weight = Tensor::zeros(ctx, &table, dtype).unwrap();
    let grads = [Some(dy.to_device(ctx).unwrap())];
    let need = Need { inputs: &[false], weights: &[true] };
    let backward = Backward { saved: &saved, weights: &[&weight], grads: &grads, need };
    let mut buffer =
        float_tensor(ctx, &vec![5.0; start + rows * width + 3], &[start + rows * width + 3], DType::F32)
            .unwrap();
    for (factor, accumulate) in [(1.0, false), (2.0, true)] {
        let grad =
            WeightGrad { weight: 0, buffer: &mut buffer, range: start..start + rows * width, accumulate };
        Embedding.backward_weight(ctx, &backward, grad).unwrap();
        let given = buffer.to_vec::<f32>(ctx).unwrap();
        assert!(given[..start].iter().chain(&given[start + rows * width..]).all(|&v| v == 5.0));
        for (i, (&given, wanted)) in given[start..].iter().zip(&wanted).enumerate() {
            let allowed = absolute(1e-5 * (1.0 + wanted.abs()));
            assert!(is_close(given, factor * wanted, allowed), "{table:?} {dtype} {i}: {given} {wanted}");
        }
    }
}

#[test]
fn gradients_on_a_gpu_have_every_term_once() {
    // Id 2 stands in more places than a block has threads, 5 in more than the few that one thread adds up, 0 and 9
    // once. Of those outside the table 18 has the last digits of 2. The widest rows have more tiles than a block has
    // threads.
    let ids: Vec<i32> = (0..300)
        .map(|t| match t {
            17 => 0,
            18 => 9,
            40 => -1,
            41 => 18,
            _ if t % 2 == 0 => 2,
            _ if t % 3 == 0 => 5,
            _ => 6 + t % 3,
        })
        .collect();
    for gpu in gpus().unwrap() {
        let ctx = Context::on_gpu(0, 1, gpu).unwrap();
        for (width, start) in [(8, 0), (40, 4), (2064, 0), (40, 1), (7, 0)] {
            for dtype in [DType::F32, DType::BF16] {
                check_gradient(&ctx, &ids, [10, width], dtype, start);
            }
        }
    }
}

#[test]
fn many_tokens_of_a_large_table_are_sorted() {
    // Three passes, and more tokens than the sorting block takes in one round. Every id twice, far apart.
    let ids: Vec<i32> = (0..4500).map(|t| (t % 2250) * 7919 % 90_001).collect();
    for gpu in gpus().unwrap().iter().take(1) {
        let ctx = Context::on_gpu(0, 1, gpu).unwrap();
        check_gradient(&ctx, &ids, [90_001, 1], DType::F32, 0);
    }
}

#[test]
fn ids_outside_the_table_give_rows_of_nan_on_a_gpu() {
    for gpu in gpus().unwrap() {
        let ctx = Context::on_gpu(0, 1, gpu).unwrap();
        for (width, dtype) in [(8, DType::BF16), (3, DType::F32)] {
            let table = float_tensor(&ctx, &random(&[4, width], 1), &[4, width], dtype).unwrap();
            let ids = Tensor::from_slice(&ctx, &[-1, 3, 4, i32::MIN, i32::MAX], &[5]).unwrap();
            let y = Embedding.compute(&ctx, &[&ids], &[&table]).unwrap();
            let y = to_f64(&ctx.host(), &y.to_cpu(&ctx).unwrap()).unwrap();
            for (row, y) in y.chunks_exact(width).enumerate() {
                assert!(y.iter().all(|y| y.is_nan() != (row == 1)), "{row} {y:?}");
            }
        }
    }
}
