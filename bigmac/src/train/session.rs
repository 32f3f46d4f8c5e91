//! What a run is made of before its first step: data sets, tokenizer, model shape, planner.

use super::choice::{Choice, choose};
use super::{Inputs, TrainError, layout};
use crate::config::{AUTO, Config, check_device_memory};
use crate::cost::{CostModel, Rates};
use crate::data::{Dataset, HELDOUT, Planner, Prefetcher, StepShape, TRAIN, heldout_path, training_path};
use crate::model::ModelShape;
use bigmac_comm::{Communicator, RankError, run_ranks};
use bigmac_gpu::Gpu;
use bigmac_gpu::nvidia::Machine;
use bigmac_runtime::{Context, Device, Error};
use std::sync::Arc;
use std::time::Duration;

/// Data, tokenizer, model shape and planner of a run.
#[derive(Debug)]
pub struct Session {
    /// The configuration, with the schedule that was chosen where it is left open.
    pub config: Config,
    /// How the schedule was chosen; none where the configuration names it.
    pub choice: Option<Choice>,
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
        let Inputs { shape, reading } = Inputs::of(config)?;
        fits_gpu(gpu.as_ref(), config, shape.llm.vocabulary)?;
        let path = training_path(&config.data, progress)?;
        let train = Arc::new(Dataset::load(&path, TRAIN, &reading)?);
        let heldout = heldout_path(&config.data, &path)?
            .map(|path| Dataset::load(&path, HELDOUT, &reading).map(Arc::new))
            .transpose()?;
        let step = StepShape {
            batch: config.train.batch,
            microbatches: config.train.microbatches,
            replicas: config.pipeline.dp,
            seed: config.run.seed,
        };
        let costs = CostModel { shape: shape.clone(), rates: Rates::default() };
        let planner = Planner::new(train, step)?;
        let mut config = config.clone();
        let choice = (config.pipeline.schedule == AUTO).then(|| {
            // A profile that cannot be used is said when a run is laid out: it may be about to be written.
            let costs = layout::costs(&config, &planner, &costs).unwrap_or_else(|_| costs.clone());
            choose(&planner, &costs, &config.pipeline)
        });
        let choice = choice.transpose()?;
        if let Some(choice) = &choice {
            config.pipeline.schedule = choice.schedule.to_owned();
        }
        let busy = config.pipeline.ranks * config.pipeline.dp * config.pipeline.threads;
        let prefetcher =
            Prefetcher::new(planner.dataset().layout.limits, spare_threads(busy)).map_err(|error| {
                Error::argument("data.prefetch", format!("a thread cannot be started: {error}"))
            })?;
        Ok(Session { config, choice, shape, costs, planner, gpu, prefetcher, heldout })
    }

    /// Sentences on text of the samples that the tokenizer does not know.
    pub fn warnings(&self) -> Vec<String> {
        let heldout = self.heldout.as_ref().and_then(|heldout| heldout.note());
        self.planner.dataset().note().into_iter().chain(heldout).collect()
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

/// Checks that the model fits the memory of a GPU, where the driver says how much there is.
fn fits_gpu(gpu: Option<&Gpu>, config: &Config, vocabulary: usize) -> Result<(), TrainError> {
    let Some(Device::Cuda(ordinal)) = gpu.map(Gpu::device) else { return Ok(()) };
    let Ok(machine) = Machine::inspect() else { return Ok(()) };
    match machine.devices.iter().find(|device| device.ordinal == ordinal) {
        Some(device) => Ok(check_device_memory(config, vocabulary, &device.name, device.memory as u64)?),
        None => Ok(()),
    }
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
