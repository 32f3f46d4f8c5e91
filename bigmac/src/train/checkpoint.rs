//! Checkpoints: a directory that holds the model under its Hugging Face names, the optimizer's state and where the
//! run was.
//!
//! ```text
//! checkpoints/step-00000400/
//!   config.json, model.safetensors                          encoder, projector and LLM (LlavaForConditionalGeneration)
//!   generator/config.json, diffusion_pytorch_model.safetensors  generator (QwenImageTransformer2DModel)
//!   optimizer.safetensors                                   moments and master weights
//!   state.json                                              step, configuration, the size of every file above
//! ```
//!
//! It is written under another name, synced and renamed, so a directory of that name is whole. Nothing in it depends on
//! the number of ranks.

use super::TrainError;
use super::optimizer::{STATE_PARTS, UPDATES, state_spec};
use super::snapshot::{Snapshot, state_name};
use crate::config::{Config, first_difference};
use crate::model::{ModelShape, RankModules};
use bigmac_autograd::Parameters;
use bigmac_models::init::ParameterSpec;
use bigmac_models::llava::{self, LlavaConfig};
use bigmac_models::mmdit::{DIFFUSERS, Mmdit};
use bigmac_models::{names, weights};
use bigmac_runtime::fs::{read_text, write_atomically};
use bigmac_runtime::safetensors::{self, NamedBytes, SafetensorsFile};
use bigmac_runtime::{Context, DType, Error, Tensor};
use bigmac_schedule::ModuleKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Version of the layout.
const FORMAT: u32 = 1;
/// The folder of checkpoints in a run's directory.
pub(super) const FOLDER: &str = "checkpoints";
/// Ends the name of a checkpoint that is being written.
const ASIDE: &str = ".tmp";
const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const GENERATOR: &str = "generator";

/// Where a run was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// Steps done.
    pub step: u64,
    /// The run's configuration.
    pub config: Config,
    /// Size of every other file, by its path in the directory.
    files: BTreeMap<String, u64>,
}

/// Writes `snapshot` as the checkpoint of `step` under `folder`, and removes all but the newest `keep` up to it. Those
/// of later steps go as well: they are of a course that was left when the run was resumed before them.
///
/// # Errors
/// [`TrainError::Weights`] when weights have overflown; [`TrainError::Save`] when a file cannot be written (no space
/// left). Checkpoints that were there stay as they were.
pub fn save(
    ctx: &Context,
    folder: &Path,
    snapshot: &Snapshot,
    shape: &ModelShape,
    config: &Config,
    step: u64,
) -> Result<PathBuf, TrainError> {
    if let Some(parameter) = snapshot.overflown(ctx)? {
        return Err(TrainError::Weights { step: step.saturating_sub(1), parameter });
    }
    let target = folder.join(format!("step-{step:08}"));
    let aside = folder.join(format!("step-{step:08}{ASIDE}"));
    let whole = snapshot.whole_model(ctx, shape)?;
    let written = (|| {
        // What interrupted saves left.
        named(folder, ASIDE)?.iter().try_for_each(|path| remove(path))?;
        std::fs::create_dir_all(&aside).map_err(|e| Error::io(&aside, e))?;
        write_files(&aside, &whole, snapshot, shape, config, step)?;
        remove(&target)?;
        std::fs::rename(&aside, &target).map_err(|e| Error::io(&target, e))?;
        prune(folder, config.output.keep, &target)
    })();
    written.map_err(|cause| {
        // The error to report is that of writing; what cannot be removed now is removed by the next save.
        let _ = remove(&aside);
        TrainError::Save { path: target.clone(), cause: Box::new(cause) }
    })?;
    Ok(target)
}

fn remove(folder: &Path) -> Result<(), TrainError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, e).into()),
        _ => Ok(()),
    }
}

fn write_files(
    aside: &Path,
    whole: &RankModules,
    snapshot: &Snapshot,
    shape: &ModelShape,
    config: &Config,
    step: u64,
) -> Result<(), TrainError> {
    let stages: Vec<_> = whole.llm.list.iter().map(|(_, s)| (s.net.stage(), &s.params)).collect();
    llava::save(aside, &shape.llava, &whole.encoder.whole()?.params, &stages)?;
    let generator = whole.generator.whole()?;
    let generator = weights::Part { specs: &generator.specs, parameters: &generator.params };
    let all = Mmdit::parameters(&shape.generator);
    let folder = aside.join(GENERATOR);
    weights::write_directory(&folder, shape.generator.to_json(), DIFFUSERS, &[generator], &all)?;
    let state = snapshot.optimizer.iter().map(|(name, tensor)| NamedBytes::new(name, tensor));
    let state = state.collect::<bigmac_runtime::Result<Vec<_>>>()?;
    safetensors::write(&aside.join(OPTIMIZER), &state, &BTreeMap::new())?;
    let mut files = BTreeMap::new();
    list_files(aside, "", &mut files)?;
    let state = State { format: FORMAT, step, config: config.clone(), files };
    let text = serde_json::to_string_pretty(&state).map_err(|e| Error::format(aside, e.to_string()))?;
    Ok(write_atomically(&aside.join(STATE), |w| w.write_all(text.as_bytes()))?)
}

/// Sizes of all files below `folder`, by their paths in it.
fn list_files(folder: &Path, prefix: &str, files: &mut BTreeMap<String, u64>) -> Result<(), TrainError> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}/{name}") };
        let about = std::fs::metadata(&path).map_err(|e| Error::io(&path, e))?;
        if about.is_dir() {
            list_files(&path, &name, files)?;
        } else {
            files.insert(name, about.len());
        }
    }
    Ok(())
}

/// The checkpoints under `folder`, oldest first.
///
/// # Errors
/// [`TrainError::Runtime`] when the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    named(folder, "")
}

/// What is called `step-N` followed by `end`, in the order of N.
fn named(folder: &Path, end: &str) -> Result<Vec<PathBuf>, TrainError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let number = name.strip_prefix("step-").and_then(|n| n.strip_suffix(end));
        if let Some(step) = number.and_then(|n| n.parse::<u64>().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Keeps `newest` and the `keep` - 1 before it.
fn prune(folder: &Path, keep: usize, newest: &Path) -> Result<(), TrainError> {
    let (mut all, mut left) = (list(folder)?, Vec::new());
    let behind = all.iter().position(|path| path == newest).map_or(all.len(), |i| i + 1);
    left.extend(all.drain(behind..));
    left.extend(all.drain(..all.len().saturating_sub(keep)));
    left.iter().try_for_each(|path| remove(path))
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
    /// [`TrainError::Runtime`] naming the file when one is missing, cut short or of another format.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let path = if path.join(STATE).exists() {
            path.to_owned()
        } else {
            let newest = list(&path.join(FOLDER))?.pop();
            newest.ok_or_else(|| {
                let message =
                    "no checkpoint here; give a run's directory, or one of its checkpoints/step-...";
                Error::format(path, message)
            })?
        };
        let file = path.join(STATE);
        let text = read_text(&file).map_err(|e| Error::io(&file, e))?;
        let state: State = serde_json::from_str(&text).map_err(|e| {
            Error::format(&file, format!("not the state of a checkpoint ({e}); use another checkpoint"))
        })?;
        if state.format != FORMAT {
            let message = format!("the checkpoint has format {}, this program reads {FORMAT}", state.format);
            return Err(Error::format(&file, message).into());
        }
        for (name, &size) in &state.files {
            let file = path.join(name);
            let found = std::fs::metadata(&file).map_err(|e| Error::io(&file, e))?.len();
            if found != size {
                let message = format!(
                    "{found} bytes where the checkpoint wrote {size}: the file is cut short or changed; use another checkpoint"
                );
                return Err(Error::format(&file, message).into());
            }
        }
        Ok(Checkpoint {
            llava: weights::Checkpoint::open(&path, names::LLAVA)?,
            generator: weights::Checkpoint::open(&path.join(GENERATOR), DIFFUSERS)?,
            optimizer: SafetensorsFile::open(&path.join(OPTIMIZER))?,
            path,
            state,
        })
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
        let run = |path: &Path| {
            let folder = path.parent().filter(|folder| folder.file_name() == Some(FOLDER.as_ref()))?;
            Some(folder.parent()?.to_owned()).filter(|run| !run.as_os_str().is_empty())
        };
        // A path that is too short to show it, such as `.`, is looked up.
        run(&self.path).or_else(|| run(&self.path.canonicalize().ok()?))
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

    /// Checks that the model was made for a vocabulary of this size.
    ///
    /// # Errors
    /// [`Error::Format`] naming both sizes, or when `config.json` is damaged.
    pub fn check_vocabulary(&self, shape: &ModelShape) -> Result<(), TrainError> {
        let model = self.llava.config(LlavaConfig::from_json)?.text.vocab_size;
        let tokenizer = shape.llava.text.vocab_size;
        if model == tokenizer {
            return Ok(());
        }
        let message = format!(
            "the model has a vocabulary of {model}, and the tokenizer needs one of {tokenizer}; name the tokenizer that it \
             was trained with in data.tokenizer"
        );
        Err(Error::format(&self.path, message).into())
    }

    /// The parameters of a module, as [`RankModules::new`] asks for them.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Format`] when one is missing or of another shape.
    pub fn parameters(
        &self,
        ctx: &Context,
        kind: ModuleKind,
        specs: &[ParameterSpec],
        dtype: DType,
    ) -> bigmac_runtime::Result<Parameters> {
        let files = if kind == ModuleKind::Generator { &self.generator } else { &self.llava };
        files.load(ctx, specs, dtype)
    }

    /// Whether there is optimizer state of a parameter: it has learned.
    pub fn has_state(&self, spec: &ParameterSpec) -> bool {
        self.optimizer.contains(&state_name(STATE_PARTS[0], &spec.source))
    }

    /// A part of the optimizer's state of a parameter, flat; `None` for a parameter that did not learn, of which there
    /// is none.
    ///
    /// # Errors
    /// [`bigmac_runtime::Error::Format`] when it alone is missing, or of another length.
    pub fn optimizer_part(
        &self,
        ctx: &Context,
        part: &str,
        spec: &ParameterSpec,
    ) -> bigmac_runtime::Result<Option<Tensor>> {
        if !self.has_state(spec) {
            return Ok(None);
        }
        let name = |part: &str| state_name(part, &spec.source);
        let wanted = state_spec(part, spec);
        if part == UPDATES && !self.optimizer.contains(&name(part)) {
            // Before updates were counted, every step made one.
            let steps = u32::try_from(self.state.step).unwrap_or(u32::MAX);
            return Tensor::from_slice(ctx, &[steps], &wanted.shape).map(Some);
        }
        self.optimizer.load_exact(ctx, &name(part), &wanted).map(Some)
    }
}

/// Keys of the model that say how it is trained, not what it is.
fn is_free(key: &str) -> bool {
    [".frozen", ".recompute", ".sample_steps"].iter().any(|end| key.ends_with(end)) || key == "model.from"
}
