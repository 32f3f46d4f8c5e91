//! Training on a GPU without host waits: the host waits for no step before all of the next one is queued, what is read
//! late is complete and in order, and a number that is not finite stops learning at its own step although the host
//! hears of it later.

use anyhow::{Context as _, Result, ensure};
use bigmac::config::Config;
use bigmac::data::DataError;
use bigmac::execute::{ExecuteError, Program};
use bigmac::train::{Observer, Session, Snapshot, StepReport, TrainError, train};
use bigmac_close::{absolute, assert_close};
use bigmac_gpu::Gpu;
use bigmac_schedule::render::Trace;
use bigmac_tests::dataset::SmallSet;
use bigmac_tests::tiny::{LINES, config};
use bigmac_tests::watched::{Event, Poison, steps, watched};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;

const STEPS: u64 = 5;

/// Hears of steps; at the first of them pictures may vanish, at another one somebody may ask to stop.
#[derive(Default)]
struct Ear<'a> {
    heard: Mutex<Vec<u64>>,
    vanish: Vec<PathBuf>,
    stop: Option<(u64, &'a AtomicBool)>,
    saved: AtomicU64,
}

impl Observer for Ear<'_> {
    fn step(&self, report: &StepReport) {
        self.heard.lock().unwrap().push(report.step);
        self.vanish.iter().for_each(|path| drop(std::fs::remove_file(path)));
        if let Some((_, stop)) = self.stop.filter(|(step, _)| *step == report.step) {
            stop.store(true, Ordering::Relaxed);
        }
    }

    fn note(&self, _: &str) {}

    fn skipped(&self, _errors: &[DataError]) {}

    fn saved(&self, _path: &Path) {
        self.saved.store(self.heard.lock().unwrap().len() as u64, Ordering::Relaxed);
    }

    fn samples(&self, _session: &Session, _snapshot: &Snapshot, _step: u64) -> Result<(), TrainError> {
        Ok(())
    }

    fn timeline(&self, _: &Path, _: &Program, traces: &[Trace], _: u64) -> Result<(), TrainError> {
        assert!(traces.iter().all(|trace| !trace.spans.is_empty()));
        Ok(())
    }
}

/// The tiny model over a few steps, clipped at each of them.
fn settings(ranks: usize) -> Config {
    let mut config = config();
    config.train.steps = STEPS;
    config.train.microbatches = 2;
    config.train.warmup = 1;
    config.train.clip = 0.1;
    config.pipeline.ranks = ranks;
    // Kernels are compiled while peers wait.
    config.pipeline.timeout = 300.0;
    config.pipeline.schedule = if ranks == 1 { "monolithic" } else { "nested" }.into();
    config.output.checkpoint_every = 0;
    config.output.sample_every = 0;
    config
}

/// A run and its folder.
struct Run {
    folder: TempDir,
    ended: Result<u64, TrainError>,
}

impl Run {
    fn new(gpu: Option<Gpu>, config: &Config, ear: &mut Ear<'_>, vanish: bool) -> Result<Run> {
        let mut set = SmallSet::new(&LINES, config)?;
        set.session.gpu = gpu;
        if vanish {
            ear.vanish = (0..4).map(|number| set.picture(number)).collect();
        }
        let folder = tempfile::tempdir()?;
        let never = AtomicBool::new(false);
        let stop = ear.stop.map_or(&never, |(_, stop)| stop);
        let ended = train(&set.session, folder.path(), None, stop, &*ear).map(|outcome| outcome.step);
        Ok(Run { folder, ended })
    }

    /// The lines of its metrics.
    fn metrics(&self) -> Result<Vec<StepReport>> {
        let text = std::fs::read_to_string(self.folder.path().join("metrics.jsonl"))?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn cause(self) -> Result<TrainError> {
        match self.ended.err().context("the run went through")? {
            TrainError::Ended { cause, newest: None } => Ok(*cause),
            other => anyhow::bail!("{other}"),
        }
    }
}

/// Checks that whatever was waited for before the last step is of a step after which another one had been queued whole.
fn check_no_wait(rank: &str, events: &[Event]) -> Result<()> {
    ensure!(steps(events) == STEPS as usize, "{rank} ran {} steps", steps(events));
    let mut late = 0;
    for (at, event) in events.iter().enumerate() {
        let Event::Wait { call, until } = *event else { continue };
        // After the last step everything is read.
        let queued = steps(&events[..at]);
        if queued == STEPS as usize {
            continue;
        }
        // What comes before a step's update is of that step, and so is what comes right after.
        let until = until.min(events.len());
        let open = !matches!(
            events[..until].iter().rfind(|e| !matches!(e, Event::Wait { .. })),
            Some(Event::Update { .. })
        );
        let step = steps(&events[..until]) - usize::from(!open);
        ensure!(queued >= step + 2, "{rank}: {call} waits for step {step} with {queued} steps queued");
        late += 1;
    }
    ensure!(late >= STEPS as usize - 2, "{rank} read numbers {late} times before the last step");
    Ok(())
}

#[test]
fn the_host_waits_for_no_step_before_the_next_one_is_queued() -> Result<()> {
    for ranks in [1, 2] {
        let (gpu, log) = watched(None)?;
        let mut ear = Ear::default();
        let run = Run::new(Some(gpu), &settings(ranks), &mut ear, false)?;
        let metrics = run.metrics()?;
        ensure!(run.ended.as_ref().is_ok_and(|&steps| steps == STEPS), "{:?}", run.ended);
        assert!(ear.heard.lock().unwrap().iter().copied().eq(0..STEPS));
        // Everything was read before anything was written.
        assert_eq!(ear.saved.load(Ordering::Relaxed), STEPS);
        for rank in 0..ranks {
            let name = format!("rank-{rank}");
            let events = log.events().remove(&name).context("no rank of that name")?;
            check_no_wait(&name, &events)?;
            ensure!(events.iter().all(|event| *event != Event::Update { changed: false }));
        }
        // What is read late is what the CPU knows at once.
        let cpu = Run::new(None, &settings(ranks), &mut Ear::default(), false)?.metrics()?;
        assert_eq!(metrics.len(), cpu.len());
        for (given, wanted) in metrics.iter().zip(&cpu) {
            assert_eq!((given.step, given.lr, given.tokens), (wanted.step, wanted.lr, wanted.tokens));
            assert_eq!(given.saved_bytes, wanted.saved_bytes);
            assert!(given.seconds > 0.0 && given.peak_bytes.len() == ranks);
            for (a, b) in [(given.loss, wanted.loss), (given.grad_norm, wanted.grad_norm)] {
                assert_close(a, b, absolute(1e-4 * b.abs()));
            }
            assert!(wanted.grad_norm > 0.1, "nothing is clipped");
        }
    }
    Ok(())
}

/// Runs with a NaN, and checks that learning stopped there, and that metrics are those of the steps before.
fn stopped(ranks: usize, poison: Poison) -> Result<TrainError> {
    let (gpu, log) = watched(Some(poison))?;
    let run = Run::new(Some(gpu), &settings(ranks), &mut Ear::default(), false)?;
    let numbers: Vec<u64> = run.metrics()?.iter().map(|report| report.step).collect();
    assert!(numbers.iter().copied().eq(0..poison.step as u64), "{numbers:?}");
    for (rank, events) in log.events() {
        for (at, event) in events.iter().enumerate() {
            if let Event::Update { changed } = event {
                let step = steps(&events[..at])
                    - usize::from(at > 0 && matches!(events[at - 1], Event::Update { .. }));
                ensure!(*changed == (step < poison.step), "{rank}: an update of step {step}: {event:?}");
            }
        }
        let queued = steps(&events);
        let last = (poison.step + 2).min(STEPS as usize);
        // A peer may hear of it before it has queued the step after.
        ensure!(
            queued == last || ranks > 1 && rank != poison.thread && queued + 1 >= last,
            "{rank} queued {queued} steps"
        );
    }
    run.cause()
}

#[test]
fn a_gradient_that_is_not_finite_is_told_with_its_step_and_changes_nothing() -> Result<()> {
    for (ranks, thread) in [(1, "rank-0"), (2, "rank-1")] {
        for step in [0, STEPS as usize - 1] {
            let cause = stopped(ranks, Poison { kernel: "squares_partial", step, thread })?;
            let TrainError::Gradient { step: told, norm } = cause else { anyhow::bail!("{cause:?}") };
            assert_eq!((told, norm.is_nan()), (step as u64, true));
        }
    }
    Ok(())
}

#[test]
fn a_loss_that_is_not_finite_is_told_by_the_rank_that_has_it_and_changes_nothing() -> Result<()> {
    for (ranks, thread) in [(1, "rank-0"), (2, "rank-1")] {
        let cause = stopped(ranks, Poison { kernel: "sum_partial", step: 2, thread })?;
        let TrainError::Execute(ExecuteError::NotFinite { step, part, value, rank, microbatch }) = cause
        else {
            anyhow::bail!("{cause:?}");
        };
        assert_eq!((step, part, rank, microbatch), (2, "token", ranks - 1, 0));
        assert!(value.is_nan());
    }
    Ok(())
}

#[test]
fn a_step_that_went_well_is_written_down_although_the_next_one_fails() -> Result<()> {
    for ranks in [1, 2] {
        let (gpu, _) = watched(None)?;
        // Pictures vanish when step 0 is heard of: step 1 is queued then.
        let mut config = settings(ranks);
        config.train.steps = 3 * STEPS;
        let run = Run::new(Some(gpu), &config, &mut Ear::default(), true)?;
        let numbers: Vec<u64> = run.metrics()?.iter().map(|report| report.step).collect();
        // Step 2 fails, or step 3 where the pictures of step 2 are decoded already; those of step 3 are not looked for
        // before step 2 is taken. With peers it may be a later one: they may be ahead of who hears.
        ensure!(numbers.len() >= 2 && (ranks > 1 || numbers.len() <= 3), "{numbers:?}");
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{numbers:?}");
        let cause = run.cause()?;
        ensure!(matches!(cause, TrainError::Execute(ExecuteError::Data(_))), "{cause:?}");
    }
    Ok(())
}

#[test]
fn a_wish_to_stop_ends_with_a_checkpoint_of_what_was_reported() -> Result<()> {
    for ranks in [1, 2] {
        let (gpu, _) = watched(None)?;
        let stop = AtomicBool::new(false);
        let mut ear = Ear { stop: Some((1, &stop)), ..Ear::default() };
        let run = Run::new(Some(gpu), &settings(ranks), &mut ear, false)?;
        // Step 1 is heard of when step 2 is queued, whose ranks have agreed to go on.
        let done = *run.ended.as_ref().ok().context("the run failed")?;
        assert_eq!(done, 4);
        assert_eq!(run.metrics()?.len() as u64, done);
        assert_eq!(ear.saved.load(Ordering::Relaxed), done);
        ensure!(run.folder.path().join(format!("checkpoints/step-{done:08}")).is_dir());
    }
    Ok(())
}
