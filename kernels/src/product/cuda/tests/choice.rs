//! The rule that picks a kernel, for devices that need not be here.

use super::super::facts::{Chip, Facts};
use super::super::form::Form;
use super::*;
use bigmac_gpu::{Knob, Launch};

const H200: Chip<'_> = Chip { target: "sm_90a", processors: 132 };
const A100: Chip<'_> = Chip { target: "sm_80", processors: 108 };

/// x w^T, dy w and dy^T x, as a linear layer has them, and the dtype that each is written in.
const NT: ([bool; 2], DType) = ([false, true], DType::BF16);
const NN: ([bool; 2], DType) = ([false, false], DType::BF16);
const TN: ([bool; 2], DType) = ([true, false], DType::F32);

/// One product of bf16 whose factors and result can be addressed in every way.
fn facts(extents: [usize; 3], (transposed, out): ([bool; 2], DType)) -> Facts {
    let form = Form { transposed, aligned: true, out, activation: Activation::None };
    Facts { extents, count: 1, dtype: DType::BF16, form, addressable: true }
}

fn chosen(chip: Chip<'_>, facts: &Facts) -> (&'static Variant, usize) {
    let splits = variants::parts(facts.extents, facts.count);
    (variants::fastest(chip, facts, splits).unwrap(), splits)
}

#[test]
fn an_h200_multiplies_by_these() {
    // Rows, columns, terms; the kernel and the parts of k.
    let table = [
        // Large ones, of a layer and of its weights: pairs of 128x256.
        ([8192, 8192, 8192], NT, 105, 1),
        ([4096, 4096, 4096], NT, 105, 1),
        ([4096, 4096, 4096], NN, 105, 1),
        ([8192, 6144, 2048], NT, 105, 1),
        ([8192, 2048, 6144], NN, 105, 1),
        ([8192, 1024, 2048], NT, 105, 1),
        ([2048, 2048, 2048], NT, 105, 1),
        ([6144, 2048, 8192], TN, 105, 1),
        ([2048, 2048, 8192], TN, 105, 1),
        // The gradient of k's and v's weights: 128 tiles of 128x128, all at once, which the L2 cache could not feed one
        // by one.
        ([1024, 2048, 8192], TN, 108, 1),
        // Fewer blocks than multiprocessors get what they ask for.
        ([1024, 1024, 1024], NT, 102, 1),
        ([1152, 1152, 11664], TN, 102, 1),
        // Ragged ones.
        ([1000, 1032, 520], NT, 102, 1),
        ([1500, 8192, 2048], NT, 105, 1),
        ([3000, 2048, 2048], NT, 108, 1),
        ([200, 136, 9000], TN, 104, 17),
        ([257, 132, 1032], NN, 6, 2),
        // Few rows, and few columns.
        ([256, 4096, 4096], NT, 102, 1),
        ([128, 8192, 2048], NT, 102, 1),
        ([100, 6144, 2048], NN, 104, 1),
        ([512, 768, 2048], NT, 6, 1),
        ([128, 4096, 4096], NT, 6, 1),
        ([64, 4096, 4096], NT, 5, 4),
        ([16, 4096, 4096], NN, 8, 4),
        ([4096, 64, 4096], NN, 4, 4),
        ([8, 4096, 4096], NT, 60, 4),
        ([8, 4096, 4096], NN, 8, 4),
        // What a tensor map cannot describe is left to mma.sync.
        ([4096, 4095, 4096], NT, 0, 1),
    ];
    let mut wrong = Vec::new();
    for (extents, stored, number, parts) in table {
        let (variant, splits) = chosen(H200, &facts(extents, stored));
        if (variant.number, splits) != (number, parts) {
            wrong.push(format!(
                "{extents:?}: {} in {splits} parts, wanted {number} in {parts}",
                variant.number
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_block_of_a_cluster_is_left_without_work_where_there_is_a_choice() {
    for long in [64, 256, 1000, 4096, 16384] {
        for short in (2..=128).step_by(2) {
            for k in [64, 520, 2048, 8192] {
                let rows = chosen(H200, &facts([short, long, k], NT)).0;
                assert_eq!(rows.cluster()[0], 1, "{short} x {long} x {k}: {}", rows.name);
                let columns = chosen(H200, &facts([long, short, k], NT)).0;
                assert_eq!(columns.cluster()[1], 1, "{long} x {short} x {k}: {}", columns.name);
            }
        }
    }
}

#[test]
fn the_rule_fills_the_device() {
    // A decoded token reads the weight once; without contiguous columns, by narrow tiles and in parts.
    assert_eq!(chosen(A100, &facts([1, 4096, 4096], NT)).0.family, Family::FewRows);
    let (narrow, parts) = chosen(A100, &facts([4, 4096, 4096], NN));
    assert!(narrow.tile[0] <= 32 && parts > 1, "{narrow:?} {parts}");
    // A layer's weight gradient over many tokens has few elements and long sums.
    let (_, parts) = chosen(A100, &facts([256, 256, 1 << 15], NN));
    assert!(parts >= 8, "{parts}");
    let (large, parts) = chosen(A100, &facts([8192, 8192, 8192], NT));
    assert!(large.tile[0] * large.tile[1] >= 128 * 128 && parts == 1, "{large:?}");
    let single = facts([4096, 4096, 4096], ([false, true], DType::F32));
    assert_eq!(chosen(A100, &Facts { dtype: DType::F32, ..single }).0.family, Family::Ffma);
}

#[test]
fn hopper_is_chosen_on_hopper_alone_and_for_what_it_can_address() {
    let of = |chip, facts: &Facts| chosen(chip, facts).0.family;
    let large = facts([4096, 4096, 4096], NT);
    let replay = Chip { target: "replay", processors: 132 };
    assert_eq!(of(H200, &large), Family::Hopper);
    assert_eq!([A100, replay].map(|chip| of(chip, &large)), [Family::Mma; 2]);
    assert_eq!(of(H200, &Facts { addressable: false, ..large }), Family::Mma);
    let form = Form { aligned: false, ..large.form };
    assert_eq!(of(H200, &Facts { form, ..large }), Family::Mma);
    let form = Form { activation: Activation::GeluExact, ..large.form };
    assert_eq!(of(H200, &Facts { form, ..large }), Family::Mma);
}

#[test]
fn whatever_is_chosen_is_among_the_programs() {
    let knobs = |launch: &Launch| {
        let mut knobs = launch.knobs().to_vec();
        knobs.sort_by_key(|(name, _)| *name);
        knobs
    };
    let programs = programs();
    let listed = |chip: Chip<'_>, launch: &Launch, element: &'static str| {
        let asked = [vec![("ELEMENT", Knob::Word(element))], knobs(launch)].concat();
        let same = |v: &&bigmac_gpu::Variants| {
            std::ptr::eq(v.source(), launch.source()) && v.architectures().contains(&chip.target)
        };
        let found = programs.iter().filter(same).any(|v| v.programs().contains(&asked));
        assert!(found, "{asked:?} of {} on {}", launch.source().file, chip.target);
    };
    const EITHER: [bool; 2] = [false, true];
    for (dtype, element, outs) in
        [(DType::BF16, "bf16", &[DType::BF16, DType::F32][..]), (DType::F32, "float", &[DType::F32])]
    {
        for (chip, extents) in [H200, A100].into_iter().flat_map(|chip| {
            let extents =
                [[3, 512, 512], [16, 96, 4096], [257, 132, 1032], [1024, 2048, 8192], [4096, 4096, 4096]];
            extents.map(|extents| (chip, extents))
        }) {
            for (&out, a) in outs.iter().flat_map(|out| EITHER.map(|a| (out, a))) {
                for (b, aligned) in EITHER.into_iter().flat_map(|b| EITHER.map(|aligned| (b, aligned))) {
                    let form = Form { transposed: [a, b], aligned, out, activation: Activation::None };
                    let (variant, splits) = chosen(chip, &Facts { dtype, form, ..facts(extents, NT) });
                    let launched = if splits > 1 && variant.family != Family::FewRows {
                        listed(chip, &form.reduce(), element);
                        form.partial()
                    } else {
                        form
                    };
                    listed(chip, &launched.launch(variant, extents[0]), element);
                }
            }
        }
    }
}
