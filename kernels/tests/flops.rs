//! Operations of operators, against a count of every product.

use bigmac_kernels::{
    Flops, Need, Operator, attention::Attention, linear::Linear, linear_cross_entropy::LinearCrossEntropy,
    matmul::MatMul, rms_norm::RmsNorm,
};
use bigmac_runtime::{DType, Spec};

fn spec(shape: &[usize]) -> Spec {
    Spec::new(shape, DType::F32)
}

fn flops(forward: usize, backward_input: usize, backward_weight: usize) -> Flops {
    let [forward, backward_input, backward_weight] =
        [forward, backward_input, backward_weight].map(|n| n as f64);
    Flops { forward, backward_input, backward_weight }
}

const ALL: Need<'static> = Need { inputs: &[true; 3], weights: &[true; 2] };

#[test]
fn products_count_two_for_each_weight_and_row() {
    let x = [spec(&[2, 5, 7])];
    let biased = [spec(&[3, 7]), spec(&[3])];
    let linear = Linear { bias: true };
    let product = 2 * 10 * 21;
    assert_eq!(linear.flops(&x, &biased, ALL), flops(product, product, product));
    let frozen = Need { inputs: &[true], weights: &[false, false] };
    assert_eq!(linear.flops(&x, &biased, frozen), flops(product, product, 0));
    let data = Need { inputs: &[false], weights: &[true, true] };
    assert_eq!(linear.flops(&x, &biased, data), flops(product, 0, product));
    assert_eq!(linear.flops(&x, &[spec(&[3, 7])], Need::NONE), flops(product, 0, 0));
    // The loss: every token and word, three times, though its backward computes the logits again.
    let loss = LinearCrossEntropy { scale: 1.0, chunk: 4 };
    let product = 2 * 5 * 7 * 11;
    let inputs = [spec(&[5, 7]), Spec::new(&[5], DType::I32)];
    assert_eq!(loss.flops(&inputs, &[spec(&[11, 7])], ALL), flops(product, product, product));
    // Norms and the like have no products.
    assert_eq!(RmsNorm { eps: 1e-6 }.flops(&x, &[spec(&[7])], ALL), Flops::default());
}

#[test]
fn batched_products_count_each_matrix_however_it_is_stored() {
    for transpose_a in [false, true] {
        for transpose_b in [false, true] {
            let a = spec(if transpose_a { &[4, 7, 5] } else { &[4, 5, 7] });
            let b = spec(if transpose_b { &[4, 3, 7] } else { &[4, 7, 3] });
            let product = 2 * 4 * 5 * 7 * 3;
            let matmul = MatMul { transpose_a, transpose_b };
            assert_eq!(matmul.flops(&[a.clone(), b.clone()], &[], ALL), flops(product, 2 * product, 0));
            let one = Need { inputs: &[false, true], weights: &[] };
            assert_eq!(matmul.flops(&[a, b], &[], one), flops(product, product, 0));
        }
    }
}

#[test]
fn attention_counts_the_keys_that_queries_see() {
    // Queries and keys of each sequence: as many, fewer, more, none.
    let sequences = [(6, 6), (2, 5), (5, 2), (0, 3), (1, 1)];
    let bounds = |of: fn(&(usize, usize)) -> usize| {
        let ends = sequences.iter().scan(0, |end, sequence| {
            *end += of(sequence);
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect::<Vec<usize>>()
    };
    let (bounds_q, bounds_k) = (bounds(|s| s.0), bounds(|s| s.1));
    let (heads, dim) = (4, 3);
    let q = spec(&[*bounds_q.last().unwrap(), heads, dim]);
    let k = spec(&[*bounds_k.last().unwrap(), 2, dim]);
    for causal in [false, true] {
        let mut pairs = 0;
        for (queries, keys) in sequences {
            for query in 0..queries {
                pairs += (0..keys).filter(|key| !causal || key + queries <= query + keys).count();
            }
        }
        let attention = Attention {
            bounds_q: bounds_q.clone().into(),
            bounds_k: bounds_k.clone().into(),
            causal,
            scale: 1.0,
            variant: None,
        };
        // Scores and weighted sums, 2 per channel each; four products of the same pairs for the gradients.
        let forward = 4 * pairs * heads * dim;
        let inputs = [q.clone(), k.clone(), k.clone()];
        attention.infer(&inputs, &[], ALL).unwrap();
        assert_eq!(attention.flops(&inputs, &[], ALL), flops(forward, 2 * forward, 0), "causal {causal}");
        assert_eq!(attention.flops(&inputs, &[], Need::NONE), flops(forward, 0, 0));
    }
}
