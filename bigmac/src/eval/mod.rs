//! Evaluation: what a model says of pictures and draws from descriptions that it has never seen.

mod paint;
mod report;
mod speak;

pub use paint::{description, paint, read};
pub use report::{write_captions, write_drawings};
pub use speak::{answer, beginning, encode, prompt};

use crate::config::{OnError, PerGroup, Pipeline};
use crate::cost::CostModel;
use crate::data::shapes::{Detector, Reading, Scene};
use crate::data::{DataError, Dataset, PictureRef, Sample, pack};
use crate::execute::{LossSums, Program, StepTask, run};
use crate::model::{ModelShape, RankModules};
use crate::train::{Session, TrainError};
use bigmac_comm::LocalCommunicator;
use bigmac_models::mmdit::flow::SampleKey;
use bigmac_runtime::{Context, Error, Threads};
use serde::Serialize;
use std::time::Duration;

/// Key of the noise of evaluations: no step of training has it.
const EVALUATION_STEP: u32 = u32::MAX;

/// A picture and what the model says of it.
#[derive(Clone, Debug)]
pub struct Caption {
    /// The first picture of the sample.
    pub picture: Option<PictureRef>,
    /// What the data set says, as it is written.
    pub wanted: String,
    /// What the model says.
    pub given: String,
    /// It says what is written.
    pub right: bool,
}

/// A description and what the model draws from it.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// The description, as it is written.
    pub text: String,
    /// Pixels [3, side, side] in [-1, 1].
    pub pixels: Vec<f32>,
    /// What the detector makes of it; none when the description is not one of shapes.
    pub verdict: Option<Verdict>,
}

/// What the detector says of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Every attribute of every object is right, and nothing else is there.
    pub exact: bool,
    /// Every object's colour is right in its place.
    pub colors: bool,
}

/// What `bigmac eval --json` prints.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Unseen samples: pictures captioned, texts read and descriptions drawn.
    pub samples: usize,
    /// Token loss plus weighted drawing loss on them.
    pub loss: f64,
    /// Cross-entropy per target token, in nats.
    pub token_loss: f64,
    /// Squared error per drawn element, times lambda.
    pub drawing_loss: f64,
    /// Share of pictures captioned exactly as written; null when none were. In a conversation the first answer is what
    /// is compared.
    pub caption_exact: Option<f64>,
    /// Share of drawings read back with every attribute right; null when descriptions are not of shapes.
    pub drawn_exact: Option<f64>,
    /// Share of drawings whose objects all have the right colour in the right place.
    pub drawn_colors: Option<f64>,
}

/// An evaluation: the figures, and what they are made of.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// The figures.
    pub summary: Summary,
    /// Every caption.
    pub captions: Vec<Caption>,
    /// Every drawing.
    pub drawings: Vec<Drawing>,
    /// Why unseen samples were left out, where `data.on_error` says so.
    pub skipped: Vec<DataError>,
}

/// What is asked of a model on a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// To say what is written of a picture.
    Captioned,
    /// To read a text: only its loss tells anything.
    Text,
    /// To draw.
    Drawn,
}

impl Kind {
    /// None for a sample that nothing can be asked of.
    fn of(sample: &Sample) -> Option<Kind> {
        let answered = sample.written.as_ref().is_some_and(|written| !written.answer.is_empty());
        match sample {
            _ if sample.draw.is_some() => Some(Kind::Drawn),
            _ if sample.target_tokens == 0 => None,
            _ if answered && !sample.images.is_empty() => Some(Kind::Captioned),
            _ => Some(Kind::Text),
        }
    }
}

/// Captions up to `count` unseen pictures, reads up to `count` unseen texts and draws up to `count` unseen descriptions,
/// on `threads` threads.
///
/// # Errors
/// [`TrainError::NoHeldOut`] without held-out samples; those of the model.
pub fn evaluate(
    session: &Session,
    modules: &mut RankModules,
    count: usize,
    threads: usize,
) -> Result<Evaluation, TrainError> {
    let dataset = session.heldout.as_deref().ok_or(TrainError::NoHeldOut)?;
    let mut skipped = Vec::new();
    let mut of_kind = |kind: Kind| -> Vec<usize> {
        let all = dataset.samples.iter().enumerate().filter(|(_, sample)| Kind::of(sample) == Some(kind));
        all.filter(|(_, sample)| usable(session, sample, &mut skipped)).map(|(i, _)| i).take(count).collect()
    };
    let (read, text, drawn) = (of_kind(Kind::Captioned), of_kind(Kind::Text), of_kind(Kind::Drawn));
    let all = [&read[..], &text, &drawn].concat();
    let LossSums { token, drawing } = losses(session, modules, dataset, &all)?;
    let (modules, shape) = (&*modules, &session.shape);
    // Shares of 32 fill a batch of prompts; a drawing is long enough to be shared alone.
    let shares: Vec<&[usize]> = read.chunks(32).collect();
    let captions =
        share(session, &shares, threads, |ctx, share| captions(ctx, modules, shape, dataset, share))?;
    let captions: Vec<Caption> = captions.into_iter().flatten().collect();
    let detector = Detector::new(shape.draw_size);
    let drawings = share(session, &drawn, threads, |ctx, &sample| {
        drawn_by(ctx, modules, session, dataset, sample, &detector)
    })?;
    let verdicts = || drawings.iter().filter_map(|d| d.verdict);
    let summary = Summary {
        samples: all.len(),
        loss: token + drawing,
        token_loss: token,
        drawing_loss: drawing,
        caption_exact: fraction(captions.iter().map(|c| c.right)),
        drawn_exact: fraction(verdicts().map(|v| v.exact)),
        drawn_colors: fraction(verdicts().map(|v| v.colors)),
    };
    Ok(Evaluation { summary, captions, drawings, skipped })
}

/// Whether a sample can be tried. Where `data.on_error` leaves out those that cannot, its pictures are decoded to find
/// out; else the first that cannot be is the evaluation's error.
fn usable(session: &Session, sample: &Sample, skipped: &mut Vec<DataError>) -> bool {
    if session.config.data.on_error == OnError::Stop {
        return true;
    }
    let layout = &session.planner.dataset().layout;
    sample.check_pictures(layout).map_err(|error| skipped.push(error)).is_ok()
}

fn fraction(flags: impl Iterator<Item = bool>) -> Option<f64> {
    let flags: Vec<bool> = flags.collect();
    let right = flags.iter().filter(|flag| **flag).count();
    (!flags.is_empty()).then(|| right as f64 / flags.len() as f64)
}

/// Runs `f` on every item in a context of its own, on several threads, and returns the results in order.
fn share<T: Sync, R: Send>(
    session: &Session,
    items: &[T],
    threads: usize,
    f: impl Fn(&Context, &T) -> Result<R, TrainError> + Sync,
) -> Result<Vec<R>, TrainError> {
    // More threads than items would have nothing to do.
    let threads = Threads::new(threads.clamp(1, items.len().max(1)))?;
    let one = |i: usize, _| f(&session.context(0, 1)?, &items[i]);
    threads.map_blocks(items.len(), 1, one).into_iter().collect()
}

/// Token and drawing loss on the samples, through the executor on one rank with everything frozen.
fn losses(
    session: &Session,
    modules: &mut RankModules,
    dataset: &Dataset,
    samples: &[usize],
) -> Result<LossSums, TrainError> {
    if samples.is_empty() {
        return Ok(LossSums::default());
    }
    let mut costs: CostModel = session.costs.clone();
    costs.shape.frozen = PerGroup::all(true);
    let plan = pack(dataset, samples, samples.len().div_ceil(32))?;
    let pipeline = Pipeline { schedule: "monolithic".into(), ranks: 1, ..Pipeline::default() };
    let program = Program::build(&plan, &costs, &pipeline, None)?;
    let task = StepTask::new(&session.config, &session.shape, &plan, u64::from(EVALUATION_STEP));
    let pictures = session.prefetcher.step(&plan);
    let task = task.with_pictures(&pictures);
    let ctx = session.context(0, session.config.pipeline.threads)?;
    let timeout = Duration::from_secs_f64(session.config.pipeline.timeout);
    let mut world = LocalCommunicator::world(1, timeout);
    let comm = world.pop().ok_or_else(|| Error::argument("evaluate", "a world of one rank has no rank"))?;
    Ok(run(&ctx, &comm, &program, &task, modules)?.losses.read(&ctx)?)
}

fn captions(
    ctx: &Context,
    modules: &RankModules,
    shape: &ModelShape,
    dataset: &Dataset,
    samples: &[usize],
) -> Result<Vec<Caption>, TrainError> {
    let tokenizer = &dataset.tokenizer;
    let prompts =
        samples.iter().map(|&s| prompt(ctx, modules, shape, dataset, s)).collect::<Result<Vec<_>, _>>()?;
    let (prompts, wanted): (Vec<_>, Vec<_>) = prompts.into_iter().unzip();
    // Room for twice the longest right answer: a model that goes on has not understood.
    let room = 16 + 2 * wanted.iter().map(Vec::len).max().unwrap_or(0);
    let given = answer(ctx, modules, &prompts, room, tokenizer.specials().eos)?;
    let caption = |(&sample, given): (&usize, &Vec<i32>)| {
        let tokens: Vec<u32> = given.iter().map(|&t| t as u32).collect();
        let given = tokenizer.decode(&tokens).unwrap_or_else(|e| format!("({e})"));
        let sample = &dataset.samples[sample];
        let written = sample.written.as_deref().cloned().unwrap_or_default();
        let right = written.is_answered_by(&given);
        let picture = sample.images.first().map(|image| image.picture.clone());
        Caption { picture, wanted: written.answer, given, right }
    };
    Ok(samples.iter().zip(&given).map(caption).collect())
}

fn drawn_by(
    ctx: &Context,
    modules: &RankModules,
    session: &Session,
    dataset: &Dataset,
    sample: usize,
    detector: &Detector,
) -> Result<Drawing, TrainError> {
    let expanded = dataset.expand(sample);
    let end = expanded.draw_at.unwrap_or(expanded.tokens.len());
    let prompt = beginning(ctx, modules, &session.shape, dataset, &expanded, end)?;
    let key = SampleKey { seed: session.config.run.seed, step: EVALUATION_STEP, sample: sample as u32 };
    let steps = session.config.model.generator.sample_steps;
    let pixels = paint(ctx, modules, &session.shape, &prompt, key, steps)?;
    let written = dataset.samples[sample].written.as_deref();
    let text = written.map(|written| written.description.clone()).unwrap_or_default();
    let verdict = match text.parse::<Scene>() {
        Ok(scene) => Some(judge(&scene, &detector.detect(&pixels)?)),
        Err(_) => None,
    };
    Ok(Drawing { text, pixels, verdict })
}

fn judge(scene: &Scene, detection: &crate::data::shapes::Detection) -> Verdict {
    let colors = scene.objects().iter().all(|object| {
        detection.places.iter().any(
            |r| matches!(r, Reading::Object(seen) if seen.place == object.place && seen.color == object.color),
        )
    });
    Verdict { exact: detection.shows(scene), colors }
}
