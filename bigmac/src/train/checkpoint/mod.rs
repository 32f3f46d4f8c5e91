//! Checkpoints: a directory that holds the model under its Hugging Face names, the optimizer's state and where the
//! run was.
//!
//! ```text
//! checkpoints/step-00000400/
//!   config.json, model.safetensors                          encoder, projector and LLM (LlavaForConditionalGeneration)
//!   generator/config.json, diffusion_pytorch_model.safetensors  generator (QwenImageTransformer2DModel)
//!   optimizer.safetensors                                   moments and master weights
//!   state.json                                              step, configuration, data, SHA-256 of the safetensors files
//! ```
//!
//! It is written under another name, synced and renamed, so a directory of that name is whole. Nothing in it depends on
//! the number of ranks.

pub(super) mod list;
mod save;
mod state;

pub use list::{Damaged, has_checkpoints, newest_whole};
pub(super) use save::adopt;
pub use save::{Saved, save};
pub use state::{DataState, State};

use super::TrainError;
use super::optimizer_state::{STATE_PARTS, state_name, state_spec};
use crate::config::{Config, first_difference};
use crate::model::ModelShape;
use bigmac_autograd::{Parameter, Parameters};
use bigmac_kernels::norm;
use bigmac_models::init::ParameterSpec;
use bigmac_models::llava::LlavaConfig;
use bigmac_models::mmdit::{DIFFUSERS, MmditConfig};
use bigmac_models::{names, weights};
use bigmac_runtime::safetensors::SafetensorsFile;
use bigmac_runtime::{Context, DType, Error, Tensor};
use bigmac_schedule::ModuleKind;
use serde_json::{Map, Value};
use state::STATE;
use std::path::{Path, PathBuf};

const OPTIMIZER: &str = "optimizer.safetensors";
const GENERATOR: &str = "generator";

/// The files of weights, by their paths in a checkpoint.
fn weight_files() -> impl Iterator<Item = String> {
    [names::LLAVA.file.to_owned(), format!("{GENERATOR}/{}", DIFFUSERS.file)].into_iter()
}

/// Which files of a checkpoint are compared with their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// None.
    Nothing,
    /// Those of the weights.
    Weights,
    /// All, the optimizer's state among them.
    Everything,
}

/// A checkpoint on disk, checked to be whole.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    state: State,
    llava: weights::Checkpoint,
    generator: weights::Checkpoint,
    optimizer: SafetensorsFile,
}

impl Checkpoint {
    /// Opens a checkpoint's directory, or the newest one of a run's directory.
    ///
    /// # Errors
    /// [`TrainError::Runtime`] naming the file when one is missing, changed, cut short or of another format.
    pub fn open(path: &Path, verify: Verify) -> Result<Self, TrainError> {
        let path = Self::find(path)?;
        let state = State::read(&path)?;
        let llava = weights::Checkpoint::open(&path, names::LLAVA)?;
        let generator = weights::Checkpoint::open(&path.join(GENERATOR), DIFFUSERS)?;
        // What they say is compared with the model later; that they say something is part of being whole.
        llava.config(LlavaConfig::from_json)?;
        generator.config(MmditConfig::from_json)?;
        let optimizer = SafetensorsFile::open(&path.join(OPTIMIZER))?;
        // Now that their lengths are what their headers say: a file may be of any length.
        let name = (verify == Verify::Everything).then(|| OPTIMIZER.to_owned());
        let mut names = weight_files().filter(|_| verify != Verify::Nothing).chain(name);
        names.try_for_each(|name| state.verify(&path, &name))?;
        Ok(Checkpoint { llava, generator, optimizer, path, state })
    }

    /// The directory of the checkpoint that `path` means.
    fn find(path: &Path) -> Result<PathBuf, TrainError> {
        if path.join(STATE).exists() {
            return Ok(path.to_owned());
        }
        if let Some((_, newest)) = list::list(path)?.pop() {
            return Ok(newest);
        }
        let message = if weight_files().any(|file| path.join(file).exists()) {
            format!("the checkpoint has no {STATE}, so that it is incomplete; use another checkpoint")
        } else {
            "no checkpoint here; give a run's directory, or one of its checkpoints/step-...".to_owned()
        };
        Err(Error::format(path, message).into())
    }

    /// Whether `path` is a checkpoint's own directory, and not that of a run.
    pub fn is_at(path: &Path) -> bool {
        // A run may lie in a folder that is called as that of checkpoints is.
        let is_run = || list::has_checkpoints(path).unwrap_or(false);
        path.join(STATE).exists()
            || !is_run() && list::run_of(path).is_some_and(|run| list::folder(&run).is_dir())
    }

    /// Where the run was.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the run that it lies in, as RUN/checkpoints/step-N; none for a copy elsewhere.
    pub fn run(&self) -> Option<PathBuf> {
        list::run_of(&self.path)
    }

    /// Checks that a run of `config` can go on from here: the same model, and where it `resumes` the same dtype.
    ///
    /// # Errors
    /// [`Error::Format`] naming the first key that differs.
    pub fn check_model(&self, config: &Config, resumes: bool) -> Result<(), TrainError> {
        let matters = |key: &str| !is_free(key) && (resumes || key != "model.dtype");
        let Some((key, here, wanted)) = first_difference(&self.state.config.model, &config.model, matters)
        else {
            return Ok(());
        };
        let message = format!(
            "the checkpoint's {key} is {here}, the run's is {wanted}; resume with the checkpoint's own configuration, or \
             start a new run"
        );
        Err(Error::format(&self.path, message).into())
    }

    /// Checks that what `config.json` says of encoder, LLM and generator is the model of this shape.
    ///
    /// # Errors
    /// [`Error::Format`] naming the first field that differs; of another vocabulary, that the tokenizer is another.
    pub fn check_shape(&self, shape: &ModelShape) -> Result<(), TrainError> {
        let found = self.llava.config(LlavaConfig::from_json)?;
        let (model, tokenizer) = (found.text.vocab_size, shape.llava.text.vocab_size);
        if model != tokenizer {
            let message = format!(
                "the model has a vocabulary of {model}, and the tokenizer needs one of {tokenizer}; name the tokenizer that \
                 it was trained with in data.tokenizer"
            );
            return Err(Error::format(&self.path, message).into());
        }
        self.check_fields("", found.to_json(), shape.llava.to_json())?;
        let generator = self.generator.config(MmditConfig::from_json)?;
        self.check_fields(GENERATOR, generator.to_json(), shape.generator.to_json())
    }

    fn check_fields(
        &self,
        folder: &str,
        found: Map<String, Value>,
        wanted: Map<String, Value>,
    ) -> Result<(), TrainError> {
        let Some((field, found, wanted)) = first_other_field("", &found, &wanted) else { return Ok(()) };
        let path = self.path.join(folder).join("config.json");
        let message = format!(
            "{field} is {found}, but the run's configuration and tokenizer make it {wanted}; restore the file, or use \
             another checkpoint"
        );
        Err(Error::format(&path, message).into())
    }

    /// The parameters of a module, as [`RankModules::new`](crate::model::RankModules::new) asks for them.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Format`] when one is missing, of another shape, or not finite.
    pub fn parameters(
        &self,
        ctx: &Context,
        kind: ModuleKind,
        specs: &[ParameterSpec],
        dtype: DType,
    ) -> bigmac_runtime::Result<Parameters> {
        let files = if kind == ModuleKind::Generator { &self.generator } else { &self.llava };
        let parameters = files.load(ctx, specs, dtype)?;
        let named = |parameter: &Parameter| format!("the parameter '{}'", parameter.name());
        parameters.iter().try_for_each(|(_, p)| self.check_finite(ctx, &named(p), p.tensor()))?;
        Ok(parameters)
    }

    fn check_finite(&self, ctx: &Context, what: &str, tensor: &Tensor) -> bigmac_runtime::Result<()> {
        let copy = ctx.is_gpu().then(|| tensor.to_cpu(ctx)).transpose()?;
        if norm::sum_of_squares(&ctx.host(), copy.as_ref().unwrap_or(tensor))?.is_finite() {
            return Ok(());
        }
        let message = format!(
            "{what} has values that are not finite, or too large to compute with; use another checkpoint"
        );
        Err(Error::format(&self.path, message))
    }

    /// Whether there is optimizer state of a parameter: it has learned.
    pub fn has_state(&self, spec: &ParameterSpec) -> bool {
        self.optimizer.contains(&state_name(STATE_PARTS[0], &spec.source))
    }

    /// A part of the optimizer's state of a parameter, flat; `None` for a parameter that did not learn, of which there
    /// is none.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Format`] when it alone is missing, of another length, or not finite.
    pub fn optimizer_part(
        &self,
        ctx: &Context,
        part: &str,
        spec: &ParameterSpec,
    ) -> bigmac_runtime::Result<Option<Tensor>> {
        if !self.has_state(spec) {
            return Ok(None);
        }
        let name = state_name(part, &spec.source);
        let state = self.optimizer.load_exact(ctx, &name, &state_spec(part, spec))?;
        if state.dtype().is_float() {
            self.check_finite(ctx, &name, &state)?;
        }
        Ok(Some(state))
    }
}

/// Keys of the model that say how it is trained, not what it is.
fn is_free(key: &str) -> bool {
    [".frozen", ".recompute", ".sample_steps"].iter().any(|end| key.ends_with(end)) || key == "model.from"
}

/// The first field of `wanted` that is another in `found`, with both values; in the order of their names.
fn first_other_field(
    prefix: &str,
    found: &Map<String, Value>,
    wanted: &Map<String, Value>,
) -> Option<(String, Value, Value)> {
    wanted.iter().find_map(|(name, wanted)| {
        let field = format!("{prefix}{name}");
        match (found.get(name).unwrap_or(&Value::Null), wanted) {
            (Value::Object(found), Value::Object(wanted)) => {
                first_other_field(&format!("{field}."), found, wanted)
            }
            (found, wanted) if found != wanted => Some((field, found.clone(), wanted.clone())),
            _ => None,
        }
    })
}
