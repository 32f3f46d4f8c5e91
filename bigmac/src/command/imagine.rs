//! `bigmac imagine`: draws a picture from a description.

use super::load::{Loaded, RunArg};
use super::picture_file::picture_format;
use bigmac::data::{pixels_to_rgb, write_picture};
use bigmac::eval::{description, paint};
use bigmac_models::mmdit::flow::SampleKey;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;

/// Draw a picture from a description with a trained model.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  bigmac imagine runs/shapes \"small red circle top left\" --out picture.png"
)]
pub struct ImagineArgs {
    #[command(flatten)]
    run: RunArg,
    /// What to draw
    text: String,
    /// The picture to write, a PNG or a JPEG file by its name
    #[arg(long, default_value = "picture.png")]
    out: PathBuf,
    /// Seed of the noise that the drawing starts from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Euler steps [default: as configured]
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    steps: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: ImagineArgs) -> anyhow::Result<()> {
    let format = picture_format("--out", &args.out)?;
    let loaded = Loaded::open(&args.run)?;
    let Loaded { ctx, modules, shape, tokenizer, .. } = &loaded;
    let prompt = description(tokenizer, &args.text)?;
    loaded.check_prompt(prompt.tokens.len())?;
    let steps = args.steps.unwrap_or(loaded.checkpoint.state().config.model.generator.sample_steps);
    let key = SampleKey { seed: args.seed, step: 0, sample: 0 };
    let pixels = paint(ctx, modules, shape, &prompt, key, steps)?;
    write_picture(&args.out, &pixels_to_rgb(&pixels, shape.draw_size, shape.draw_size)?, format)?;
    let line = if args.json {
        serde_json::json!({ "text": args.text, "picture": args.out.display().to_string() }).to_string()
    } else {
        args.out.display().to_string()
    };
    super::print(&format!("{line}\n"))
}
