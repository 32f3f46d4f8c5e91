//! `bigmac train`: trains the model of a configuration.

mod begin;
mod together;

use super::exit::BadInput;
use super::progress::RunProgress;
use super::{note, print, stop, suggest};
use begin::Begin;
use bigmac::config::{AUTO, AUTO_CHOICES};
use bigmac::data::PictureLimits;
use bigmac::eval::{Evaluation, evaluate, write_captions, write_drawings};
use bigmac::job::Job;
use bigmac::train::{Observer, Session, Training, Verify};
use bigmac_runtime::fs::write_atomically;
use bigmac_runtime::processor;
use bigmac_schedule::registry;
use clap::Args;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const EXAMPLES: &str = "Examples:
  bigmac train
  bigmac train configs/shapes.toml --schedule phased --set train.lr=1e-3
  bigmac train --resume runs/shapes
  bigmac train --resume runs/shapes/checkpoints/step-00000500 --set train.lr=1e-3    (writes to runs/shapes-2)
  bigmac train configs/shapes.toml --resume auto    (begins the run or goes on with it: for jobs that are requeued)";

/// Train a multimodal LLM through a pipeline schedule.
///
/// Without a configuration it trains the embedded default: a small model on the shapes data set, which is written to
/// data/ on first use. The run's directory gets the resolved configuration, metrics.jsonl, checkpoints, captions and
/// drawings of held-out samples, and a timeline of a measured step. Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 write
/// a checkpoint and end with exit code 0; --resume goes on from there, bit for bit. A second Ctrl-C ends at once, with
/// exit code 130.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct TrainArgs {
    /// TOML file over the defaults
    config: Option<PathBuf>,
    /// Directory of the run [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with a run from its newest checkpoint, in place; from one of its checkpoints, in a directory of its own
    /// (--out, else the first free one of RUN-2, RUN-3, ...); or, as 'auto', with the run that the same command began,
    /// where there is one
    #[arg(long, value_name = "RUN|CHECKPOINT|auto")]
    resume: Option<PathBuf>,
    /// Read checkpoints as they are, even where files are not what was written
    #[arg(long)]
    no_verify: bool,
    #[arg(long, help = schedule_help())]
    schedule: Option<String>,
    /// Ranks of a pipeline, each of which holds a stage of the LLM
    #[arg(long, value_name = "P")]
    ranks: Option<usize>,
    /// The same as --ranks
    #[arg(long, value_name = "P")]
    pp: Option<usize>,
    /// Replicas of the pipeline, which share the samples of a step: D times P ranks in all
    #[arg(long, value_name = "D")]
    dp: Option<usize>,
    /// How ranks are numbered: pp-first, dp-first, or auto
    #[arg(long)]
    order: Option<String>,
    /// What to compute on: cpu, cuda, cuda:N or replay. On a CUDA device in bf16 with fp32 master weights, unless --set
    /// model.dtype=f32 says otherwise.
    #[arg(long)]
    device: Option<String>,
    /// Steps of the whole run
    #[arg(long)]
    steps: Option<u64>,
    /// Seed of weights, order and noise
    #[arg(long)]
    seed: Option<u64>,
    /// Any key of the configuration; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Print one JSON object at the end instead of text
    #[arg(long)]
    json: bool,
}

impl TrainArgs {
    /// The settings that the command's own flags stand for, before those of --set.
    fn settings(&self) -> Vec<String> {
        // A resumed run keeps its dtype; with 'auto' the command line configures it each time.
        let is_kept = self.resume.as_ref().is_some_and(|path| path.as_os_str() != begin::AUTO);
        let bf16 = !is_kept && self.device.as_ref().is_some_and(|d| d.starts_with("cuda"));
        let flags = [
            self.device.as_ref().map(|d| format!("pipeline.device={d}")),
            bf16.then(|| "model.dtype=bf16".to_owned()),
            self.schedule.as_ref().map(|s| format!("pipeline.schedule={s}")),
            self.pp.or(self.ranks).map(|n| format!("pipeline.ranks={n}")),
            self.dp.map(|n| format!("pipeline.dp={n}")),
            self.order.as_ref().map(|order| format!("pipeline.order={order}")),
            self.steps.map(|n| format!("train.steps={n}")),
            self.seed.map(|n| format!("run.seed={n}")),
        ];
        flags.into_iter().flatten().chain(self.settings.iter().cloned()).collect()
    }

    /// Checks that flags do not contradict each other.
    fn check(&self) -> Result<(), BadInput> {
        match (self.ranks, self.pp) {
            (Some(ranks), Some(pp)) if ranks != pp => {
                let message = format!(
                    "--ranks {ranks} and --pp {pp} mean the same, the ranks of a pipeline; give one of them"
                );
                Err(BadInput(message))
            }
            _ => Ok(()),
        }
    }

    fn verify(&self) -> Verify {
        if self.no_verify { Verify::Nothing } else { Verify::Everything }
    }
}

fn schedule_help() -> String {
    let names =
        registry::SCHEDULES.iter().filter(|schedule| schedule.is_whole()).map(|schedule| schedule.name());
    let names: Vec<_> = names.collect();
    format!(
        "Schedule of the step: {}, or {AUTO} for the faster of {}",
        names.join(", "),
        AUTO_CHOICES.join(" and ")
    )
}

/// Runs the command: all ranks in this process, or one of several processes.
pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    args.check()?;
    let stop = stop::on_signals()?;
    match Job::join(together::facts(&args)?)? {
        None => first(args, stop, None),
        Some(job) => {
            let done = match job.rank() {
                0 => first(args, stop, Some(&job)),
                _ => together::follow(&args, stop, &job),
            };
            job.end(done)
        }
    }
}

/// What the process does that reads the configuration, writes the run and speaks: the only one, or that of rank 0.
fn first(mut args: TrainArgs, stop: &'static AtomicBool, job: Option<&Job>) -> anyhow::Result<()> {
    if job.is_some_and(|job| job.restart() > 0) {
        args.resume = Some(begin::after_restart(args.resume)?);
    }
    let Begin { config, start, notes } = Begin::new(&args)?;
    let resume = start.checkpoint();
    let quiet = args.json || !std::io::stderr().is_terminal();
    let progress = RunProgress::new(&config, quiet, resume.map_or(0, |c| c.state().step));
    let say = |lines: &[String]| lines.iter().for_each(|line| note(&format!("note: {line}")));
    say(&notes);
    let session = Session::open(&config, &|n| progress.wrote_pictures(n))?;
    let config = &session.config;
    progress.begin(&session);
    say(&session.choice.iter().map(ToString::to_string).collect::<Vec<_>>());
    if let (Some(warning), None) = (processor::unused(), &session.gpu) {
        note(&format!("warning: {warning}"));
    }
    say(session.planner.dataset().tokenizer.notes());
    session.warnings().iter().for_each(|line| note(&format!("warning: {line}")));
    let training = Training::prepare(&session, resume, args.verify())?;
    job.map_or(Ok(()), |job| training.check_ranks(job.size()))?;
    say(&training.notes()?);
    let connected = match job {
        None => None,
        Some(job) => Some((job, together::begin(job, &session, resume)?)),
    };
    let (folder, notes) = start.claim(config)?;
    say(&notes);
    let outcome = match connected {
        None => {
            stop::training();
            training.run(&folder, stop, &progress)?
        }
        Some((job, connected)) => {
            folder.write_config(config)?;
            together::train(job, connected, &training, folder.path(), stop, &progress)?
        }
    };
    stop::all_saved();
    progress.end();
    let run = folder.path();
    let Some(snapshot) = outcome.snapshot.filter(|_| !stop.load(Ordering::Relaxed)) else {
        return stopped(&args, run, &progress, outcome.step, config.train.steps);
    };
    if session.heldout.is_none() {
        return finish(&args, &session, run, &progress, outcome.step, None);
    }
    // The other ranks are done: their processors are free.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = config.pipeline.ranks * config.pipeline.dp * config.pipeline.threads;
    let ctx = session.context(0, 1)?;
    let mut whole = snapshot.whole_model(&ctx, &session.shape)?;
    progress.say("evaluating on unseen samples");
    let evaluation = evaluate(&session, &mut whole, config.output.final_samples, threads.min(processors))?;
    progress.skipped(&evaluation.skipped);
    write_captions(run, "captions", &evaluation.captions, &PictureLimits::of(&config.data))?;
    write_drawings(run, "drawings", &evaluation.drawings, session.shape.draw_size)?;
    let text = serde_json::to_string_pretty(&evaluation.summary)? + "\n";
    write_atomically(&run.join("eval.json"), |w| w.write_all(text.as_bytes()))?;
    finish(&args, &session, run, &progress, outcome.step, Some(&evaluation))
}

fn stopped(
    args: &TrainArgs,
    folder: &Path,
    progress: &RunProgress,
    step: u64,
    steps: u64,
) -> anyhow::Result<()> {
    let skipped = progress.count_left_out();
    if args.json {
        let value = json!({ "run": folder.display().to_string(), "step": step, "finished": false });
        return print_json(value, skipped);
    }
    let run = suggest::argument(&folder.display().to_string());
    print(&format!(
        "Stopped after step {step} of {steps}; a checkpoint is written.\n{}Go on with: bigmac train --resume {run}\n",
        left_out(skipped)
    ))
}

fn finish(
    args: &TrainArgs,
    session: &Session,
    folder: &Path,
    progress: &RunProgress,
    step: u64,
    evaluation: Option<&Evaluation>,
) -> anyhow::Result<()> {
    let skipped = progress.count_left_out();
    if args.json {
        let summary = evaluation.map(|e| &e.summary);
        let value =
            json!({ "run": folder.display().to_string(), "step": step, "finished": true, "eval": summary });
        return print_json(value, skipped);
    }
    let run = folder.display();
    let evaluated = match evaluation {
        Some(evaluation) => {
            let captions = format!("  captions     {run}/captions.png, captions.txt\n");
            let drawings = format!("  drawings     {run}/drawings.png\n");
            super::eval::figures(evaluation)
                + if evaluation.captions.is_empty() { "" } else { &captions }
                + if evaluation.drawings.is_empty() { "" } else { &drawings }
        }
        None => "Not evaluated: the data set has no held-out samples. Put a heldout.jsonl beside the training file, or \
                 name one in data.heldout.\n"
            .into(),
    };
    let timeline = folder.join("timeline.html");
    let timeline = match timeline.exists() {
        true => format!("  timeline     {} (a measured step beside its simulation)\n", timeline.display()),
        // Too few steps were left for one to be measured.
        false => String::new(),
    };
    let (commands, left_out) = (suggest::commands(session, folder), left_out(skipped));
    print(&format!(
        "
Trained: {run}
{left_out}{evaluated}{timeline}
Try next:
{commands}"
    ))
}

/// What is said of samples that were left out, where `data.on_error` says so.
fn left_out(skipped: usize) -> String {
    match skipped {
        0 => String::new(),
        _ => format!("Left out, as they cannot be used: {skipped} records and pictures, named above\n"),
    }
}

/// With the number of records and pictures that were left out, where there are any.
fn print_json(mut value: Value, skipped: usize) -> anyhow::Result<()> {
    if skipped > 0 {
        value["skipped"] = skipped.into();
    }
    print(&format!("{value}\n"))
}
