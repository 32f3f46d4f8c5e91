//! A trained model, loaded whole from a run's checkpoint.

use anyhow::Context as _;
use bigmac::data::Tokenizer;
use bigmac::model::{ModelShape, Placement, RankModules};
use bigmac::train::{Checkpoint, Session, tokenizer};
use bigmac_runtime::Context;
use clap::Args;
use std::path::PathBuf;

/// Which model to load.
#[derive(Args, Debug)]
pub struct RunArg {
    /// A run's directory (its newest checkpoint is taken), or one of its checkpoints.
    run: PathBuf,
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
    /// A context on this machine's processor.
    pub ctx: Context,
}

impl Loaded {
    /// Loads the model.
    pub fn open(arg: &RunArg) -> anyhow::Result<Loaded> {
        let checkpoint = Checkpoint::open(&arg.run)?;
        let config = &checkpoint.state().config;
        let tokenizer = tokenizer(config)?;
        let shape = ModelShape::new(&config.model, &tokenizer)?;
        checkpoint.check_vocabulary(&shape)?;
        let ctx = Context::cpu(0, threads())?;
        let modules = RankModules::new(&ctx, &shape, &Placement::whole(&shape)?, 0, &|ctx, kind, specs| {
            checkpoint.parameters(ctx, kind, specs, shape.dtype)
        })?;
        Ok(Loaded { checkpoint, modules, shape, tokenizer, ctx })
    }

    /// The session that the model was trained in, with its data.
    pub fn session(&self) -> anyhow::Result<Session> {
        Session::open(&self.checkpoint.state().config, &|_| {})
            .context("the run's data set, whose path is taken from the current folder")
    }
}

/// Threads of this machine.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
