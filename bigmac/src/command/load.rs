//! A trained model, loaded whole from a run's checkpoint.

use super::exit::BadInput;
use anyhow::Context as _;
use bigmac::config::{Config, Purpose, check_memory};
use bigmac::data::Tokenizer;
use bigmac::model::{ModelShape, Placement, RankModules};
use bigmac::train::{Checkpoint, Session, Verify, open_gpu, tokenizer};
use bigmac_gpu::Gpu;
use bigmac_runtime::Context;
use clap::Args;
use std::path::PathBuf;

/// Which model to load.
#[derive(Args, Debug)]
pub struct RunArg {
    /// A run's directory (its newest checkpoint is taken), or one of its checkpoints
    run: PathBuf,
    /// What to compute on: cpu, cuda, cuda:N or replay [default: what the run was trained on]
    #[arg(long)]
    device: Option<String>,
    /// Read weights as they are, even where they are not what the checkpoint wrote
    #[arg(long)]
    no_verify: bool,
}

/// A model with what belongs to it.
pub struct Loaded {
    /// Its checkpoint.
    pub checkpoint: Checkpoint,
    /// The whole model.
    pub modules: RankModules,
    /// Its shape.
    pub shape: ModelShape,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The run's configuration, with the device that was asked for.
    pub config: Config,
    /// The GPU of that device; none for the CPU.
    gpu: Option<Gpu>,
    /// A context on that device.
    pub ctx: Context,
}

impl Loaded {
    /// Loads the model.
    pub fn open(arg: &RunArg) -> anyhow::Result<Loaded> {
        let verify = if arg.no_verify { Verify::Nothing } else { Verify::Weights };
        let checkpoint = Checkpoint::open(&arg.run, verify)?;
        let mut config = checkpoint.state().config.clone();
        if let Some(device) = &arg.device {
            config.pipeline.device.clone_from(device);
        }
        let tokenizer = tokenizer(&config)?;
        tokenizer.notes().iter().for_each(|line| super::note(&format!("note: {line}")));
        check_memory(&config, Some(tokenizer.vocab_size()), Purpose::Use)?;
        let shape = ModelShape::new(&config.model, &tokenizer)?;
        checkpoint.check_shape(&shape)?;
        let gpu = open_gpu(&config.pipeline.device)?;
        let ctx = Context::on(0, threads(), gpu.as_ref())?;
        let modules = RankModules::new(&ctx, &shape, &Placement::whole(&shape)?, 0, &|ctx, kind, specs| {
            checkpoint.parameters(ctx, kind, specs, shape.dtype)
        })?;
        Ok(Loaded { checkpoint, modules, shape, tokenizer, config, gpu, ctx })
    }

    /// The most tokens that a sample could have which the model was trained on.
    pub fn most_tokens(&self) -> usize {
        self.checkpoint.state().config.train.tokens_per_microbatch
    }

    /// Checks that a prompt, with the tokens of its pictures, is no longer than a training sample could be.
    pub fn check_prompt(&self, tokens: usize) -> anyhow::Result<()> {
        let most = self.most_tokens();
        if tokens <= most {
            return Ok(());
        }
        let text = format!(
            "the prompt has {tokens} tokens with its pictures, but the model was trained on at most {most} \
             (train.tokens_per_microbatch): shorten the text"
        );
        Err(BadInput(text).into())
    }

    /// The session that the model was trained in, with its data.
    pub fn session(&self) -> anyhow::Result<Session> {
        Session::open_on(self.gpu.clone(), &self.config, &|_| {})
            .context("the run's data set, whose path is taken from the current folder")
    }
}

/// Threads of this machine.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
