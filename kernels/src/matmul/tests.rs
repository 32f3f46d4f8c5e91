use super::*;
use crate::check::Check;
use bigmac_runtime::DType;

fn stored(transposed: bool, batch: &[usize], rows: usize, cols: usize) -> Vec<usize> {
    let last = if transposed { [cols, rows] } else { [rows, cols] };
    [batch, &last].concat()
}

#[test]
fn gradients_agree_for_every_storage() {
    for transpose_a in [false, true] {
        for transpose_b in [false, true] {
            let op = MatMul { transpose_a, transpose_b };
            for (batch, m, k, n) in [
                (&[][..], 1, 1, 1),
                (&[][..], 3, 17, 5),
                (&[2][..], 9, 4, 20),
                (&[2, 3][..], 5, 6, 7),
                (&[1][..], 33, 2, 19),
                (&[0][..], 3, 2, 4),
                (&[2][..], 0, 2, 4),
            ] {
                let (a, b) = (stored(transpose_a, batch, m, k), stored(transpose_b, batch, k, n));
                Check::new(&op)
                    .input(&a)
                    .input(&b)
                    .run()
                    .unwrap_or_else(|e| panic!("{op:?} {a:?} {b:?}: {e}"));
            }
        }
    }
}

#[test]
fn only_the_other_factor_is_saved() {
    let specs = [Spec::new(&[2, 3, 4], DType::F32), Spec::new(&[2, 4, 5], DType::F32)];
    let saved = |a, b| {
        let need = Need { inputs: &[a, b], weights: &[] };
        MatMul::default().infer(&specs, &[], need).unwrap().saved.to_vec()
    };
    assert_eq!(saved(true, false), [SavedSpec::Input(1)]);
    assert_eq!(saved(false, true), [SavedSpec::Input(0)]);
    assert_eq!(saved(false, false), []);
}

#[test]
fn wrong_shapes_are_told() {
    let infer = |a: &[usize], b: &[usize]| {
        MatMul::default().infer(&[Spec::new(a, DType::F32), Spec::new(b, DType::F32)], &[], Need::NONE)
    };
    assert!(infer(&[2, 3, 4], &[2, 4, 5]).is_ok());
    for (a, b) in
        [(&[2, 3, 4][..], &[2, 5, 4][..]), (&[2, 3, 4], &[3, 4, 5]), (&[3, 4], &[1, 4, 5]), (&[4], &[4])]
    {
        assert!(matches!(infer(a, b), Err(Error::Shape { .. })), "{a:?} {b:?}");
    }
}
