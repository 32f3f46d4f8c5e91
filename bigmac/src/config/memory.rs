//! What the model of a configuration needs of memory at least, compared with what there is before anything is
//! allocated. What passes is small enough for every product of its sizes to be counted.

use super::{Config, Dtype};
use crate::sizes::{Frame, Generator, Llm, Part};
use crate::value::{ValueError, size};
use bigmac_runtime::{Device, available};
use bigmac_schedule::{ModuleKind, Options, PerModule, UniformCosts, Workload, registry};

/// More than any device has: on a GPU sizes are first checked to be countable, then compared with its memory.
const LARGEST_DEVICE: f64 = 1e14;

/// What takes memory, in bytes: over all ranks of the process, since they share it.
type Parts = Vec<(String, f64)>;

/// What a model is loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To learn: on all ranks of its configuration, with gradients and optimizer.
    Train,
    /// To say and draw what it has learned: its weights, once.
    Use,
}

/// Checks that the model fits the memory that this process may use, or, for a run on a GPU, could fit any. `vocabulary`
/// is that of the tokenizer, where it has been read.
///
/// # Errors
/// [`ValueError::Memory`] with what is needed at least, what there is, and what would take how much.
pub fn check(config: &Config, vocabulary: Option<usize>, purpose: Purpose) -> Result<(), ValueError> {
    let device = config.pipeline.device.parse().unwrap_or(Device::Cpu);
    let (bytes, limit) = match (device, available()) {
        (Device::Cpu | Device::Replay, Some(found)) => (found.bytes as f64, found.limit.to_string()),
        (Device::Cpu | Device::Replay, None) => (LARGEST_DEVICE, "the largest machine".to_owned()),
        (Device::Cuda(_), _) => (LARGEST_DEVICE, "the largest GPU".to_owned()),
    };
    compare(needed(config, vocabulary, purpose), bytes, limit)
}

/// Checks that the model could fit any machine, so that its sizes can be counted.
///
/// # Errors
/// As [`check`].
pub fn check_countable(config: &Config) -> Result<(), ValueError> {
    compare(needed(config, None, Purpose::Use), LARGEST_DEVICE, "the largest machine".to_owned())
}

/// Checks that the model fits a GPU of `bytes` bytes, which all ranks share.
///
/// # Errors
/// As [`check`].
pub fn check_device(config: &Config, vocabulary: usize, name: &str, bytes: u64) -> Result<(), ValueError> {
    compare(
        needed(config, Some(vocabulary), Purpose::Train),
        bytes as f64,
        format!("the GPU of this machine ({name})"),
    )
}

fn compare(mut parts: Parts, available: f64, limit: String) -> Result<(), ValueError> {
    let needed: f64 = parts.iter().map(|(_, bytes)| bytes).sum();
    if needed <= available {
        return Ok(());
    }
    parts.retain(|(_, bytes)| *bytes >= needed / 1000.0);
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let parts: Vec<String> =
        parts.iter().map(|(what, bytes)| format!("{} for {what}", size(*bytes))).collect();
    Err(ValueError::Memory { needed, available, limit, parts: parts.join(", ") })
}

/// The least that a run holds at once: weights, gradients and optimizer of what learns, and what the forward of one
/// picture saves. What depends on the data, as the LLM's activations do, is not in it.
fn needed(config: &Config, vocabulary: Option<usize>, purpose: Purpose) -> Parts {
    let model = &config.model;
    let value_bytes = match model.dtype {
        Dtype::F32 => 4,
        Dtype::Bf16 => 2,
    };
    // Tokens are not known: a sequence of one counts the weights alone.
    let frame = Frame { sequence: 1, hidden_width: model.llm.width, value_bytes };
    let llm = Llm { vocabulary: vocabulary.unwrap_or_default(), ..model.llm.clone() };
    let generator = drawn(config);
    let parts = PerModule {
        encoder: model.encoder.learning(frame, model.frozen()),
        llm: llm.whole(frame),
        generator: generator.item(frame),
    };
    let saved = PerModule {
        encoder: saved(&parts.encoder, model.encoder.recompute, || model.encoder.saved_inputs(frame)),
        llm: 0.0,
        generator: saved(&parts.generator, model.generator.recompute, || generator.saved_inputs(frame)),
    };
    let (copies, learns) = match purpose {
        Purpose::Train => (copies(config), model.frozen().learns()),
        Purpose::Use => (PerModule::all(1.0), PerModule::all(false)),
    };
    let mut needed = Vec::new();
    for kind in ModuleKind::ALL {
        let numbers = parts[kind].parameters as f64 * copies[kind];
        // Moments in fp32, and beside half precision a master weight.
        let optimizer = if value_bytes == 4 { 8.0 } else { 12.0 };
        needed.push((format!("the {kind}'s weights"), numbers * value_bytes as f64));
        if learns[kind] {
            let trained = parts[kind].trained as f64 * copies[kind];
            needed.push((format!("the {kind}'s gradients"), trained * 4.0));
            needed.push((format!("the {kind}'s optimizer"), trained * optimizer));
            needed.push((format!("the {kind}'s activations of a picture"), saved[kind]));
        }
    }
    for (what, side) in [("read", model.encoder.image_size), ("drawn", model.generator.image_size)] {
        needed.push((format!("the pixels of a picture that is {what}"), 12.0 * (side as f64).powi(2)));
    }
    needed
}

fn saved(part: &Part, recompute: bool, inputs: impl FnOnce() -> u64) -> f64 {
    if recompute { inputs() as f64 } else { part.saved as f64 }
}

/// The generator on one picture, from no text.
fn drawn(config: &Config) -> Generator {
    let g = &config.model.generator;
    Generator {
        layers: g.layers,
        heads: g.heads,
        head_dim: g.head_dim,
        channels: g.patch.saturating_pow(2).saturating_mul(3),
        latents: (g.image_size / g.patch.max(1)).saturating_pow(2),
        text: 0,
        text_width: None,
        frozen: g.frozen,
    }
}

/// How many ranks hold each module: the LLM is cut over all of them; every rank has a whole encoder and generator,
/// unless the schedule cuts those too.
fn copies(config: &Config) -> PerModule<f64> {
    let one = UniformCosts {
        forward: 1.0,
        encoder_forward: 1.0,
        generator_forward: 1.0,
        ..UniformCosts::default()
    };
    let workload = Workload::uniform(2, 1, 2, 1, one, 0.0).ok();
    let schedule = registry::schedule(config.pipeline.likely_schedule()).ok();
    let cut = schedule
        .zip(workload)
        .is_none_or(|(schedule, one)| schedule.workload(&one, Options::default().llm).chain().is_some());
    let items = if cut { 1.0 } else { config.pipeline.ranks as f64 };
    PerModule { encoder: items, llm: 1.0, generator: items }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    fn set(settings: &[&str]) -> Result<Config, String> {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        read(None, &settings).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_run_holds_is_counted() {
        let config = set(&[]).unwrap();
        let parts = needed(&config, Some(261), Purpose::Train);
        let of = |name: &str| parts.iter().find(|(what, _)| what == name).unwrap().1;
        let frame = Frame { sequence: 1, hidden_width: 96, value_bytes: 4 };
        let encoder = config.model.encoder.item(frame).parameters as f64;
        // Both ranks have an encoder.
        assert_eq!(of("the encoder's weights"), 2.0 * 4.0 * encoder);
        // LLaVA does not read the encoder's last norm, which does not learn.
        assert_eq!(of("the encoder's optimizer"), 2.0 * 8.0 * (encoder - 2.0 * 96.0));
        assert_eq!(of("the pixels of a picture that is drawn"), 3.0 * 4.0 * 32.0 * 32.0);
        let frozen = set(&["model.encoder.frozen=true", "pipeline.schedule=monolithic-balanced"]).unwrap();
        let parts = needed(&frozen, Some(261), Purpose::Train);
        assert!(!parts.iter().any(|(what, _)| what == "the encoder's gradients"));
        assert!(parts.contains(&("the encoder's weights".to_owned(), 4.0 * encoder)));
        let alone = set(&["model.encoder.frozen=true", "model.projector.frozen=false"]).unwrap();
        let projector = 96.0 * 96.0 * 2.0 + 96.0 * 2.0;
        let parts = needed(&alone, Some(261), Purpose::Train);
        assert!(parts.contains(&("the encoder's gradients".to_owned(), 2.0 * 4.0 * projector)));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let error =
            compare(needed(&set(&[]).unwrap(), Some(261), Purpose::Train), 1e6, "a box".into()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("the model needs at least ") && text.contains("but there are 976.6 KiB (a box)"),
            "{text}"
        );
        assert!(text.contains("the generator's optimizer"), "{text}");
        // Sizes that are each possible, and together are not: whatever the machine.
        for settings in [
            &["model.llm.width=10000000", "model.llm.mlp=10000000"][..],
            &["model.encoder.image_size=10000000", "model.encoder.patch=1"],
            &["model.generator.image_size=10000000", "model.generator.patch=1"],
            &["model.generator.image_size=10000000", "model.generator.patch=10000000"],
            &["model.llm.head_dim=10000000", "model.llm.heads=10000000", "model.llm.kv_heads=10000000"],
            &["pipeline.device=cuda", "model.llm.width=10000000", "model.llm.mlp=10000000"],
        ] {
            let error = set(settings).unwrap_err();
            assert!(error.contains("the model needs at least"), "{settings:?}: {error}");
        }
        for setting in [
            "model.llm.layers=1000000000",
            "model.encoder.image_size=4294967296",
            "model.generator.rope_axes=[9223372036854775806,9223372036854775806,2]",
            "train.microbatches=10000001",
            "data.max_tiles=100000",
            "data.shapes=9000000000",
        ] {
            let key = setting.split('=').next().unwrap();
            let error = set(&[setting]).unwrap_err();
            assert!(error.contains(key) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn a_vocabulary_counts() {
        let config = set(&[]).unwrap();
        check(&config, Some(300), Purpose::Train).unwrap();
        assert!(check(&config, Some(usize::MAX), Purpose::Use).is_err());
    }
}
