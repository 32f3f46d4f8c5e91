//! What a configuration says before any data is read: how samples are read, and the model's shape.

use super::{Checkpoint, TrainError, Verify};
use crate::config::{AUTO, Config, OnError, Pipeline, Purpose, Tokens, check_memory};
use crate::data::{DataError, PictureLimits, ReadOptions, Tokenizer};
use crate::execute::{ExecuteError, options};
use crate::model::ModelShape;
use bigmac_schedule::{Limits, Options, Schedule, ScheduleError, UniformCosts, Workload, names, registry};
use std::path::{Path, PathBuf};

/// What a run and a look at its data have in common.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The model.
    pub shape: ModelShape,
    /// How records become samples.
    pub reading: ReadOptions,
}

impl Inputs {
    /// Checks the schedule, reads the tokenizer and fits the model to it.
    ///
    /// # Errors
    /// For an unknown schedule; [`TrainError::Data`] for a tokenizer that cannot be used; [`TrainError::Runtime`] for a
    /// model whose parts do not fit each other.
    pub fn of(config: &Config) -> Result<Inputs, TrainError> {
        let schedule = schedule(&config.pipeline)?;
        if !schedule.is_whole() {
            return Err(TrainError::LlmOnly { schedule: schedule.name() });
        }
        check_schedule(schedule, config)?;
        let tokenizer = tokenizer(config)?;
        check_memory(config, Some(tokenizer.vocab_size()), Purpose::Train)?;
        let shape = ModelShape::new(&config.model, &tokenizer)?;
        let limits = PictureLimits::of(&config.data);
        let layout = shape.layout(config.train.tokens_per_microbatch, config.data.max_tiles, limits);
        let reading = ReadOptions {
            tokenizer,
            layout,
            images: (!config.data.images.is_empty()).then(|| PathBuf::from(&config.data.images)),
            skip: config.data.on_error == OnError::Skip,
        };
        Ok(Inputs { shape, reading })
    }

    /// The checkpoint that `model.from` names, whose weights a run begins with; none for random weights.
    ///
    /// # Errors
    /// When it cannot be read, or is of another model or vocabulary.
    pub fn start(
        config: &Config,
        shape: &ModelShape,
        verify: Verify,
    ) -> Result<Option<Checkpoint>, TrainError> {
        let from = &config.model.from;
        if from.is_empty() {
            return Ok(None);
        }
        let checkpoint = Checkpoint::open(Path::new(from), verify)?;
        checkpoint.check_model(config, false)?;
        checkpoint.check_shape(shape)?;
        Ok(Some(checkpoint))
    }
}

/// The configured schedule; the usual one, where it is yet to be chosen.
fn schedule(pipeline: &Pipeline) -> Result<&'static Schedule, ExecuteError> {
    let schedules = registry::SCHEDULES.iter().map(|schedule| schedule.name());
    let known: Vec<&'static str> = std::iter::once(AUTO).chain(schedules).collect();
    names::find("schedule", &pipeline.schedule, &known, |name| name).map_err(ScheduleError::from)?;
    Ok(registry::schedule(pipeline.likely_schedule())?)
}

/// Checks that the schedule takes the pipeline's order and number of LLM chunks, and as few microbatches as a step may
/// have, by building it for a step of its own.
fn check_schedule(schedule: &Schedule, config: &Config) -> Result<(), ExecuteError> {
    let (pipeline, microbatches) = (&config.pipeline, config.train.microbatches);
    let one = UniformCosts { forward: 1.0, ..UniformCosts::default() };
    let workload = Workload::uniform(pipeline.ranks, pipeline.chunks, microbatches, 1, one, 0.0)?;
    let options = Options { limits: Limits::default(), ..options(pipeline)? };
    schedule.build(&schedule.workload(&workload, options.llm), &options)?;
    Ok(())
}

/// The tokenizer that the configuration names.
///
/// # Errors
/// [`TrainError::Data`] when its file cannot be used, or where tokens are named without a file.
pub fn tokenizer(config: &Config) -> Result<Tokenizer, TrainError> {
    let data = &config.data;
    if !data.tokenizer.is_empty() {
        return Ok(Tokenizer::open(Path::new(&data.tokenizer), &data.tokens)?);
    }
    let Tokens { pad, bos, eos, image, draw } = &data.tokens;
    let named = [("pad", pad), ("bos", bos), ("eos", eos), ("image", image), ("draw", draw)];
    if let Some((key, name)) = named.iter().find(|(_, name)| !name.is_empty()) {
        let problem = format!(
            "data.tokens.{key} = '{name}', but without data.tokenizer text becomes bytes, whose special tokens are \
             their own; name a tokenizer.json in data.tokenizer, or leave the key empty"
        );
        return Err(DataError::Value(problem).into());
    }
    Ok(Tokenizer::bytes())
}
