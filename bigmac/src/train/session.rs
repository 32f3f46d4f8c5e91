//! What a run is made of before its first step: data sets, tokenizer, model shape, planner.

use super::TrainError;
use crate::config::{Config, OnError, Pipeline};
use crate::cost::{CostModel, Rates};
use crate::data::shapes::{ShapesSpec, write_shapes};
use crate::data::{
    DataError, Dataset, PictureLimits, Planner, Prefetcher, ReadOptions, StepShape, Tokenizer, find_dataset_file,
};
use crate::execute::{ExecuteError, options};
use crate::model::ModelShape;
use bigmac_comm::{Communicator, RankError, run_ranks};
use bigmac_gpu::Gpu;
use bigmac_runtime::{Context, Device, Error};
use bigmac_schedule::{Limits, Options, Schedule, UniformCosts, Workload, registry};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where the embedded data set is written on first use, below the current directory.
pub const SHAPES_FOLDER: &str = "data/shapes";

/// Data, tokenizer, model shape and planner of a run.
#[derive(Debug)]
pub struct Session {
    /// The configuration.
    pub config: Config,
    /// The model.
    pub shape: ModelShape,
    /// What a step's work is estimated to cost.
    pub costs: CostModel,
    /// Plans steps over the training set.
    pub planner: Planner,
    /// The GPU that all ranks share; none on the CPU.
    pub gpu: Option<Gpu>,
    /// Decodes pictures ahead of their steps.
    pub prefetcher: Prefetcher,
    /// Samples that are not trained on; none when the data set comes without.
    pub heldout: Option<Arc<Dataset>>,
}

impl Session {
    /// Reads (or first writes) the data and puts everything together. `progress` is told pictures as they are written.
    ///
    /// # Errors
    /// For an unknown schedule; [`TrainError::Data`] naming file and line; [`TrainError::Runtime`] for a model whose
    /// parts do not fit each other.
    pub fn open(config: &Config, progress: &(dyn Fn(usize) + Sync)) -> Result<Session, TrainError> {
        Session::open_on(open_gpu(&config.pipeline.device)?, config, progress)
    }

    /// As [`Session::open`], on a device that is open already.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_on(
        gpu: Option<Gpu>,
        config: &Config,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Session, TrainError> {
        // Told before pictures are written and files are read for it.
        let schedule = registry::schedule(&config.pipeline.schedule).map_err(ExecuteError::from)?;
        if !schedule.is_whole() {
            return Err(TrainError::LlmOnly { schedule: schedule.name() });
        }
        check_schedule(schedule, &config.pipeline)?;
        let tokenizer = tokenizer(config)?;
        let shape = ModelShape::new(&config.model, &tokenizer)?;
        let limits = PictureLimits::of(&config.data);
        let layout = shape.layout(config.train.tokens_per_microbatch, config.data.max_tiles, limits);
        let options = ReadOptions {
            tokenizer,
            layout,
            images: (!config.data.images.is_empty()).then(|| PathBuf::from(&config.data.images)),
            skip: config.data.on_error == OnError::Skip,
        };
        let path = training_path(config, progress)?;
        let train = Arc::new(Dataset::load(&path, "train", &options)?);
        let heldout = heldout_path(config, &path)?
            .map(|path| Dataset::load(&path, "heldout", &options).map(Arc::new))
            .transpose()?;
        let step = StepShape {
            batch: config.train.batch,
            microbatches: config.train.microbatches,
            seed: config.run.seed,
        };
        let costs = CostModel { shape: shape.clone(), rates: Rates::default() };
        let planner = Planner::new(train, step)?;
        let busy = config.pipeline.ranks * config.pipeline.threads;
        let prefetcher = Prefetcher::new(limits, spare_threads(busy)).map_err(|error| {
            Error::argument("data.prefetch", format!("a thread cannot be started: {error}"))
        })?;
        Ok(Session { config: config.clone(), shape, costs, planner, gpu, prefetcher, heldout })
    }

    /// Runs `f` on ranks of this run, each with a context and a communicator of its own, and returns the results in
    /// order.
    ///
    /// # Errors
    /// The error of the rank where it began.
    pub fn on_ranks<R: Send>(
        &self,
        ranks: usize,
        f: impl Fn(&Context, &dyn Communicator) -> Result<R, TrainError> + Sync,
    ) -> Result<Vec<R>, RankError<TrainError>> {
        let pipeline = &self.config.pipeline;
        let timeout = Duration::from_secs_f64(pipeline.timeout);
        run_ranks(ranks, timeout, |comm| f(&self.context(comm.rank(), pipeline.threads)?, &comm))
    }

    /// A context of this run's device for a rank.
    ///
    /// # Errors
    /// [`Error::Argument`] when the threads cannot be started.
    pub fn context(&self, rank: usize, threads: usize) -> Result<Context, TrainError> {
        Ok(Context::on(rank, threads, self.gpu.as_ref())?)
    }
}

/// Threads for pictures: the processors that ranks leave free, at least one, and no more than a disk can feed.
fn spare_threads(busy: usize) -> usize {
    const MOST: usize = 8;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.saturating_sub(busy).clamp(1, MOST)
}

/// The GPU that a configuration's `pipeline.device` names; none for the CPU.
///
/// # Errors
/// [`Error::Argument`] for an unknown name; [`Error::Gpu`] for a device that this machine does not have.
pub fn open_gpu(device: &str) -> Result<Option<Gpu>, TrainError> {
    match device.parse().map_err(|e: String| Error::argument("pipeline.device", e))? {
        Device::Cpu => Ok(None),
        device => Ok(Some(Gpu::open(device).map_err(Error::from)?)),
    }
}

/// Checks that the schedule takes the pipeline's order and number of LLM chunks, by building it for a step of its own.
fn check_schedule(schedule: &Schedule, pipeline: &Pipeline) -> Result<(), ExecuteError> {
    let one = UniformCosts { forward: 1.0, ..UniformCosts::default() };
    let workload = Workload::uniform(pipeline.ranks, pipeline.chunks, 1, 1, one, 0.0)?;
    let workload = schedule.workload(&workload);
    schedule.build(&workload, &Options { limits: Limits::default(), ..options(pipeline)? })?;
    Ok(())
}

/// The tokenizer that the configuration names.
///
/// # Errors
/// [`TrainError::Data`] when its file cannot be used.
pub fn tokenizer(config: &Config) -> Result<Tokenizer, TrainError> {
    if config.data.tokenizer.is_empty() {
        return Ok(Tokenizer::bytes());
    }
    Ok(Tokenizer::from_file(Path::new(&config.data.tokenizer))?)
}

fn training_path(config: &Config, progress: &(dyn Fn(usize) + Sync)) -> Result<PathBuf, TrainError> {
    if !config.data.path.is_empty() {
        return Ok(PathBuf::from(&config.data.path));
    }
    let folder = PathBuf::from(format!("{SHAPES_FOLDER}-{}", config.data.shapes));
    let spec = ShapesSpec { samples: 2 * config.data.shapes, ..ShapesSpec::default() };
    write_shapes(&folder, &spec, false, progress)?;
    Ok(folder)
}

/// The held-out file: as configured, else the one beside the training file, if there is one.
fn heldout_path(config: &Config, train: &Path) -> Result<Option<PathBuf>, TrainError> {
    if !config.data.heldout.is_empty() {
        return Ok(Some(PathBuf::from(&config.data.heldout)));
    }
    let folder = if train.is_dir() { Some(train) } else { train.parent() };
    // A bare file name has an empty parent: the current directory.
    let folder = folder.filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match find_dataset_file(folder, "heldout") {
        Ok(file) => Ok(Some(file)),
        Err(DataError::NoDataset { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
