use super::*;
use crate::check::Check;
use bigmac_runtime::DType;

#[test]
fn gradients_agree_for_odd_and_even_shapes() {
    for (x, out) in [
        (&[1usize, 1][..], 1),
        (&[1, 37], 19),
        (&[3, 5], 7),
        (&[7, 33], 50),
        (&[16, 96], 64),
        (&[2, 3, 17], 5),
        (&[65, 24], 31),
        (&[130, 8], 3),
        (&[29], 4),
        // Around the edges of the GPU's tiles, with rows that are and are not aligned to 16 bytes.
        (&[64, 64], 128),
        (&[65, 72], 136),
        (&[63, 65], 127),
        (&[9, 600], 16),
    ] {
        let inner = x[x.len() - 1];
        Check::new(&Linear { bias: false }).input(x).weight(&[out, inner]).run().unwrap();
        Check::new(&Linear { bias: true }).input(x).weight(&[out, inner]).weight(&[out]).run().unwrap();
    }
}

#[test]
fn no_rows_give_no_rows_and_zero_gradients() {
    let op = Linear { bias: true };
    Check::new(&op).input(&[0, 5]).weight(&[3, 5]).weight(&[3]).run().unwrap();
}

#[test]
fn x_is_saved_only_for_the_weight() {
    let specs = [Spec::new(&[4, 3], DType::F32)];
    let weights = [Spec::new(&[2, 3], DType::F32)];
    let saved = |need: bool| {
        let need = Need { inputs: &[true], weights: &[need] };
        Linear { bias: false }.infer(&specs, &weights, need).unwrap().saved.len()
    };
    assert_eq!((saved(true), saved(false)), (1, 0));
}

#[test]
fn wrong_shapes_are_told() {
    let infer = |bias: bool, x: &[usize], w: &[&[usize]]| {
        let w: Vec<Spec> = w.iter().map(|w| Spec::new(w, DType::F32)).collect();
        Linear { bias }.infer(&[Spec::new(x, DType::F32)], &w, Need::NONE)
    };
    assert!(infer(false, &[4, 3], &[&[2, 3]]).is_ok());
    assert!(matches!(infer(false, &[4, 3], &[&[3, 2]]), Err(Error::Shape { .. })));
    assert!(matches!(infer(true, &[4, 3], &[&[2, 3], &[3]]), Err(Error::Shape { .. })));
    assert!(matches!(infer(true, &[4, 3], &[&[2, 3]]), Err(Error::Argument { .. })));
    assert!(matches!(infer(false, &[], &[&[2, 3]]), Err(Error::Shape { .. })));
}
