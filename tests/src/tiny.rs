//! A model of a few thousand parameters, and a data set that has one sample of each kind.

use bigmac::config::{Config, Data, Generator, Model, PerGroup, Pipeline, Run, Train};
use bigmac::sizes::{Encoder, Llm};
use bigmac_schedule::{ModuleKind, PerModule};

/// One sample of each kind; see the constants of this module for which is which.
pub const LINES: [&str; 8] = [
    r#"{"text": "<image> one red ball", "images": ["0.png"]}"#,
    r#"{"text": "a <image> beside a <image>, and <image>", "images": ["1.png", "2.png", "0.png"]}"#,
    r#"{"text": "a blue cube on a table", "draw": "1.png"}"#,
    r#"{"text": "<image> but green", "images": ["3.png"], "draw": "2.png"}"#,
    r#"{"text": "no picture here, only words"}"#,
    r#"{"prompt": "what is it? <image>", "text": "a cone", "images": ["2.png"]}"#,
    r#"{"text": "x", "draw": "3.png"}"#,
    r#"{"text": "more words"}"#,
];

/// Captions a picture.
pub const CAPTION: usize = 0;
/// Has three pictures, one of which becomes two tiles.
pub const SEVERAL: usize = 1;
/// Is drawn.
pub const DRAWING: usize = 2;
/// Has a picture of two tiles and is drawn.
pub const EDIT: usize = 3;
/// Has neither.
pub const TEXT: usize = 4;
/// Has a prompt without loss.
pub const ANSWER: usize = 5;
/// Is drawn from a single token.
pub const SHORT_DRAWING: usize = 6;
/// Has neither, and is short.
pub const SHORT_TEXT: usize = 7;

/// Two encoder layers, three LLM layers, two generator blocks, no two widths alike where they need not be.
pub fn config() -> Config {
    Config {
        run: Run { name: "tiny".into(), seed: 5 },
        data: Data { max_tiles: 2, ..Data::default() },
        model: Model {
            encoder: Encoder {
                width: 20,
                layers: 2,
                heads: 2,
                mlp: 28,
                image_size: 16,
                patch: 8,
                ..Encoder::default()
            },
            llm: Llm { width: 24, layers: 3, heads: 4, kv_heads: 2, head_dim: 6, mlp: 40, ..Llm::default() },
            generator: Generator {
                layers: 2,
                heads: 2,
                head_dim: 8,
                image_size: 12,
                patch: 4,
                rope_axes: [2, 4, 2],
                ..Generator::default()
            },
            ..Model::default()
        },
        train: Train { batch: 4, microbatches: 1, tokens_per_microbatch: 256, ..Train::default() },
        pipeline: Pipeline { timeout: 30.0, ..Pipeline::default() },
        ..Config::default()
    }
}

/// The same, with the layers of some modules computed again in the backward.
pub fn recomputing(mut config: Config, modules: PerModule<bool>) -> Config {
    config.model.encoder.recompute = modules.encoder;
    config.model.llm.recompute = modules.llm;
    config.model.generator.recompute = modules.generator;
    config
}

/// The same, with these groups of parameters frozen.
pub fn freezing(mut config: Config, frozen: PerGroup<bool>) -> Config {
    config.model.encoder.frozen = frozen.encoder;
    config.model.projector.frozen = frozen.projector;
    config.model.llm.frozen = frozen.llm;
    config.model.generator.frozen = frozen.generator;
    config
}

/// Every way to freeze some groups of parameters, all of them included.
pub fn combinations() -> impl Iterator<Item = PerGroup<bool>> {
    (1..16).map(|bits| PerGroup {
        encoder: bits & 1 > 0,
        projector: bits & 2 > 0,
        llm: bits & 4 > 0,
        generator: bits & 8 > 0,
    })
}

/// Each module alone, then all together.
pub fn one_or_all() -> impl Iterator<Item = PerModule<bool>> {
    let alone = |kind| PerModule::from_fn(|other| other == kind);
    ModuleKind::ALL.into_iter().map(alone).chain([PerModule::all(true)])
}

/// How a step is laid out: `schedule` on `ranks` ranks.
pub fn pipeline(schedule: &str, ranks: usize) -> Pipeline {
    Pipeline { schedule: schedule.into(), ranks, ..config().pipeline }
}
