//! What kernels are compiled for beside their own knobs.

use super::finish::INCLUDES;
use super::variant::{Family, Variant};
use super::{Activation, Problem};
use bigmac_gpu::{Launch, Source};
use bigmac_runtime::{DType, Result};

static MMA: Source =
    Source { file: "product/kernel.cu", text: include_str!("../kernel.cu"), includes: INCLUDES };
static FFMA: Source =
    Source { file: "product/ffma.cu", text: include_str!("../ffma.cu"), includes: INCLUDES };
static HOPPER: Source =
    Source { file: "product/hopper.cu", text: include_str!("../hopper.cu"), includes: INCLUDES };
static FEW_ROWS: Source =
    Source { file: "product/few_rows.cu", text: include_str!("../few_rows.cu"), includes: INCLUDES };
pub(super) static REDUCE: Source =
    Source { file: "product/reduce.cu", text: include_str!("../reduce.cu"), includes: INCLUDES };

/// What programs are compiled for, beside a variant's own knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Whether a and b are stored transposed.
    pub(super) transposed: [bool; 2],
    /// Lines of both factors start at multiples of 16 bytes.
    pub(super) aligned: bool,
    /// Of c.
    pub(super) out: DType,
    /// Of the epilogue.
    pub(super) activation: Activation,
}

impl Form {
    pub(super) fn of(problem: &Problem<'_>) -> Result<Form> {
        Ok(Form {
            transposed: [problem.a.transposed, problem.b.transposed],
            aligned: problem.is_aligned()?,
            out: problem.out.tensor.dtype(),
            activation: problem.epilogue.activation,
        })
    }

    /// That of the sums of parts of k, which [`Form::reduce`] turns into c.
    pub(super) fn partial(self) -> Form {
        Form { out: DType::F32, activation: Activation::None, ..self }
    }

    /// A launch of `variant` for a product of `rows` rows.
    pub(super) fn launch(&self, variant: &Variant, rows: usize) -> Launch {
        let (source, name) = match variant.family {
            Family::Mma => (&MMA, "product_mma"),
            Family::Ffma => (&FFMA, "product_ffma"),
            Family::Hopper => (&HOPPER, "product_hopper"),
            Family::FewRows => (&FEW_ROWS, "product_few_rows"),
        };
        let launch = self.kernel(source, name);
        let launch = variant.knobs.iter().fold(launch, |launch, &(name, value)| launch.knob(name, value));
        let stored = |launch: Launch| {
            launch.knob("A_TRANSPOSED", self.transposed[0]).knob("B_TRANSPOSED", self.transposed[1])
        };
        match variant.family {
            Family::Mma | Family::Ffma => stored(launch).knob("ALIGNED", self.aligned),
            // The tensor memory accelerator takes no others than aligned ones.
            Family::Hopper => stored(launch),
            Family::FewRows => {
                launch.knob("ROWS", rows.next_power_of_two() as i64).knob("ALIGNED", self.aligned)
            }
        }
    }

    /// A launch of the kernel that adds up partial sums.
    pub(super) fn reduce(&self) -> Launch {
        self.kernel(&REDUCE, "product_reduce")
    }

    /// A launch with the knobs of the epilogue.
    fn kernel(&self, source: &'static Source, name: &'static str) -> Launch {
        let out = if self.out == DType::BF16 { "bf16" } else { "float" };
        Launch::new(source, name).word("OUT", out).knob("ACTIVATION", self.activation.number())
    }

    /// Every form without an activation in which factors of `dtype` can be multiplied.
    pub(super) fn plain(dtype: DType) -> impl Iterator<Item = Form> {
        const EITHER: [bool; 2] = [false, true];
        let outs: &[DType] = if dtype == DType::BF16 { &[DType::BF16, DType::F32] } else { &[DType::F32] };
        let stored = EITHER.into_iter().flat_map(|a| EITHER.map(|b| [a, b]));
        stored.flat_map(move |transposed| {
            let form = move |out, aligned| Form { transposed, aligned, out, activation: Activation::None };
            outs.iter().flat_map(move |&out| EITHER.map(|aligned| form(out, aligned)))
        })
    }

    /// The forms with an activation that stand for the others: no operator asks for any, and what they add to a kernel
    /// is the same however its factors are stored.
    pub(super) fn activated(dtype: DType) -> impl Iterator<Item = Form> {
        let plain =
            Form { transposed: [false, true], aligned: true, out: dtype, activation: Activation::None };
        [Activation::GeluTanh, Activation::GeluExact, Activation::SiluGate]
            .map(|activation| Form { activation, ..plain })
            .into_iter()
    }
}
