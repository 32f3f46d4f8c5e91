//! The few shapes that stand for all where a device is there for minutes only.

use super::case::Case;
use super::families::{FAMILIES, Family};
use anyhow::Context as _;
use bigmac_runtime::DType;

/// Samples of each side, and the device time of one, in seconds.
pub const SAMPLES: u32 = 5;
/// Half of what a full measurement takes.
pub const SAMPLE: f64 = 0.01;

/// A shape of a family, and the passes that are measured there; all if none is named.
struct Shape(&'static str, &'static str, &'static [usize], &'static [&'static str]);

/// Shapes of Qwen3-1.7B and of what it is trained with, in the order of [`FAMILIES`]. Vocabulary and parameters are
/// cut where a reference on the CPU would take longer than everything else.
const SHAPES: &[Shape] = &[
    Shape("gemm", "square", &[8192, 8192, 8192], &["nt", "nn"]),
    Shape("gemm", "square", &[4096, 4096, 4096], &[]),
    Shape("gemm", "square", &[1024, 1024, 1024], &["nt"]),
    Shape("gemm", "Qwen3-1.7B gate, up", &[8192, 6144, 2048], &["nt", "nn"]),
    Shape("gemm", "Qwen3-1.7B gate, up, weight gradient", &[6144, 2048, 8192], &["tn"]),
    Shape("gemm", "Qwen3-1.7B k, v, weight gradient", &[1024, 2048, 8192], &["tn"]),
    Shape("gemm", "Qwen3-30B-A3B expert", &[512, 768, 2048], &["nt"]),
    Shape("gemm", "decoding", &[8, 12_288, 4096], &["nt"]),
    Shape("linear", "Qwen3-1.7B down", &[8192, 6144, 2048], &[]),
    Shape("attention", "Qwen3-1.7B", &[1, 4096, 16, 8, 128, 1], &[]),
    Shape("attention", "Qwen3-8B", &[1, 16_384, 32, 8, 128, 1], &["forward"]),
    Shape("attention", "ViT, head 64", &[4, 4096, 16, 16, 64, 0], &[]),
    Shape("attention", "SigLIP so400m", &[16, 729, 16, 16, 72, 0], &[]),
    Shape("cross-entropy", "Qwen3-1.7B", &[8192, 2048, 151_936], &[]),
    Shape("norms", "Qwen3-1.7B", &[8192, 2048], &[]),
    Shape("modulation", "MMDiT 20B", &[4608, 3072], &[]),
    Shape("rope", "Qwen3-1.7B q", &[8192, 16, 128], &[]),
    Shape("elementwise", "Qwen3-1.7B mlp", &[8192, 6144], &[]),
    Shape("cast", "25 million", &[25_000_000], &[]),
    Shape("rows", "Qwen3-1.7B", &[8192, 2048], &[]),
    Shape("embedding", "16,384 words", &[8192, 16_384, 2048], &[]),
    Shape("optimizer", "25 million parameters", &[25_000_000], &[]),
];

/// The cases of all shapes, each set to compare as little as shows whether it is right.
///
/// # Errors
/// A shape that its family does not take.
pub fn cases(dtype: DType) -> anyhow::Result<Vec<(&'static Family, Case)>> {
    let mut cases = Vec::new();
    for Shape(name, place, extents, passes) in SHAPES {
        let family = FAMILIES.iter().find(|f| f.name == *name);
        let family = family.with_context(|| format!("no family is called '{name}'"))?;
        for mut case in family.at(extents, place, dtype)? {
            if passes.is_empty() || passes.contains(&case.pass) {
                case.subject.sample();
                cases.push((family, case));
            }
        }
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_and_every_named_pass_has_a_case() {
        let cases = cases(DType::BF16).unwrap();
        for family in FAMILIES {
            assert!(cases.iter().any(|(f, _)| f.name == family.name), "no quick shape of {}", family.name);
        }
        for Shape(name, _, extents, passes) in SHAPES {
            for pass in *passes {
                let is = |(f, case): &&(&Family, Case)| {
                    f.name == *name && case.extents == *extents && case.pass == *pass
                };
                assert_eq!(cases.iter().filter(is).count(), 1, "{name} {extents:?} {pass}");
            }
        }
    }
}
