//! Every program of the products, so that all are compiled and measured without a GPU.

use super::facts::{Chip, Facts};
use super::form::{Form, REDUCE};
use super::variant::{Family, Variant};
use super::variants;
use bigmac_gpu::{Launch, Variants};
use bigmac_runtime::DType;

/// Every program that a launch can ask for: each kernel in all forms that it takes, on each architecture, but for
/// activations.
pub(crate) fn programs() -> Vec<Variants> {
    const TARGETS: [&[&str]; 2] = [&["sm_80"], &["sm_90a"]];
    const ELEMENTS: [(DType, &[&str]); 2] = [(DType::F32, &["float"]), (DType::BF16, &["bf16"])];
    let mut programs = Vec::new();
    for targets in TARGETS {
        for (dtype, elements) in ELEMENTS {
            let of = |source| Variants::new(source).elements(elements).targets(targets);
            for family in [Family::Mma, Family::Ffma, Family::FewRows, Family::Hopper] {
                let launches = launches(family, dtype, targets[0]);
                let source = launches.first().map(Launch::source);
                let launched = |source| launches.iter().fold(of(source), |all, launch| all.launched(launch));
                programs.extend(source.map(launched));
            }
            let reduced = Form::plain(dtype).chain(Form::activated(dtype));
            programs.push(reduced.fold(of(&REDUCE), |all, form| all.launched(&form.reduce())));
        }
    }
    programs
}

/// The launches of a family's variants for factors of `dtype` on `target`.
fn launches(family: Family, dtype: DType, target: &str) -> Vec<Launch> {
    // Few rows are compiled for each power of two; for tiles it is the same how many there are.
    let rows: &[usize] = if family == Family::FewRows { &[1, 2, 4, 8] } else { &[4096] };
    let mut launches = Vec::new();
    for variant in variants().iter().filter(|v| v.family == family) {
        let activated = Form::activated(dtype).filter(|_| shows_activations(variant));
        for form in Form::plain(dtype).chain(activated) {
            let facts = |m| Facts { extents: [m, 4096, 4096], count: 1, dtype, form, addressable: true };
            let taken = rows.iter().filter(|&&m| variant.fits(Chip { target, processors: 132 }, &facts(m)));
            launches.extend(taken.map(|&m| form.launch(variant, m)));
        }
    }
    launches
}

/// Variants that are compiled with activations: one for each kind of tile, and of Hopper's those whose sums leave the
/// fewest registers.
fn shows_activations(variant: &Variant) -> bool {
    match variant.family {
        Family::Mma | Family::Ffma => [2, 42].contains(&variant.number),
        Family::FewRows => false,
        Family::Hopper => variant.tile[0] * variant.tile[1] >= 128 * 256,
    }
}
