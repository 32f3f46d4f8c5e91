//! Training as one process of several. Rank 0 decides where the run begins and where it writes, and tells the others.

use super::{TrainArgs, begin};
use crate::command::stop;
use anyhow::Context as _;
use bigmac::config::{self, Config};
use bigmac::data::DataError;
use bigmac::execute::Program;
use bigmac::job::Job;
use bigmac::train::{
    Checkpoint, Observer, Outcome, Process, Session, Snapshot, StepReport, TrainError, Training,
};
use bigmac_comm::ProcessCommunicator;
use bigmac_runtime::Context;
use bigmac_schedule::render::Trace;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Where a run begins, as rank 0 tells the others.
#[derive(Serialize, Deserialize)]
struct Beginning {
    /// With the schedule that was chosen.
    config: Config,
    /// What the run goes on from.
    checkpoint: Option<PathBuf>,
}

/// This rank's connection to the others.
pub(super) struct Connected {
    ctx: Context,
    comm: ProcessCommunicator,
}

/// What all ranks of a job have to be told alike: the configuration, and where the run begins and writes.
pub(super) fn facts(args: &TrainArgs) -> anyhow::Result<BTreeMap<String, String>> {
    let mut facts = BTreeMap::new();
    let auto = args.resume.as_deref().is_some_and(|path| path == Path::new(begin::AUTO));
    if args.resume.is_none() || auto {
        facts.extend(config::entries(&config::read(args.config.as_deref(), &args.settings())?));
    } else {
        let split = |setting: &String| {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            (key.to_owned(), value.to_owned())
        };
        facts.extend(args.settings().iter().map(split));
    }
    for (flag, path) in [("--resume", &args.resume), ("--out", &args.out)] {
        facts.extend(path.iter().map(|path| (flag.to_owned(), path.display().to_string())));
    }
    Ok(facts)
}

/// What any rank but 0 does.
pub(super) fn follow(args: &TrainArgs, stop: &'static AtomicBool, job: &Job) -> anyhow::Result<()> {
    let Beginning { config, checkpoint } = share(job, "where the run begins", None)?;
    // Where a data set has yet to be written, one rank of each host writes it.
    if job.local_rank() > 0 {
        job.wait_for_all("data sets")?;
    }
    let session = Session::open(&config, &|_| ())?;
    if job.local_rank() == 0 {
        job.wait_for_all("data sets")?;
    }
    let checkpoint = checkpoint.map(|path| Checkpoint::open(&path, args.verify())).transpose()?;
    let training = Training::prepare(&session, checkpoint.as_ref(), args.verify())?;
    let connected = connect(job, &session)?;
    let folder: PathBuf = share(job, "the run's directory", None)?;
    run(job, connected, &training, &folder, stop, &Silent)?;
    stop::all_saved();
    Ok(())
}

/// Tells the other ranks where the run begins, and connects them; before anything is written.
pub(super) fn begin(
    job: &Job,
    session: &Session,
    checkpoint: Option<&Checkpoint>,
) -> anyhow::Result<Connected> {
    let checkpoint = checkpoint.map(|checkpoint| checkpoint.path().to_owned());
    share(job, "where the run begins", Some(Beginning { config: session.config.clone(), checkpoint }))?;
    job.wait_for_all("data sets")?;
    connect(job, session)
}

/// What rank 0 does once it has a directory for the run.
pub(super) fn train(
    job: &Job,
    connected: Connected,
    training: &Training<'_>,
    folder: &Path,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> anyhow::Result<Outcome> {
    share(job, "the run's directory", Some(folder.to_owned()))?;
    run(job, connected, training, folder, stop, observer)
}

/// What rank 0 has to tell.
fn share<T: Serialize + DeserializeOwned>(job: &Job, what: &str, mine: Option<T>) -> anyhow::Result<T> {
    let mine = mine.map(|mine| serde_json::to_vec(&mine)).transpose();
    let bytes = job.share(what, mine.with_context(|| format!("cannot write {what}"))?)?;
    serde_json::from_slice(&bytes).with_context(|| format!("rank 0 told {what}, and it cannot be read"))
}

fn connect(job: &Job, session: &Session) -> anyhow::Result<Connected> {
    let pipeline = &session.config.pipeline;
    let ctx = session.context(job.rank(), pipeline.threads)?;
    let comm = job.connect(&ctx, pipeline.engine, Duration::from_secs_f64(pipeline.timeout))?;
    Ok(Connected { ctx, comm })
}

fn run(
    job: &Job,
    Connected { ctx, comm }: Connected,
    training: &Training<'_>,
    folder: &Path,
    stop: &AtomicBool,
    observer: &dyn Observer,
) -> anyhow::Result<Outcome> {
    stop::training();
    let process = Process { ctx: &ctx, comm: &comm, hosts: job.hosts(), position: &job.position() };
    Ok(training.run_as(&process, folder, stop, observer)?)
}

/// The observer of ranks that do not speak. Only rank 0's is told anything.
struct Silent;

impl Observer for Silent {
    fn step(&self, _: &StepReport) {}

    fn skipped(&self, _: &[DataError]) {}

    fn saved(&self, _: &Path) {}

    fn samples(&self, _: &Path, _: &Session, _: &Snapshot, _: u64) -> Result<(), TrainError> {
        Ok(())
    }

    fn timeline(&self, _: &Path, _: &Program, _: &[Trace], _: u64) -> Result<(), TrainError> {
        Ok(())
    }
}
