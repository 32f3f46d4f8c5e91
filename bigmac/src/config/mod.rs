//! The configuration of a run: a TOML file over defaults, then `--set` and the command's own flags.

mod bytes;
mod check;
mod difference;
mod groups;
mod memory;
mod read;

pub use bytes::Bytes;
pub use difference::{all_differences, entries, first_difference};
pub use groups::{ParameterGroup, PerGroup};
pub use memory::{Purpose, check as check_memory, check_device as check_device_memory};
pub use read::{ConfigError, change, read, restore, write};

use crate::sizes::{Encoder, Llm};
use serde::{Deserialize, Serialize};

/// Everything that defines a run. Every key has a default, so a file holds only what differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// What the run is: its name and its seed.
    pub run: Run,
    /// What it learns from.
    pub data: Data,
    /// What learns.
    pub model: Model,
    /// How it learns.
    pub train: Train,
    /// How a step is laid out over ranks.
    pub pipeline: Pipeline,
    /// What is written on the way.
    pub output: Output,
}

/// Name and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// The run's directory under `runs/`, where `--out` gives no other.
    pub name: String,
    /// Seed of weights, order of samples and noise.
    pub seed: u64,
}

impl Default for Run {
    fn default() -> Self {
        Run { name: "shapes".into(), seed: 1 }
    }
}

/// The data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Data {
    /// A JSONL file, or a folder with `train.jsonl` and `heldout.jsonl`; empty: the shapes set, written on first use.
    pub path: String,
    /// The file of samples to be evaluated on; empty: `heldout.jsonl` beside the training file.
    pub heldout: String,
    /// Pictures of the shapes set (where `path` is empty).
    pub shapes: usize,
    /// A `tokenizer.json`; empty: bytes.
    pub tokenizer: String,
    /// Most tiles that a large image is cut into; 1: images are resized.
    pub max_tiles: usize,
    /// The folder that pictures are named from; empty: that of the file that names them.
    pub images: String,
    /// Most pixels of a picture; a larger one is refused before it is decoded.
    pub max_pixels: u64,
    /// Memory for pictures that are decoded ahead of their step, as in `512MiB`; no picture may need more.
    pub prefetch: Bytes,
    /// What a sample that cannot be used does: it stops the run, or it is left out, named and counted.
    pub on_error: OnError,
    /// Names of the special tokens in `tokenizer`.
    pub tokens: Tokens,
}

/// What a sample that cannot be used does to a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It ends the run.
    #[default]
    Stop,
    /// It is left out, named and counted.
    Skip,
}

/// Names of a tokenizer's special tokens; an empty one is looked for under the names that are common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// Fills unused places.
    pub pad: String,
    /// Begins every sample.
    pub bos: String,
    /// Ends a text.
    pub eos: String,
    /// Stands where an image is read.
    pub image: String,
    /// Ends a text from which a picture is to be drawn.
    pub draw: String,
}

impl Default for Data {
    fn default() -> Self {
        Data {
            path: String::new(),
            heldout: String::new(),
            shapes: 24_000,
            tokenizer: String::new(),
            max_tiles: 1,
            images: String::new(),
            max_pixels: 178_956_970,
            prefetch: Bytes(512 << 20),
            on_error: OnError::Stop,
            tokens: Tokens::default(),
        }
    }
}

/// The three modules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "GivenModel")]
pub struct Model {
    /// Type that is computed with: `f32`, or `bf16` with weights of fp32 beside it.
    pub dtype: Dtype,
    /// A run, or one of its checkpoints, whose weights to start from; empty: random weights.
    pub from: String,
    /// The ViT encoder.
    pub encoder: Encoder,
    /// The projector from the encoder's width to the LLM's.
    pub projector: Projector,
    /// The LLM.
    pub llm: Llm,
    /// The MMDiT generator.
    pub generator: Generator,
}

impl Model {
    /// Which groups of parameters keep their weights.
    pub fn frozen(&self) -> PerGroup<bool> {
        PerGroup {
            encoder: self.encoder.frozen,
            projector: self.projector.frozen,
            llm: self.llm.frozen,
            generator: self.generator.frozen,
        }
    }
}

/// A model as it is written down: one from before the projector was a group of its own does not say whether it learns.
#[derive(Default, Deserialize)]
#[serde(default)]
struct GivenModel {
    dtype: Dtype,
    from: String,
    encoder: Encoder,
    projector: Option<Projector>,
    llm: Llm,
    generator: Generator,
}

impl From<GivenModel> for Model {
    fn from(given: GivenModel) -> Model {
        let GivenModel { dtype, from, encoder, projector, llm, generator } = given;
        let projector = projector.unwrap_or(Projector { frozen: encoder.frozen });
        Model { dtype, from, encoder, projector, llm, generator }
    }
}

/// The projector: LLaVA's two layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Projector {
    /// True: its weights stay.
    pub frozen: bool,
}

/// A type that is computed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats throughout.
    #[default]
    F32,
    /// bfloat16 activations and weights, with fp32 gradients, moments and master weights.
    Bf16,
}

/// MMDiT generator (`QwenImageTransformer2DModel`) over patches of pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generator {
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of a head; heads x head_dim is the width.
    pub head_dim: usize,
    /// Side of a drawn picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels; a patch is a latent of 3 patch^2 channels.
    pub patch: usize,
    /// Parts of a head that rotate with frame, row and column; they add up to head_dim.
    pub rope_axes: [usize; 3],
    /// Euler steps of a drawing.
    pub sample_steps: usize,
    /// True: its weights stay.
    pub frozen: bool,
    /// True: its layers save their inputs alone, and are computed again in the backward.
    pub recompute: bool,
}

impl Default for Generator {
    fn default() -> Self {
        Generator {
            layers: 3,
            heads: 4,
            head_dim: 24,
            image_size: 32,
            patch: 4,
            rope_axes: [4, 10, 10],
            sample_steps: 20,
            frozen: false,
            recompute: false,
        }
    }
}

/// Optimization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Train {
    /// Steps of the whole run.
    pub steps: u64,
    /// Samples per step, over all replicas.
    pub batch: usize,
    /// Fewest microbatches that each replica of the pipeline cuts its share of a step into.
    pub microbatches: usize,
    /// Tokens that a microbatch may hold; a longer sample is an error.
    pub tokens_per_microbatch: usize,
    /// Largest learning rate.
    pub lr: f64,
    /// What the learning rate of each group of parameters is multiplied with.
    pub lr_scale: PerGroup<f64>,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Last learning rate as a share of the largest; cosine in between.
    pub final_lr: f64,
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
    /// Adam's epsilon.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices; vectors and embeddings have none.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; 0: no clipping.
    pub clip: f64,
    /// Weight of the drawing loss beside the token loss (lambda).
    pub drawing_weight: f64,
    /// Mean of the logit of the noise level t = sigmoid(normal + mean); t = 1 is noise.
    pub noise_mean: f64,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            steps: 2000,
            batch: 32,
            microbatches: 4,
            tokens_per_microbatch: 1024,
            lr: 2e-3,
            lr_scale: PerGroup::all(1.0),
            warmup: 200,
            final_lr: 0.02,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.05,
            clip: 1.0,
            drawing_weight: 3.0,
            noise_mean: 0.8,
        }
    }
}

/// `pipeline.schedule` that leaves the schedule to be chosen when a run begins.
pub const AUTO: &str = "auto";
/// What it is chosen from; the first is the usual one.
pub const AUTO_CHOICES: [&str; 2] = ["nested", "nested-fill"];

/// How the ranks of replicas and stages are numbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankOrder {
    /// `dp-first` on several hosts, `pp-first` on one.
    #[default]
    Auto,
    /// The stages of a pipeline have consecutive ranks.
    PpFirst,
    /// The replicas of a stage have consecutive ranks, so that they share hosts: gradients are many more bytes than
    /// hidden states.
    DpFirst,
}

/// What carries messages between ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// `mpi` where an MPI launcher started the ranks, `tcp` between other processes, `local` in one process.
    #[default]
    Auto,
    /// Threads of one process.
    Local,
    /// Sockets: nothing has to be installed.
    Tcp,
    /// An MPI library.
    Mpi,
}

/// How a step is laid out over ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pipeline {
    /// Schedule of a step: `bigmac simulate --help` lists them; `auto`: `nested`, or `nested-fill` where that is faster
    /// by more than 2 % in simulation of the first steps.
    pub schedule: String,
    /// Order of the LLM's chunks under it.
    pub llm: String,
    /// Ranks of a pipeline, each of which holds one stage of the LLM: threads of one process, or processes.
    pub ranks: usize,
    /// Replicas of the pipeline, which share the samples of a step: data parallelism. There are dp times ranks in all.
    pub dp: usize,
    /// How ranks are numbered.
    pub order: RankOrder,
    /// What carries messages between ranks.
    pub engine: Engine,
    /// LLM chunks on each rank; more than 1 where the order of chunks interleaves them, 2 for `zb-v` and `dualpipe-v`.
    pub chunks: usize,
    /// What ranks compute on: `cpu`, `cuda` or `cuda:N` (all ranks share that GPU), or `replay`, which runs the GPU's
    /// kernels on the CPU for testing.
    pub device: String,
    /// Threads of each rank.
    pub threads: usize,
    /// Microbatches that share a slot; 0: the schedule chooses.
    pub group: usize,
    /// Microbatches that a rank runs through one chunk before its next; 0: as many as there are ranks.
    pub llm_group: usize,
    /// The most activations that a module may keep on a rank, as in `encoder=2mb,llm=512MiB`; empty: the schedule's
    /// own.
    pub budget: String,
    /// A file that `bigmac profile` wrote, whose times the schedule is built on; empty: operations are counted.
    pub profile: String,
    /// Seconds that a rank waits for another before it gives up.
    pub timeout: f64,
}

impl Pipeline {
    /// The schedule by name: where it is yet to be chosen, the usual one of the choices.
    pub fn likely_schedule(&self) -> &str {
        if self.schedule == AUTO { AUTO_CHOICES[0] } else { &self.schedule }
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Pipeline {
            schedule: AUTO.into(),
            llm: "1f1b".into(),
            ranks: 2,
            dp: 1,
            order: RankOrder::Auto,
            engine: Engine::Auto,
            chunks: 1,
            device: "cpu".into(),
            threads: 1,
            group: 0,
            llm_group: 0,
            budget: String::new(),
            profile: String::new(),
            timeout: 120.0,
        }
    }
}

/// What is written on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// Steps between checkpoints; 0: only at the end.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// Steps between samples; 0: only at the end.
    pub sample_every: u64,
    /// Held-out pictures captioned, and held-out descriptions drawn, each time.
    pub samples: usize,
    /// Held-out pictures captioned and descriptions drawn by the evaluation at the end.
    pub final_samples: usize,
}

impl Default for Output {
    fn default() -> Self {
        Output { checkpoint_every: 500, keep: 2, sample_every: 500, samples: 8, final_samples: 200 }
    }
}
