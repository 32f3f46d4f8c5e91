//! Hopper's kernel on the replay, which has three multiprocessors: blocks, or one pair of them, that go through several
//! tiles each.

use super::*;

fn all() -> impl Iterator<Item = &'static Variant> {
    of_family(Family::Hopper)
}

/// Variants whose blocks work in pairs.
fn pairs() -> impl Iterator<Item = u32> {
    all().filter(|v| v.cluster() != [1, 1]).map(|v| v.number)
}

#[test]
fn every_tile_is_right() {
    for (i, variant) in all().enumerate() {
        let [m, n, k] = variant.tile;
        // One tile; four ragged ones, and k that ends within a stage; one of few rows.
        let extents = [[m, n, k], [m + 8, n + 16, 3 * k + 24], [40, n - 8, 2 * k + 8]];
        Case { extents: extents[i % 3], ..Case::new(0, 0, 0) }.variant(variant.number).check();
    }
}

#[test]
fn every_storage_is_read() {
    for (i, (a, b)) in STORED.into_iter().enumerate() {
        // Lines are longer than what is read of them.
        let case = Case { count: 2, ..Case::new(136, 144, 88 + 40 * i).stored(a, b).gap(8) };
        case.clone().variant(102).check();
        // In pairs each block loads half of b, or of a.
        for number in pairs() {
            Case { out: DType::BF16, ..case.clone() }.variant(number).check();
        }
    }
}

#[test]
fn pairs_end_where_the_product_does() {
    for number in pairs() {
        let (variant, case) =
            (numbered(number), Case { bias: true, out: DType::BF16, ..Case::new(0, 0, 72) });
        let ([tile_m, tile_n, _], [m, n]) = (variant.tile, variant.cluster());
        assert_eq!(m * n, 2);
        // The second block has nothing, eight lines, or all but eight; then more clusters than run at once, the last
        // half empty.
        for (rows, columns) in [(tile_m, tile_n), (tile_m + 8, tile_n + 8), (m * tile_m - 8, n * tile_n - 8)]
        {
            let extents = [if m > 1 { rows } else { 24 }, if n > 1 { columns } else { 24 }, 72];
            Case { extents, residual: true, ..case.clone() }.variant(number).check();
        }
        let extents = [(2 * m + 1) * tile_m - 8, (2 * n + 1) * tile_n - 8, 72];
        Case { extents, ..case }.variant(number).check();
    }
}

#[test]
fn a_ring_of_stages_goes_round_and_blocks_go_on() {
    for number in [102, 105, 108] {
        let variant = numbered(number);
        let [m, n, k] = variant.tile;
        let stages = variant.knobs.iter().find(|(name, _)| *name == "STAGES").unwrap().1 as usize;
        for steps in [stages - 1, stages, 2 * stages + 1] {
            Case { count: 2, ..Case::new(m + 16, n + 8, steps * k - 8).variant(number) }.check();
        }
    }
}

#[test]
fn every_epilogue_is_right_at_every_edge() {
    use Activation::{GeluTanh, None, SiluGate};
    for (number, out, activation) in [
        (100, DType::BF16, None),
        (102, DType::F32, None),
        (107, DType::BF16, GeluTanh),
        (100, DType::BF16, SiluGate),
        (102, DType::F32, SiluGate),
    ] {
        let case = Case { out, activation, alpha: 0.25, bias: true, count: 2, ..Case::new(67, 80, 72) };
        let case = Case { residual: activation != SiluGate, accumulate: out == DType::F32, ..case };
        let case = case.gap(8).variant(number);
        case.check();
        // The same after a split sum; and few elements, the last of which no whole store holds.
        Case { splits: 3, extents: [9, 32, 200], ..case.clone() }.check();
        Case { extents: [3, 16, 64], ..case }.check();
    }
}

#[test]
fn what_the_accelerator_cannot_address_is_left_to_others() {
    let Some(gpu) = gpus().unwrap().first() else { return };
    let ctx = Context::on_gpu(0, 1, gpu).unwrap();
    let takes = |number: u32, case: Case| {
        let values = case.values();
        let refused = case.variant(number).given(&ctx, &values).is_err();
        !refused
    };
    let case = Case { out: DType::BF16, ..Case::new(16, 16, 16) };
    assert!(takes(100, case.clone()));
    assert!(takes(100, case.clone().gap(8)));
    assert!(!takes(100, case.clone().gap(4)));
    assert!(!takes(100, Case { dtype: DType::F32, out: DType::F32, ..case.clone() }));
    assert!(!takes(100, Case { extents: [16, 16, 0], ..case.clone() }));
    assert!(!takes(100, Case { count: 2, one_b: true, ..case.clone() }));
    assert!(!takes(100, Case { activation: Activation::GeluExact, ..case.clone() }));
    let gated = Case { activation: Activation::SiluGate, ..case };
    assert!(takes(100, gated.clone()));
    assert!(!takes(104, gated.clone()), "64 columns are 32 of c, half a store");
    assert!(!takes(100, Case { residual: true, ..gated }));
}
