//! The commands that are tried, with the files that each one reads.

/// A command that works on the prepared folder as it stands.
pub struct Base {
    /// Its words after `bigmac`.
    pub line: &'static str,
    /// Files without which it must fail.
    pub reads: &'static [&'static [&'static str]],
    /// Files that it may read, and may do without.
    pub looks: &'static [&'static str],
}

impl Base {
    /// The words of the command.
    pub fn words(&self) -> Vec<&'static str> {
        self.line
            .split(' ')
            .map(|word| if word == "TEXT" { "small red circle top left" } else { word })
            .collect()
    }

    /// Every file that it may read; those without which it must fail come first.
    pub fn files(&self) -> Vec<&'static str> {
        self.reads.iter().flat_map(|group| group.iter()).chain(self.looks).copied().collect()
    }

    /// Whether it must fail without a file.
    pub fn needs(&self, file: &str) -> bool {
        self.reads.iter().any(|group| group.contains(&file))
    }

    /// Whether it reads the weights of a checkpoint.
    pub fn loads(&self) -> bool {
        self.needs(WEIGHTS[1])
    }
}

/// The pictures of all data sets that keep them as files.
pub const PICTURES: &[&str] = &["pictures/a.png", "pictures/b.jpg", "pictures/c.webp", "pictures/d.gif"];
const CONFIG: &[&str] = &["tiny.toml"];
const SET: &[&str] = &["set/train.jsonl"];
const LLAVA: &[&str] = &["llava/train.json"];
const CHAT: &[&str] = &["chat/train.jsonl"];
const IMAGEFOLDER: &[&str] = &["imagefolder/train/metadata.jsonl", "imagefolder/train/e.png"];
const SHARD: &[&str] = &["shards/train-00000.tar"];
const TABLE: &[&str] = &["table/train-00000-of-00001.parquet"];
const TOKENIZER: &[&str] = &["tokenizer.json"];
const MERGING: &[&str] = &["bpe.json"];
const PROFILE: &[&str] = &["profile.toml"];
const WORKLOAD: &[&str] = &["workload.toml"];
const STEP: &str = "run/checkpoints/step-00000002";
/// The files of the newest checkpoint of the prepared run: state, LLM and encoder, generator.
pub const WEIGHTS: &[&str] = &[
    "run/checkpoints/step-00000002/state.json",
    "run/checkpoints/step-00000002/model.safetensors",
    "run/checkpoints/step-00000002/generator/diffusion_pytorch_model.safetensors",
    "run/checkpoints/step-00000002/config.json",
    "run/checkpoints/step-00000002/generator/config.json",
];
const OPTIMIZER: &[&str] = &["run/checkpoints/step-00000002/optimizer.safetensors"];
const RUN: &[&str] = &["run/config.toml", "run/metrics.jsonl", "run/eval.json"];
const OLDER: &[&str] =
    &["run/checkpoints/step-00000001/state.json", "run/checkpoints/step-00000001/model.safetensors"];
const HELDOUT: &[&str] = &["set/heldout.jsonl"];
const NOTHING: &[&str] = &[];

const fn base(
    line: &'static str,
    reads: &'static [&'static [&'static str]],
    looks: &'static [&'static str],
) -> Base {
    Base { line, reads, looks }
}

/// All commands but `doctor`, which reads nothing.
pub const BASES: &[Base] = &[
    base("train tiny.toml --steps 1 --out out --json", &[CONFIG, SET, PICTURES], HELDOUT),
    base("train tiny.toml --steps 1 --set data.path=llava --out out", &[CONFIG, LLAVA, PICTURES], NOTHING),
    base("train tiny.toml --steps 1 --set data.path=chat --out out", &[CONFIG, CHAT, PICTURES], NOTHING),
    base("train tiny.toml --steps 1 --set data.path=shards --out out", &[CONFIG, SHARD], NOTHING),
    base("train tiny.toml --steps 1 --set data.path=table --out out --json", &[CONFIG, TABLE], NOTHING),
    base(
        "train tiny.toml --steps 1 --set data.tokenizer=tokenizer.json --out out",
        &[CONFIG, TOKENIZER, SET],
        HELDOUT,
    ),
    base(
        "train tiny.toml --steps 1 --set data.tokenizer=bpe.json --out out",
        &[CONFIG, MERGING, SET],
        HELDOUT,
    ),
    base("data inspect set --tokenizer bpe.json --json", &[MERGING, SET, PICTURES], HELDOUT),
    base(
        "train tiny.toml --steps 1 --set pipeline.profile=profile.toml --out out",
        &[CONFIG, PROFILE, SET],
        HELDOUT,
    ),
    base("train tiny.toml --steps 1 --set model.from=run --out out", &[CONFIG, SET, WEIGHTS], NOTHING),
    base("train --resume run --steps 3 --json", &[SET], RUN),
    base("train --resume run/checkpoints/step-00000002 --steps 3", &[WEIGHTS, OPTIMIZER, SET], RUN),
    base("train --resume run/checkpoints/step-00000001 --steps 2", &[OLDER, SET], RUN),
    base("eval run --samples 2 --threads 1 --out evaluated --json", &[WEIGHTS, HELDOUT], RUN),
    base("caption run pictures/a.png pictures/b.jpg --max-tokens 4 --json", &[WEIGHTS], PICTURES),
    base("imagine run TEXT --steps 1 --out drawn.png --json", &[WEIGHTS], RUN),
    base("data shapes --samples 4 --heldout 2 --out shapes --json", &[], NOTHING),
    base("data inspect set --grid grid.png --json", &[SET, PICTURES], HELDOUT),
    base("data inspect llava --json", &[LLAVA, PICTURES], NOTHING),
    base("data inspect chat", &[CHAT, PICTURES], NOTHING),
    base("data inspect imagefolder --grid grid.png", &[IMAGEFOLDER], NOTHING),
    base("data inspect shards --grid grid.png --json", &[SHARD], NOTHING),
    base("data inspect table --grid grid.png --json", &[TABLE], NOTHING),
    base(
        "data inspect tiny.toml --max-tiles 4 --tokenizer tokenizer.json",
        &[CONFIG, SET, TOKENIZER, PICTURES],
        HELDOUT,
    ),
    base(
        "simulate --schedule nested,phased --ranks 2 --microbatches 4 --cost F=1,B=1,W=1,Ef=2,Eb=4 --timeline t.html --json",
        &[],
        NOTHING,
    ),
    base(
        "simulate --schedule nested-fill --ranks 2 --microbatches 4 --items 3 --uneven 1 --timeline t.svg --table ops.txt --lowered",
        &[],
        NOTHING,
    ),
    base("simulate --llm zb-h1 --ranks 2 --microbatches 4 --table ops.csv --timeline t.json", &[], NOTHING),
    base("simulate --schedule nested --workload workload.toml --json", &[WORKLOAD], NOTHING),
    base(
        "simulate --from step.txt --ranks 2 --microbatches 2 --cost F=1,B=1,W=1,Ef=1,Eb=1,Gf=1,Gb=1 --items 2 --json",
        &[&["step.txt"]],
        NOTHING,
    ),
    base(
        "simulate --from llm.csv --ranks 2 --microbatches 2 --table again.csv --json",
        &[&["llm.csv"]],
        NOTHING,
    ),
    base(
        "compare --ranks 2 --microbatches 4 --cost F=1,B=1,W=1,Ef=2,Eb=4 --timeline t.html --json",
        &[],
        NOTHING,
    ),
    base("compare --workload workload.toml --schedule nested,phased --json", &[WORKLOAD], NOTHING),
    base(
        "compare tiny.toml --profile profile.toml --schedule nested,phased --json",
        &[CONFIG, PROFILE, SET],
        NOTHING,
    ),
    base(
        "compare tiny.toml --profile profile.toml --schedule nested --measure --rounds 1 --json",
        &[CONFIG, PROFILE, SET],
        NOTHING,
    ),
    base("profile tiny.toml --steps 1 --rounds 1 --out measured.toml --json", &[CONFIG, SET], NOTHING),
    base(
        "plan --model model.toml --device device.toml --devices 2 --batch 8 --ranks 1,2 --schedule nested --llm 1f1b --json",
        &[&["model.toml", "device.toml"]],
        NOTHING,
    ),
    base(
        "plan --model model.toml --device device.toml --devices 2 --batch 8 --ranks 2 --chunks 1 --schedule phased --llm 1f1b",
        &[&["model.toml", "device.toml"]],
        NOTHING,
    ),
];

/// The commands whose help and flags are tried.
pub const COMMANDS: &[&str] = &[
    "train",
    "eval",
    "caption",
    "imagine",
    "data",
    "data shapes",
    "data inspect",
    "simulate",
    "compare",
    "plan",
    "profile",
    "doctor",
];

/// Flags whose value is a file or folder that the command writes.
pub const OUTPUT_FLAGS: &[&str] = &["--out", "--grid", "--timeline", "--table"];

/// The folder of the newest checkpoint.
pub const NEWEST: &str = STEP;
