//! `bigmac caption`: says what is in pictures.

use super::exit::BadInput;
use super::load::{Loaded, RunArg};
use bigmac::data::{ImageItem, PictureLimits, PictureRef, Tiling};
use bigmac::eval::{answer, encode};
use bigmac::train::TrainError;
use bigmac_models::generate::Prompt;
use clap::Args;
use std::path::{Path, PathBuf};

/// Caption pictures with a trained model.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bigmac caption runs/shapes picture.png other.jpg --json")]
pub struct CaptionArgs {
    #[command(flatten)]
    run: RunArg,
    /// PNG or JPEG files
    #[arg(required = true)]
    pictures: Vec<PathBuf>,
    /// Text between the picture and the answer
    #[arg(long, default_value = "")]
    prompt: String,
    /// At most that many tokens of answer; with the prompt, never more than the model was trained on
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// Print one JSON object per picture, each on a line of its own
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: CaptionArgs) -> anyhow::Result<()> {
    let loaded = Loaded::open(&args.run)?;
    let Loaded { ctx, modules, shape, tokenizer, .. } = &loaded;
    let specials = tokenizer.specials();
    let (size, rows) = (shape.llava.vision.image_size, shape.llava.image_tokens());
    let text = tokenizer.encode(&args.prompt).map_err(anyhow::Error::msg)?;
    let data = &loaded.checkpoint.state().config.data;
    let (max_tiles, limits) = (data.max_tiles, PictureLimits::of(data));
    let prompt = |path: &Path| -> Result<Prompt, TrainError> {
        let picture = PictureRef::new(path);
        let (width, height) = picture.dimensions(&limits)?;
        let tiling = Tiling::choose(width, height, size as u32, max_tiles as u32);
        let mut prompt = Prompt { tokens: vec![specials.bos as i32], images: Vec::new() };
        for tile in tiling.tiles() {
            let start = prompt.tokens.len();
            let item =
                ImageItem { picture: picture.clone(), tile, size, rows: start..start + rows, sample: 0 };
            prompt.images.push((item.rows.clone(), encode(ctx, modules, shape, &item, &limits)?));
            prompt.tokens.extend(std::iter::repeat_n(specials.image as i32, rows));
        }
        prompt.tokens.extend(text.iter().map(|&t| t as i32));
        Ok(prompt)
    };
    // One picture that cannot be read does not keep the others from being captioned.
    let (mut prompts, mut read, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    loaded.check_prompt(text.len())?;
    for path in &args.pictures {
        match prompt(path) {
            Ok(prompt) => {
                loaded.check_prompt(prompt.tokens.len())?;
                prompts.push(prompt);
                read.push(path);
            }
            Err(TrainError::Data(error)) => wrong.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let max_tokens = args.max_tokens.min(loaded.most_tokens().saturating_sub(longest));
    let answers = answer(ctx, modules, &prompts, max_tokens, specials.eos)?;
    for (path, answer) in read.into_iter().zip(answers) {
        let tokens: Vec<u32> = answer.iter().map(|&t| t as u32).collect();
        let caption = tokenizer.decode(&tokens).map_err(anyhow::Error::msg)?;
        let line = if args.json {
            serde_json::json!({ "picture": path.display().to_string(), "caption": caption }).to_string()
        } else if args.pictures.len() == 1 {
            caption
        } else {
            format!("{}: {caption}", path.display())
        };
        super::print(&format!("{line}\n"))?;
    }
    if wrong.is_empty() { Ok(()) } else { Err(BadInput(wrong.join("; ")).into()) }
}
