//! What is trained: a described model, shrunk as the command line says, and how a microbatch is made up.

use anyhow::{Context as _, bail, ensure};
use bigmac::plan::{Counts, Description, Model, PlanError};
use bigmac::sizes::{Generator, Llm};

/// Tokens of a microbatch and of each of its sequences, and the same of a small one.
const REAL: [usize; 2] = [8192, 4096];
const SMALL: [usize; 2] = [64, 32];

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub model: &'a str,
    pub small: bool,
    pub layers: Option<usize>,
    pub vocabulary: Option<usize>,
    pub tokens: Option<usize>,
    pub sequence: Option<usize>,
    pub microbatches: usize,
}

/// A model, and the step that trains it.
#[derive(Debug)]
pub struct Sizes {
    /// Shrunk; a microbatch of its description is one sequence, or all drawings.
    pub model: Model,
    /// Microbatches of a step.
    pub microbatches: usize,
    /// Tokens of a microbatch.
    pub tokens: usize,
    /// Tokens of a packed sequence; of a drawing's text and latents.
    pub sequence: usize,
}

/// The one module that is trained.
#[derive(Clone, Copy, Debug)]
pub enum Module<'a> {
    Llm(&'a Llm),
    Generator(&'a Generator),
}

impl Sizes {
    /// The model with what the command line changes of it, checked.
    ///
    /// # Errors
    /// A model that cannot be read or is not one module that this benchmark trains; sizes that do not fit each other.
    pub fn new(asked: &Asked<'_>) -> anyhow::Result<Sizes> {
        let mut model = Model::load(asked.model)?;
        Module::of(&model)?;
        let [tokens, sequence] = if asked.small { SMALL } else { REAL };
        let tokens = asked.tokens.unwrap_or(tokens);
        let sequence = asked.sequence.unwrap_or(sequence.min(tokens));
        ensure!(
            tokens > 0 && sequence > 0 && tokens.is_multiple_of(sequence),
            "--tokens {tokens} is not a multiple of --sequence {sequence}: give whole sequences"
        );
        if let Some(llm) = &mut model.llm {
            shrink_llm(llm, asked);
            model.sequence = sequence;
        }
        if let Some(generator) = &mut model.generator {
            ensure!(asked.vocabulary.is_none(), "--vocabulary is of an LLM, and {} has none", asked.model);
            ensure!(
                sequence > 1,
                "--sequence {sequence} is too short: a drawing has a token of text and a latent at least"
            );
            shrink_generator(generator, asked, sequence);
            model.drawings = Counts::Each(tokens / sequence);
        }
        model.check().map_err(PlanError::at(asked.model))?;
        Ok(Sizes { model, microbatches: asked.microbatches, tokens, sequence })
    }

    /// The module that is trained.
    ///
    /// # Errors
    /// As [`Module::of`].
    pub fn module(&self) -> anyhow::Result<Module<'_>> {
        Module::of(&self.model)
    }

    /// Tokens of a step.
    pub fn step_tokens(&self) -> usize {
        self.tokens * self.microbatches
    }

    /// Sequences, or drawings, of a microbatch.
    pub fn sequences(&self) -> usize {
        self.tokens / self.sequence
    }
}

impl Module<'_> {
    /// The one module of a model.
    ///
    /// # Errors
    /// For a model of several modules, of an encoder, or with experts.
    pub fn of(model: &Model) -> anyhow::Result<Module<'_>> {
        let module = match (&model.encoder, &model.llm, &model.generator) {
            (None, Some(llm), None) => Module::Llm(llm),
            (None, None, Some(generator)) => Module::Generator(generator),
            _ => {
                bail!("a step is measured of an LLM or of a generator alone; `{}` is neither", model.summary)
            }
        };
        let experts = model.llm.as_ref().is_some_and(|llm| llm.experts.is_some());
        ensure!(!experts, "`{}` has experts, which this runtime does not compute", model.summary);
        Ok(module)
    }
}

/// The extents of `--small`: what a replay computes in seconds, in the proportions of the model.
fn shrink_llm(llm: &mut Llm, asked: &Asked<'_>) {
    if asked.small {
        let (width, kv_heads) = (64, 2);
        llm.mlp = width * llm.mlp / llm.width;
        llm.heads = kv_heads * llm.heads / llm.kv_heads;
        (llm.width, llm.kv_heads, llm.head_dim) = (width, kv_heads, 16);
        (llm.layers, llm.vocabulary) = (llm.layers.min(2), llm.vocabulary.min(256));
    }
    llm.layers = asked.layers.unwrap_or(llm.layers);
    llm.vocabulary = asked.vocabulary.unwrap_or(llm.vocabulary);
}

/// The same of a generator; text and latents share the tokens of a drawing as they do in the model.
fn shrink_generator(generator: &mut Generator, asked: &Asked<'_>, sequence: usize) {
    if asked.small {
        (generator.heads, generator.head_dim, generator.channels) = (2, 16, 16);
        (generator.layers, generator.text_width) = (generator.layers.min(2), Some(32));
    }
    generator.layers = asked.layers.unwrap_or(generator.layers);
    generator.text = (sequence * generator.text / generator.tokens()).max(1);
    generator.latents = sequence - generator.text;
}

impl Sizes {
    /// Rows and columns of a drawing's latents, as near to a square as their number allows.
    ///
    /// # Errors
    /// Without a latent.
    pub fn grid(latents: usize) -> anyhow::Result<[usize; 2]> {
        let rows = (1..=latents.isqrt()).rev().find(|rows| latents.is_multiple_of(*rows));
        let rows = rows.context("a drawing without latents")?;
        Ok([rows, latents / rows])
    }
}
