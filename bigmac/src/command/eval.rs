//! `bigmac eval`: what a trained model says and draws of unseen samples, in figures.

use super::load::{Loaded, RunArg};
use anyhow::Context;
use bigmac::data::PictureLimits;
use bigmac::eval::{Evaluation, evaluate, write_captions, write_drawings};
use clap::Args;
use std::num::NonZero;
use std::path::PathBuf;

const EXAMPLE: &str = "Example:
  bigmac eval runs/shapes --samples 400 --json

JSON is one object: samples; loss, token_loss (nats per token), drawing_loss (squared error per value, weighted);
caption_exact, drawn_exact, drawn_colors: fractions, null where nothing of that kind could be judged. A caption is right
when it is the text as the data set has it; of a conversation the first answer is asked for. Texts without a picture
count in the losses alone.";

/// Evaluate a run on its held-out samples.
///
/// Pictures are captioned and compared letter by letter; descriptions are drawn and, for the shapes set, read back by a
/// detector of colours and forms.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct EvalArgs {
    #[command(flatten)]
    run: RunArg,
    /// At most that many pictures to caption, as many texts to read, and as many descriptions to draw
    #[arg(long, default_value = "200")]
    samples: NonZero<usize>,
    /// Threads [default: the machine's]
    #[arg(long)]
    threads: Option<NonZero<usize>>,
    /// Also write captions and drawings to this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: EvalArgs) -> anyhow::Result<()> {
    let mut loaded = Loaded::open(&args.run)?;
    let session = loaded.session()?;
    if let Some(warning) = session.heldout.as_ref().and_then(|heldout| heldout.note()) {
        super::note(&format!("warning: {warning}"));
    }
    let threads = args.threads.map_or_else(super::load::threads, NonZero::get);
    let evaluation = evaluate(&session, &mut loaded.modules, args.samples.get(), threads)?;
    let heldout = session.heldout.iter().flat_map(|heldout| &heldout.skipped);
    heldout.chain(&evaluation.skipped).for_each(|error| super::note(&format!("skipped: {error}")));
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("could not make {}", out.display()))?;
        write_captions(out, "captions", &evaluation.captions, &PictureLimits::of(&session.config.data))?;
        write_drawings(out, "drawings", &evaluation.drawings, session.shape.draw_size)?;
    }
    if args.json {
        super::print(&format!("{}\n", serde_json::to_string(&evaluation.summary)?))
    } else {
        super::print(&figures(&evaluation))
    }
}

/// The figures as lines of text; of a kind that no sample is of, there is none.
pub fn figures(evaluation: &Evaluation) -> String {
    let Evaluation { summary, captions, drawings, .. } = evaluation;
    let judged = drawings.iter().filter(|drawing| drawing.verdict.is_some()).count();
    let shares = [
        ("captions exactly right  ", summary.caption_exact, captions.len()),
        ("drawings exactly right  ", summary.drawn_exact, judged),
        ("drawings' colours right ", summary.drawn_colors, judged),
    ];
    let line = |(name, share, of): &(&str, Option<f64>, usize)| {
        share.map(|share| format!("  {name} {:.1} % of {of}\n", 100.0 * share))
    };
    format!(
        "On {} unseen samples:\n{}  loss         {:.4} (tokens {:.4}, drawings {:.4})\n",
        summary.samples,
        shares.iter().filter_map(line).collect::<String>(),
        summary.loss,
        summary.token_loss,
        summary.drawing_loss,
    )
}
