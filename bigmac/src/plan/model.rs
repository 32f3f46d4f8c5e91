//! What is trained: the layer sizes of the modules, and what a microbatch holds.

use super::read::Description;
use crate::config::{PerGroup, Projector};
use crate::profile::Profile;
use crate::sizes::{Encoder, Frame, Generator, Llm};
use crate::value::{MOST, ValueError, counts, require};
use bigmac_schedule::{ModuleKind, PerModule};
use serde::{Deserialize, Serialize};

/// A multimodal LLM, or one of its modules alone, and the step that trains it. A microbatch is one sequence; without an
/// LLM it is the images and drawings alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What it is, in half a line.
    pub summary: String,
    /// Tokens of a sequence, those of its images included; 0, or left out, without an LLM.
    #[serde(default)]
    pub sequence: usize,
    /// Images (or tiles of them) in a microbatch.
    #[serde(default)]
    pub images: Counts,
    /// Images to be drawn in a microbatch.
    #[serde(default)]
    pub drawings: Counts,
    /// What a parameter costs.
    #[serde(default)]
    pub bytes: Bytes,
    /// The image encoder with its projector, if any.
    pub encoder: Option<Encoder>,
    /// Whether the projector learns, where that is not said by the encoder.
    pub projector: Option<Projector>,
    /// The language model, if any.
    pub llm: Option<Llm>,
    /// The image generator, if any.
    pub generator: Option<Generator>,
}

/// Items per microbatch: the same for all, or a list that is repeated over the microbatches of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Counts {
    /// The same for all.
    Each(usize),
    /// One after the other.
    Cycle(Vec<usize>),
}

impl Default for Counts {
    fn default() -> Self {
        Counts::Each(0)
    }
}

impl Counts {
    /// Items of that microbatch.
    pub fn of(&self, microbatch: usize) -> usize {
        match self {
            Counts::Each(count) => *count,
            Counts::Cycle(counts) => {
                counts.get(microbatch % counts.len().max(1)).copied().unwrap_or_default()
            }
        }
    }

    /// The most items of any microbatch.
    pub fn most(&self) -> usize {
        match self {
            Counts::Each(count) => *count,
            Counts::Cycle(counts) => counts.iter().copied().max().unwrap_or_default(),
        }
    }
}

/// Bytes per parameter, and per number of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bytes {
    /// A number of an activation, and a weight as it is computed with: 2 is bfloat16.
    pub value: usize,
    /// A gradient: 4 is fp32, as this runtime accumulates it.
    pub gradient: usize,
    /// An optimizer state: 12 is an fp32 master weight and AdamW's two moments.
    pub optimizer: usize,
}

impl Default for Bytes {
    fn default() -> Self {
        Bytes { value: 2, gradient: 4, optimizer: 12 }
    }
}

impl Description for Model {
    const KIND: &'static str = "model";
    const SHIPPED: &'static [(&'static str, &'static str)] = &[
        ("qwen3-30b-a3b-vit", include_str!("../../../configs/plan/models/qwen3-30b-a3b-vit.toml")),
        (
            "qwen3-30b-a3b-vit-mmdit",
            include_str!("../../../configs/plan/models/qwen3-30b-a3b-vit-mmdit.toml"),
        ),
        ("qwen3-1.7b", include_str!("../../../configs/plan/models/qwen3-1.7b.toml")),
        ("llama-1b", include_str!("../../../configs/plan/models/llama-1b.toml")),
        ("mmdit-1b", include_str!("../../../configs/plan/models/mmdit-1b.toml")),
    ];

    fn check(&self) -> Result<(), ValueError> {
        counts(&[("bytes.value", self.bytes.value)])?;
        for (key, bytes, most) in [
            ("bytes.value", self.bytes.value, 8),
            ("bytes.gradient", self.bytes.gradient, 64),
            ("bytes.optimizer", self.bytes.optimizer, 64),
        ] {
            require(bytes <= most, key, bytes, format!("at most {most}"))?;
        }
        match &self.llm {
            Some(llm) => {
                counts(&[("sequence", self.sequence), ("llm.vocabulary", llm.vocabulary)])?;
                llm.check()?;
            }
            None => self.check_alone()?,
        }
        for (key, items, module, there) in [
            ("images", &self.images, "encoder", self.encoder.is_some()),
            ("drawings", &self.drawings, "generator", self.generator.is_some()),
        ] {
            let empty = matches!(items, Counts::Cycle(counts) if counts.is_empty());
            require(!empty, key, "[]", "a count, or a list with at least one")?;
            let wanted = format!("0 without [{module}]");
            require(there || items.most() == 0, key, items.most(), wanted)?;
            require(items.most() <= MOST, key, items.most(), format!("at most {MOST}"))?;
        }
        let wanted = "left out without [encoder], whose end it is";
        require(self.encoder.is_some() || self.projector.is_none(), "projector", "a table", wanted)?;
        self.encoder.as_ref().map_or(Ok(()), Encoder::check)?;
        self.generator.as_ref().map_or(Ok(()), Generator::check)?;
        self.check_widths()?;
        self.check_magnitude()?;
        if self.llm.is_some() {
            let tokens = self.image_tokens().saturating_mul(self.images.most());
            let wanted = format!(
                "so many that their {} tokens each fit the sequence of {}",
                self.image_tokens(),
                self.sequence
            );
            require(tokens <= self.sequence, "images", self.images.most(), wanted)?;
        }
        require(self.learns() != PerModule::all(false), "frozen", true, "something that learns")
    }
}

/// Numbers up to here can be counted with: their bytes and operations fit.
const LARGEST: f64 = 1e15;

impl Model {
    /// Checks what a model without an LLM must have, and what it cannot have.
    fn check_alone(&self) -> Result<(), ValueError> {
        let modules = [("encoder", self.encoder.is_some()), ("generator", self.generator.is_some())];
        let modules: Vec<&str> = modules.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        let (key, items) = match modules[..] {
            ["encoder"] => ("images", &self.images),
            ["generator"] => ("drawings", &self.drawings),
            [] => {
                let wanted = "at least one of [llm], [encoder] and [generator]";
                return require(false, "modules", "none", wanted);
            }
            _ => {
                let wanted =
                    "an [llm] between [encoder] and [generator]; for one of them alone, leave the other out";
                return require(false, "llm", "none", wanted);
            }
        };
        require(
            self.sequence == 0,
            "sequence",
            self.sequence,
            "none without an [llm], which alone reads sequences",
        )?;
        let wanted = format!("at least 1 without an [llm]: a microbatch is its {key}");
        require(items.most() > 0, key, items.most(), wanted)
    }

    /// Checks the widths of hidden states in encoder and generator: required without an LLM, and with one equal to its
    /// width.
    fn check_widths(&self) -> Result<(), ValueError> {
        let encoder = self.encoder.as_ref().map(|e| ("encoder.output_width", e.output_width));
        let generator = self.generator.as_ref().map(|g| ("generator.text_width", g.text_width));
        encoder.into_iter().chain(generator).try_for_each(|(key, said)| match (&self.llm, said) {
            (Some(llm), Some(width)) => {
                let wanted = format!("llm.width = {}, or left out", llm.width);
                require(width == llm.width, key, width, wanted)
            }
            (None, Some(width)) => counts(&[(key, width)]),
            (None, None) => require(false, key, "none", "a width, which no [llm] says"),
            (Some(_), None) => Ok(()),
        })
    }

    /// Checks that what a module keeps, and its parameters, can be counted: `sizes` stop at the largest number.
    fn check_magnitude(&self) -> Result<(), ValueError> {
        let frame = self.frame();
        let modules = [
            ("encoder", self.encoder.as_ref().map(|encoder| encoder.item(frame))),
            ("llm", self.llm.as_ref().map(|llm| llm.whole(frame))),
            ("generator", self.generator.as_ref().map(|generator| generator.item(frame))),
        ];
        for (module, part) in modules {
            let Some(part) = part else { continue };
            let sizes = [("parameters", part.parameters), ("bytes of activations", part.saved)];
            for (what, size) in sizes {
                let given = format!("{:.1e} {what}", size as f64);
                require(
                    size as f64 <= LARGEST,
                    module,
                    given,
                    format!("at most {LARGEST:.0e}: smaller sizes"),
                )?;
            }
            let most = f64::MAX.sqrt();
            let given = format!("{:.1e} operations", part.model_flops);
            require(part.model_flops <= most, module, given, format!("at most {most:.0e}: smaller sizes"))?;
        }
        Ok(())
    }

    /// What its modules have in common.
    pub fn frame(&self) -> Frame {
        Frame { sequence: self.sequence, hidden_width: self.hidden_width(), value_bytes: self.bytes.value }
    }

    /// Width of the hidden states that an encoder makes and a generator reads: the LLM's, or what they say in its
    /// place; 0 where it is not given, which [`Description::check`] refuses wherever it is needed.
    fn hidden_width(&self) -> usize {
        let encoder = || self.encoder.as_ref().and_then(|encoder| encoder.output_width);
        let generator = || self.generator.as_ref().and_then(|generator| generator.text_width);
        let llm = self.llm.as_ref().map(|llm| llm.width);
        llm.or_else(encoder).or_else(generator).unwrap_or_default()
    }

    /// Checks that a profile is of this model's layers.
    pub(super) fn check_profiled(&self, profile: &Profile) -> Result<(), ValueError> {
        let (e, l, g) = (&profile.model.encoder, &profile.model.llm, &profile.model.generator);
        let Some(llm) = &self.llm else {
            return require(false, "llm", "none", "an [llm], which every profile is taken with");
        };
        let mut sizes = vec![
            ("llm.width", llm.width, l.width),
            ("llm.layers", llm.layers, l.layers),
            ("llm.mlp", llm.mlp, l.mlp),
        ];
        if let Some(encoder) = &self.encoder {
            sizes.extend([
                ("encoder.width", encoder.width, e.width),
                ("encoder.layers", encoder.layers, e.layers),
                ("encoder.mlp", encoder.mlp, e.mlp),
            ]);
        }
        if let Some(generator) = &self.generator {
            sizes.extend([
                ("generator.width", generator.width(), g.heads.saturating_mul(g.head_dim)),
                ("generator.layers", generator.layers, g.layers),
            ]);
        }
        sizes.into_iter().try_for_each(|(key, given, measured)| {
            require(given == measured, key, given, format!("{measured}, which the profile was taken with"))
        })
    }

    /// Tokens that a microbatch is computed on: the LLM's sequence; without an LLM the patches of all images, or the
    /// latents and hidden states of all drawings.
    pub fn tokens(&self, microbatch: usize) -> usize {
        if self.llm.is_some() {
            return self.sequence;
        }
        let encoder = self.encoder.as_ref().map_or(0, Encoder::patches);
        let generator = self.generator.as_ref().map_or(0, Generator::tokens);
        let items = |tokens: usize, counts: &Counts| tokens.saturating_mul(counts.of(microbatch));
        items(encoder, &self.images).saturating_add(items(generator, &self.drawings))
    }

    /// Tokens of the LLM's sequence that an image takes; 0 without an encoder.
    pub fn image_tokens(&self) -> usize {
        self.encoder.as_ref().map_or(0, Encoder::tokens)
    }

    /// Which groups of parameters are frozen; one that is not there is.
    pub fn frozen(&self) -> PerGroup<bool> {
        let encoder = self.encoder.as_ref().is_none_or(|encoder| encoder.frozen);
        let said = self.projector.as_ref().filter(|_| self.encoder.is_some());
        PerGroup {
            encoder,
            projector: said.map_or(encoder, |projector| projector.frozen),
            llm: self.llm.as_ref().is_none_or(|llm| llm.frozen),
            generator: self.generator.as_ref().is_none_or(|generator| generator.frozen),
        }
    }

    /// Which modules learn, in whole or in part; one that is not there does not.
    pub fn learns(&self) -> PerModule<bool> {
        self.frozen().learns()
    }

    /// All parameters of a module.
    pub fn parameters(&self, kind: ModuleKind) -> u64 {
        match kind {
            ModuleKind::Encoder => self.encoder.as_ref().map_or(0, |e| e.item(self.frame()).parameters),
            ModuleKind::Llm => self.llm.as_ref().map_or(0, |l| l.whole(self.frame()).parameters),
            ModuleKind::Generator => self.generator.as_ref().map_or(0, |g| g.item(self.frame()).parameters),
        }
    }

    /// Floating-point operations of a step on these microbatches, as model FLOPs utilisation counts them: forward,
    /// input and weight gradients of everything, nothing twice, whatever is frozen or recomputed.
    pub fn flops(&self, microbatches: usize) -> f64 {
        let items = |counts: &Counts| (0..microbatches).map(|m| counts.of(m)).sum::<usize>() as f64;
        let encoder = self.encoder.as_ref().map_or(0.0, |e| e.item(self.frame()).model_flops);
        let generator = self.generator.as_ref().map_or(0.0, |g| g.item(self.frame()).model_flops);
        let llm = self.llm.as_ref().map_or(0.0, |l| l.whole(self.frame()).model_flops);
        llm * microbatches as f64 + encoder * items(&self.images) + generator * items(&self.drawings)
    }
}
