//! Which programs a call gets. Launches and the list of all programs ask the same functions, so that what is launched
//! is what is compiled without a GPU.

use super::Attention;
use super::variants::{Form, Tiling, Variant, variants};
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::{DType, Error, Result, Tensor};

const TILE: (&str, &str) = ("attention/tile.cuh", include_str!("tile.cuh"));
const TILES: (&str, &str) = ("attention/tiles.cuh", include_str!("tiles.cuh"));
const BACKWARD: (&str, &str) = ("attention/backward.cuh", include_str!("backward.cuh"));
static FORWARD: Source =
    Source { file: "attention/forward.cu", text: include_str!("forward.cu"), includes: &[TILE, TILES] };
static BACKWARD_KEYS: Source = Source {
    file: "attention/backward_keys.cu",
    text: include_str!("backward_keys.cu"),
    includes: &[TILE, TILES, BACKWARD],
};
static BACKWARD_QUERIES: Source = Source {
    file: "attention/backward_queries.cu",
    text: include_str!("backward_queries.cu"),
    includes: &[TILE, TILES, BACKWARD],
};
static HOPPER: Source =
    Source { file: "attention/hopper.cu", text: include_str!("hopper.cu"), includes: &[TILE] };

/// Head sizes whose tiles need not compare columns with the head size: those that registers are counted for.
const EXACT: [usize; 3] = [64, 128, 256];

/// What a GPU can do that decides which variant a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Variants by warps alone.
    Warps,
    /// Variants by warpgroups when they are asked for: a replay, which is tested with both.
    Both,
    /// Variants by warpgroups wherever inputs are such that they can be used: sm_90a.
    Warpgroups,
}

impl Target {
    /// Of a driver's target such as `sm_90a`.
    pub(super) fn of(target: &str) -> Target {
        match target {
            "sm_90a" => Target::Warpgroups,
            "replay" => Target::Both,
            _ => Target::Warps,
        }
    }
}

/// What is asked of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// That variant.
    Number(usize),
    /// What suits many long sequences, or (`small`) few or short ones.
    Suitable { small: bool },
}

/// What of a call's inputs its programs follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inputs {
    dtype: DType,
    dim: usize,
    /// Whether rows of all heads can be read 16 bytes at a time.
    aligned: bool,
    /// Whether there are no queries, or no keys.
    empty: bool,
}

impl Inputs {
    /// Of q, k, v, and of the output's gradient in a backward.
    ///
    /// # Errors
    /// [`Error::DType`] unless they are f32 or bf16, [`Error::Argument`] when heads are too large, and those of
    /// [`Tensor::arg`].
    pub(super) fn new(tensors: &[&Tensor]) -> Result<Inputs> {
        let (dtype, dim) = (tensors[0].dtype(), tensors[0].shape()[2]);
        if !matches!(dtype, DType::F32 | DType::BF16) {
            let wanted = "f32 or bf16 on a GPU".into();
            return Err(Error::DType { op: Attention::NAME, given: dtype, wanted });
        }
        if dim > Tiling::MOST_COLUMNS {
            let most = Tiling::MOST_COLUMNS;
            let message = format!(
                "expected heads of up to {most} columns on a GPU, got {dim}; use more heads of fewer columns"
            );
            return Err(Error::argument(Attention::NAME, message));
        }
        let aligned = tensors.iter().try_fold(true, |all, tensor| Ok::<_, Error>(all && aligned(tensor)?))?;
        let empty = tensors.iter().any(|tensor| tensor.is_empty());
        Ok(Inputs { dtype, dim, aligned, empty })
    }

    /// Columns of a tile: HEAD of `tiles.cuh`. Whole fragments, in two parts where one block cannot hold all columns;
    /// what cannot be read 16 bytes at a time is slow anyway, and has few sizes, so that few programs are compiled.
    pub(super) fn columns(&self) -> usize {
        let columns = match (self.aligned, self.dim) {
            (true, 0..=128) => self.dim.next_multiple_of(16),
            (true, _) => self.dim.next_multiple_of(32),
            (false, _) => self.dim.next_power_of_two(),
        };
        columns.max(16)
    }

    /// Bytes of a tile's row in shared memory: `ROW` of `tiles.cuh`.
    pub(super) fn row_bytes(&self) -> usize {
        let chunks = self.columns() * self.dtype.size() / 16;
        16 * if chunks.is_multiple_of(8) { chunks } else { chunks | 1 }
    }

    /// Lanes that `attention_rows` gives to a row: `LANES` of `backward_queries.cu`.
    pub(super) fn lanes(&self) -> usize {
        (self.columns() * self.dtype.size() / 16).next_power_of_two().min(32)
    }

    /// Whether the forward of that form can take these.
    pub(super) fn suit(&self, form: &Form, target: Target) -> bool {
        match form {
            Form::Warps(_) => true,
            // The tensor memory accelerator knows no tensors without elements.
            Form::Warpgroups(_) => target != Target::Warps && self.aligned && !self.empty,
        }
    }

    /// The forward's form.
    ///
    /// # Errors
    /// [`Error::Argument`] when the variant that is asked for is not there, or cannot take these inputs on such a
    /// device.
    pub(super) fn forward(&self, wanted: Wanted, target: Target) -> Result<&'static Form> {
        let by_warpgroups = || {
            let mut forms = variants(self.dtype, self.dim).iter().map(|variant| &variant.forward);
            forms.find(|form| matches!(form, Form::Warpgroups(_)) && self.suit(form, target))
        };
        if target == Target::Warpgroups
            && matches!(wanted, Wanted::Suitable { .. })
            && let Some(form) = by_warpgroups()
        {
            return Ok(form);
        }
        let form = &self.variant(wanted)?.forward;
        if self.suit(form, target) {
            return Ok(form);
        }
        let message = "a variant by warpgroups needs a GPU of sm_90a, some queries and keys, and rows that start at multiples of \
                       16 bytes; use another variant";
        Err(Error::argument(Attention::NAME, message))
    }

    /// The variant whose tilings a backward takes; any inputs suit those.
    ///
    /// # Errors
    /// [`Error::Argument`] when the variant that is asked for is not there.
    pub(super) fn variant(&self, wanted: Wanted) -> Result<&'static Variant> {
        let all = variants(self.dtype, self.dim);
        let number = match wanted {
            Wanted::Number(number) => number,
            Wanted::Suitable { small } => usize::from(all.len() > 1 && small),
        };
        all.get(number).ok_or_else(|| {
            let (Inputs { dtype, dim, .. }, count) = (self, all.len());
            let message = format!(
                "expected one of the {count} variants for heads of {dim} columns in {dtype}, got variant {number}"
            );
            Error::argument(Attention::NAME, message)
        })
    }

    /// The forward's kernel, `ELEMENT` left open where it has one.
    pub(super) fn forward_launch(&self, form: &Form) -> Launch {
        match form {
            Form::Warps(tiling) => self.tiled(&FORWARD, "attention_forward", tiling),
            Form::Warpgroups(shape) => {
                shape.set(Launch::new(&HOPPER, "attention_forward_hopper").knob("HEAD", self.dim as i64))
            }
        }
    }

    /// The kernel of the gradients of keys and values, `ELEMENT` left open.
    pub(super) fn keys_launch(&self, tiling: &Tiling) -> Launch {
        self.tiled(&BACKWARD_KEYS, "attention_backward_keys", tiling)
    }

    /// The kernel of the gradient of queries, `ELEMENT` left open.
    pub(super) fn queries_launch(&self, tiling: &Tiling) -> Launch {
        self.tiled(&BACKWARD_QUERIES, "attention_backward_queries", tiling)
    }

    /// The kernel that goes before both, of the same program as the one of queries; `ELEMENT` left open.
    pub(super) fn rows_launch(&self, tiling: &Tiling) -> Launch {
        self.tiled(&BACKWARD_QUERIES, "attention_rows", tiling)
    }

    fn tiled(&self, source: &'static Source, kernel: &'static str, tiling: &Tiling) -> Launch {
        let exact = self.aligned && EXACT.contains(&self.dim);
        let launch = Launch::new(source, kernel).knob("HEAD", self.columns() as i64).knob("EXACT", exact);
        tiling.set(launch.knob("ALIGNED", self.aligned))
    }
}

/// True when rows of the tensor's heads can be read 16 bytes at a time, or those of its copy when it is one that is
/// copied first: see `operand`.
fn aligned(tensor: &Tensor) -> Result<bool> {
    let (strides, size) = (tensor.strides(), tensor.dtype().size());
    if strides[2] != 1 {
        return Ok((tensor.shape()[2] * size).is_multiple_of(16));
    }
    let whole = strides[..2].iter().all(|stride| (stride * size).is_multiple_of(16));
    Ok(whole && matches!(tensor.arg()?, Arg::Pointer(address) if address.is_multiple_of(16)))
}

/// Every program that a call can get, whatever its head size and alignment.
pub(crate) fn programs() -> Vec<Variants> {
    let list = |source, launches: &[Launch]| launches.iter().fold(Variants::new(source), Variants::launched);
    let mut programs = Vec::new();
    let mut hopper = Vec::new();
    for (dtype, element) in [(DType::BF16, &["bf16"]), (DType::F32, &["float"])] {
        let (mut forward, mut keys, mut queries) = (Vec::new(), Vec::new(), Vec::new());
        for (dim, aligned) in (1..=Tiling::MOST_COLUMNS).flat_map(|dim| [(dim, true), (dim, false)]) {
            let inputs = Inputs { dtype, dim, aligned, empty: false };
            for variant in variants(dtype, dim) {
                let form = &variant.forward;
                if inputs.suit(form, Target::Warpgroups) {
                    let launches = if matches!(form, Form::Warps(_)) { &mut forward } else { &mut hopper };
                    launches.push(inputs.forward_launch(form));
                }
                keys.push(inputs.keys_launch(&variant.keys));
                queries.push(inputs.queries_launch(&variant.queries));
            }
        }
        let tiled = [(&FORWARD, &forward), (&BACKWARD_KEYS, &keys), (&BACKWARD_QUERIES, &queries)];
        programs.extend(tiled.map(|(source, launches)| list(source, launches).elements(element)));
    }
    programs.push(list(&HOPPER, &hopper).elements(&[]).targets(&["sm_90a"]));
    programs
}
