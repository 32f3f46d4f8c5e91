//! What a run shows while it goes on: a progress bar on a terminal, a line now and then elsewhere.

use bigmac::config::Config;
use bigmac::data::{DataError, PictureLimits};
use bigmac::eval::{evaluate, write_captions, write_drawings};
use bigmac::execute::Program;
use bigmac::train::{Observer, Session, Snapshot, StepReport, TrainError};
use bigmac_runtime::Error;
use bigmac_runtime::fs::write_atomically;
use bigmac_schedule::render::{TimeUnit, Timeline, Trace, html};
use bigmac_schedule::simulate;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Steps between lines where there is no terminal.
const LINE_EVERY: u64 = 100;
/// Weight of a new step in the shown averages.
const FRESH: f64 = 0.05;

/// Averages that are shown, since single steps jump about.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    token_loss: f64,
    drawing_loss: f64,
    samples_per_second: f64,
    images_per_second: f64,
    tokens_per_second: f64,
    steps: u64,
}

impl Average {
    fn take(&mut self, report: &StepReport) {
        self.steps += 1;
        let weight = FRESH.max(1.0 / self.steps as f64);
        let blend = |old: &mut f64, new: f64| *old += weight * (new - *old);
        blend(&mut self.token_loss, report.token_loss);
        blend(&mut self.drawing_loss, report.drawing_loss);
        blend(&mut self.samples_per_second, report.samples as f64 / report.seconds);
        blend(&mut self.images_per_second, report.images_per_second);
        blend(&mut self.tokens_per_second, report.tokens_per_second);
    }
}

/// A bar on standard error; nothing where that is not a terminal.
pub(super) fn bar(length: u64, template: &str) -> ProgressBar {
    // Templates are constants that parse.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// The observer of `bigmac train`.
#[derive(Debug)]
pub struct RunProgress {
    samples: usize,
    threads: usize,
    steps: u64,
    bar: Option<ProgressBar>,
    pictures: ProgressBar,
    quiet: bool,
    average: Mutex<Average>,
    /// Why samples were left out.
    left_out: Mutex<BTreeSet<String>>,
}

impl RunProgress {
    /// For a run that starts at step `first`.
    pub fn new(config: &Config, quiet: bool, first: u64) -> Self {
        let bar = (!quiet).then(|| {
            let style = "{bar:30} {pos}/{len} {elapsed_precise} left {eta_precise} {msg}";
            bar(config.train.steps, style).with_position(first)
        });
        RunProgress {
            samples: config.output.samples,
            threads: 1,
            steps: config.train.steps,
            bar,
            pictures: if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() },
            quiet,
            average: Mutex::default(),
            left_out: Mutex::default(),
        }
    }

    /// Pictures of the embedded data set were written.
    pub fn wrote_pictures(&self, count: usize) {
        self.pictures.inc(count as u64);
        self.pictures.set_message("writing the shapes data set");
        if self.pictures.position().is_multiple_of(1000) {
            self.pictures.tick();
        }
    }

    /// Says what will be trained.
    pub fn begin(&self, session: &Session) {
        self.pictures.finish_and_clear();
        let (config, data) = (&session.config, session.planner.dataset());
        let p = &config.pipeline;
        let replicas = if p.dp > 1 { format!("{} replicas of ", p.dp) } else { String::new() };
        let heldout = session.heldout.as_ref().map_or(0, |h| h.len());
        self.say(&format!(
            "{} samples of {} ({heldout} held out), {} steps of {} in at least {} microbatches, schedule {} over {replicas}{} ranks x {} threads, {} on {}",
            data.len(),
            data.file.display(),
            config.train.steps,
            config.train.batch,
            config.train.microbatches,
            p.schedule,
            p.ranks,
            p.threads,
            session.shape.dtype,
            p.device,
        ));
        self.skipped(&data.skipped);
        self.skipped(session.heldout.as_ref().map_or(&[], |heldout| &heldout.skipped));
    }

    /// Records and pictures that could not be used, and were left out.
    pub fn count_left_out(&self) -> usize {
        self.left_out().len()
    }

    fn left_out(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line between the bars.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| super::note(line)),
            None => super::note(line),
        }
    }

    /// The run is over.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}

fn describe(average: &Average, report: &StepReport) -> String {
    let bytes =
        |name: &str| HumanBytes(report.saved_bytes.get(name).copied().unwrap_or(0) as u64).to_string();
    format!(
        "loss {:.3} + {:.3}, {:.0} samples/s, {:.0} images/s, {:.0} tokens/s, activations: encoder {}, llm {}, generator {}",
        average.token_loss,
        average.drawing_loss,
        average.samples_per_second,
        average.images_per_second,
        average.tokens_per_second,
        bytes("encoder"),
        bytes("llm"),
        bytes("generator"),
    )
}

impl Observer for RunProgress {
    fn step(&self, report: &StepReport) {
        let mut average = self.average.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        average.take(report);
        let done = report.step + 1;
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(describe(&average, report));
            }
            None if done.is_multiple_of(LINE_EVERY) || done == self.steps => {
                super::note(&format!("step {done}/{}: {}", self.steps, describe(&average, report)));
            }
            None => {}
        }
    }

    fn skipped(&self, errors: &[DataError]) {
        for error in errors.iter().map(DataError::to_string) {
            // Each epoch meets the same again.
            if self.left_out().insert(error.clone()) {
                self.say(&format!("skipped: {error}"));
            }
        }
    }

    fn saved(&self, path: &Path) {
        if !self.quiet {
            self.say(&format!("checkpoint {}", path.display()));
        }
    }

    fn samples(
        &self,
        folder: &Path,
        session: &Session,
        snapshot: &Snapshot,
        step: u64,
    ) -> Result<(), TrainError> {
        if session.heldout.is_none() {
            return Ok(());
        }
        let ctx = session.context(0, 1)?;
        let mut whole = snapshot.whole_model(&ctx, &session.shape)?;
        let evaluation = evaluate(session, &mut whole, self.samples, self.threads)?;
        self.skipped(&evaluation.skipped);
        let folder = folder.join("samples");
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        write_captions(
            &folder,
            &format!("step-{step:08}-captions"),
            &evaluation.captions,
            &PictureLimits::of(&session.config.data),
        )?;
        let side = session.shape.draw_size;
        write_drawings(&folder, &format!("step-{step:08}-drawings"), &evaluation.drawings, side)?;
        if let Some(caption) = evaluation.captions.first() {
            self.say(&format!(
                "step {step}: a held-out picture of \"{}\" is captioned \"{}\"",
                caption.wanted, caption.given
            ));
        }
        Ok(())
    }

    fn timeline(
        &self,
        folder: &Path,
        program: &Program,
        traces: &[Trace],
        step: u64,
    ) -> Result<(), TrainError> {
        let (table, workload) = (&program.table, &program.workload);
        let title = format!("step {step}, measured");
        let mut timelines = vec![Timeline::measured(&title, table, traces)];
        if let Ok(simulation) = simulate(table, workload) {
            let title = "the same step, simulated from estimated costs";
            let simulated = Timeline::simulated(title, table, workload, &simulation);
            // Costs are counted in operations: on the measured step's axis only their proportions mean something.
            let scale = timelines[0].end() / simulated.end().max(f64::MIN_POSITIVE);
            timelines.push(simulated.scaled(scale, TimeUnit::Seconds));
        }
        let page = html(&timelines);
        Ok(write_atomically(&folder.join("timeline.html"), |w| w.write_all(page.as_bytes()))?)
    }
}
