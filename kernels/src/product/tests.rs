use super::*;
use crate::check::random;
use bigmac_close::{absolute, is_close};

/// Every form of both operands, against sums in F64.
fn check<R: Scalar>(m: usize, k: usize, n: usize, tolerance: f64) {
    let ctx = Context::cpu(0, 1).unwrap();
    let threads = Context::cpu(0, 3).unwrap();
    let a: Vec<R> = random(&[m, k], 1).into_iter().map(R::of).collect();
    let b: Vec<R> = random(&[k, n], 2).into_iter().map(R::of).collect();
    let c: Vec<R> = random(&[m, n], 3).into_iter().map(R::of).collect();
    let (a, b) = (Matrix::row_major(&a, m, k), Matrix::row_major(&b, k, n));
    let (mut at, mut bt) = (vec![R::ZERO; m * k], vec![R::ZERO; k * n]);
    transpose(a, &mut at);
    transpose(b, &mut bt);
    let at = Matrix::row_major(&at, k, m).transposed();
    let bt = Matrix::row_major(&bt, n, k).transposed();
    for add in [false, true] {
        let want: Vec<f64> = (0..m * n)
            .map(|e| {
                let (i, j) = (e / n, e % n);
                let sum: f64 = (0..k).map(|x| a.data[i * k + x].f64() * b.data[x * n + j].f64()).sum();
                sum + if add { c[e].f64() } else { 0.0 }
            })
            .collect();
        for (a, b) in [(a, b), (at, b), (a, bt), (at, bt)] {
            let mut got = c.clone();
            product(&ctx, a, b, add, &mut got).unwrap();
            let mut parallel = c.clone();
            product(&threads, a, b, add, &mut parallel).unwrap();
            assert!(got == parallel, "{a:?} {b:?} with threads");
            for (got, want) in got.iter().zip(&want) {
                let allowed = absolute(tolerance * (k as f64).sqrt() * want.abs().max(1.0));
                assert!(is_close(got.f64(), *want, allowed), "{a:?} {b:?}: {} {want}", got.f64());
            }
        }
    }
}

#[test]
fn products_agree_with_plain_sums() {
    for (m, k, n) in [
        (1, 1, 1),
        (1, 96, 40),
        (2, 17, 5),
        (4, 50, 33),
        (5, 7, 9),
        (8, 16, 48),
        (9, 31, 49),
        (16, 96, 96),
        (17, 33, 100),
        (31, 3, 15),
        (50, 800, 65),
        (104, 96, 40),
        (130, 5, 3),
        (3, 0, 4),
        (0, 4, 4),
        (4, 4, 0),
    ] {
        check::<f32>(m, k, n, 1e-6);
        check::<f64>(m, k, n, 1e-14);
    }
}

#[test]
fn a_transpose_is_exact_for_every_rest() {
    for rows in 1..35 {
        for cols in [1, 2, 7, 15, 16, 17, 24, 33] {
            let values: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
            let mut to = vec![-1.0; rows * cols];
            transpose(Matrix::row_major(&values, rows, cols), &mut to);
            for i in 0..rows {
                for j in 0..cols {
                    assert_eq!(to[j * rows + i], values[i * cols + j]);
                }
            }
        }
    }
}

#[test]
fn a_product_into_a_strided_matrix_leaves_the_gaps() {
    let (a, b) = ([1.0f32, 2.0, 3.0, 4.0], [1.0f32, 0.0, 0.0, 1.0]);
    let mut c = [9.0f32; 8];
    let c_view = MatrixMut::new(&mut c, 2, 2, 5);
    multiply(Matrix::row_major(&a, 2, 2), Matrix::row_major(&b, 2, 2), false, c_view);
    assert_eq!(c, [1.0, 2.0, 9.0, 9.0, 9.0, 3.0, 4.0, 9.0]);
}
