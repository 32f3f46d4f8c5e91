//! Launches of the kernels.

use super::finish::{Finish, INCLUDES, Target};
use super::variant::{Family, Variant};
use super::{Activation, Problem, hopper};
use bigmac_runtime::gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Result, Tensor};

static MMA: Source =
    Source { file: "product/kernel.cu", text: include_str!("../kernel.cu"), includes: INCLUDES };
static FFMA: Source =
    Source { file: "product/ffma.cu", text: include_str!("../ffma.cu"), includes: INCLUDES };
static FEW_ROWS: Source =
    Source { file: "product/few_rows.cu", text: include_str!("../few_rows.cu"), includes: INCLUDES };
static REDUCE: Source =
    Source { file: "product/reduce.cu", text: include_str!("../reduce.cu"), includes: INCLUDES };

/// The parts of a split sum are multiples of this, which is one of every tile's: where they are cut doesn't depend on the tile.
const SPLIT_UNIT: usize = 64;

/// What programs are compiled for, beside a variant's own knobs.
#[derive(Clone, Copy)]
struct Form {
    /// Whether a and b are stored transposed.
    transposed: [bool; 2],
    aligned: bool,
    out: DType,
    activation: Activation,
}

impl Form {
    fn of(problem: &Problem<'_>) -> Result<Form> {
        Ok(Form {
            transposed: [problem.a.transposed, problem.b.transposed],
            aligned: problem.is_aligned()?,
            out: problem.out.tensor.dtype(),
            activation: problem.epilogue.activation,
        })
    }

    /// A launch with the knobs of the epilogue.
    fn kernel(&self, source: &'static Source, name: &'static str) -> Launch {
        let out = if self.out == DType::BF16 { "bf16" } else { "float" };
        Launch::new(source, name).word("OUT", out).knob("ACTIVATION", self.activation.number())
    }

    /// The kernel of a variant that goes by tiles.
    fn tiled(&self, variant: &Variant) -> Launch {
        let (source, name) = match variant.family {
            Family::Mma => (&MMA, "product_mma"),
            Family::Hopper => (&hopper::SOURCE, "product_hopper"),
            Family::Ffma | Family::FewRows => (&FFMA, "product_ffma"),
        };
        let knobs = variant.knobs.iter();
        let launch = knobs
            .fold(self.kernel(source, name), |launch, &(name, value)| launch.knob(name, value))
            .knob("A_TRANSPOSED", self.transposed[0])
            .knob("B_TRANSPOSED", self.transposed[1]);
        // The tensor memory accelerator takes no others.
        if variant.family == Family::Hopper { launch } else { launch.knob("ALIGNED", self.aligned) }
    }

    /// The kernel for up to eight rows.
    fn few_rows(&self, rows: usize) -> Launch {
        let rows = rows.next_power_of_two() as i64;
        self.kernel(&FEW_ROWS, "product_few_rows").knob("ROWS", rows).knob("ALIGNED", self.aligned)
    }

    /// The kernel that adds up partial sums.
    fn reduce(&self) -> Launch {
        self.kernel(&REDUCE, "product_reduce")
    }
}

/// Every kernel in the forms that training asks for; the others differ from one of these in a way that was found not to matter for
/// registers.
pub(crate) fn programs() -> Vec<Variants> {
    let plain =
        Form { transposed: [false, true], aligned: true, out: DType::BF16, activation: Activation::None };
    let tiled = |family: Family, out: DType, source: &'static Source, element: &'static [&'static str]| {
        let of_family = super::variants().iter().filter(|v| v.family == family);
        let forward = Form { out, ..plain };
        let input = Form { transposed: [false, false], ..forward };
        let weight = Form { transposed: [true, false], out: DType::F32, ..plain };
        let mut programs = Variants::new(source).elements(element);
        for (i, variant) in of_family.enumerate() {
            for form in [forward, input, weight] {
                programs = programs.launched(&form.tiled(variant));
            }
            // One variant stands for all in what is rare.
            if i == 2 {
                for activation in [Activation::GeluTanh, Activation::GeluExact, Activation::SiluGate] {
                    programs = programs.launched(&Form { activation, ..forward }.tiled(variant));
                }
                for form in [forward, input, weight, Form { transposed: [true, true], ..forward }] {
                    programs = programs.launched(&Form { aligned: false, ..form }.tiled(variant));
                }
            }
        }
        programs
    };
    let mut wide = Variants::new(&hopper::SOURCE).elements(&["bf16"]).targets(&["sm_90a"]);
    for variant in super::variants().iter().filter(|v| v.family == Family::Hopper) {
        let input = Form { transposed: [false, false], ..plain };
        let weight = Form { transposed: [true, false], out: DType::F32, ..plain };
        for form in [plain, input, weight] {
            wide = wide.launched(&form.tiled(variant));
        }
        // Those whose sums leave the fewest registers.
        if variant.tile[0] * variant.tile[1] >= 128 * 256 {
            for activation in [Activation::GeluTanh, Activation::SiluGate] {
                wide = wide.launched(&Form { activation, ..plain }.tiled(variant));
            }
        }
    }
    let mut few = Variants::new(&FEW_ROWS);
    let mut reduce = Variants::new(&REDUCE);
    for out in [DType::BF16, DType::F32] {
        let form = Form { out, ..plain };
        few = [1, 2, 4, 8].into_iter().fold(few, |few, rows| few.launched(&form.few_rows(rows)));
        few = few.launched(&Form { aligned: false, ..form }.few_rows(8));
        reduce = reduce.launched(&form.reduce());
    }
    vec![
        tiled(Family::Mma, DType::BF16, &MMA, &["bf16"]),
        tiled(Family::Ffma, DType::F32, &FFMA, &["float"]),
        wide,
        few,
        reduce,
    ]
}

/// Runs `variant` on the problem, with the sums over k cut in at most `splits` parts.
///
/// # Errors
/// Those of allocating workspace and of launching.
pub(super) fn launch(
    ctx: &Context,
    variant: &Variant,
    splits: usize,
    problem: &mut Problem<'_>,
) -> Result<()> {
    match variant.family {
        Family::FewRows => few_rows(ctx, variant, problem),
        Family::Mma | Family::Ffma | Family::Hopper => tiles(ctx, variant, splits, problem),
    }
}

/// The products by tiles: straight to their place, or as partial sums that a second kernel adds up.
fn tiles(ctx: &Context, variant: &Variant, splits: usize, problem: &mut Problem<'_>) -> Result<()> {
    let (m, n, k, count) = (problem.m, problem.n, problem.k, problem.batch.count);
    let per_split = k.div_ceil(splits.max(1)).next_multiple_of(SPLIT_UNIT).max(SPLIT_UNIT);
    let splits = k.div_ceil(per_split).max(1);
    let blocks = m.div_ceil(variant.tile[0]) * n.div_ceil(variant.tile[1]) * count;
    let finish = Finish::of(problem)?;
    let to = problem.out.tensor.arg_mut_at(problem.out.offset)?;
    let problem = &*problem;
    let form = Form::of(problem)?;
    let run = |form: &Form, finish: &Finish, c: Arg, leading: usize, stride: usize| {
        let launch = form.tiled(variant).element(problem.op, problem.dtype())?;
        if variant.family == Family::Hopper {
            let columns = form.activation.columns(n);
            let target = Target { c, dtype: form.out, columns, leading, stride, splits, per_split };
            return hopper::run(ctx, variant, launch, problem, finish, &target);
        }
        let launch = launch.grid([blocks, splits, 1]).block(variant.threads).shared(variant.shared);
        let mut args = factors(problem)?.to_vec();
        args.extend([c, finish.bias, finish.residual, Arg::i32(m)?, Arg::i32(n)?, Arg::i32(k)?]);
        args.extend([Arg::i64(problem.a.leading)?, Arg::i64(problem.b.leading)?, Arg::i64(leading)?]);
        args.extend([Arg::i64(problem.batch.a)?, Arg::i64(problem.batch.b)?, Arg::i64(stride)?]);
        args.extend([Arg::i32(per_split)?, Arg::i64(count * m * n)?, finish.alpha, finish.flags]);
        ctx.launch(&launch, &args)
    };
    if splits == 1 {
        return run(&form, &finish, to, problem.out.leading, problem.batch.c);
    }
    let workspace = ctx.in_scope(scopes::WORKSPACE);
    let mut partial = Tensor::empty(&workspace, &[splits, count, m, n], DType::F32)?;
    let sums = Form { out: DType::F32, activation: Activation::None, ..form };
    run(&sums, &Finish::partial(), partial.arg_mut()?, n, m * n)?;

    const THREADS: usize = 256;
    let launch = form
        .reduce()
        .element(problem.op, problem.dtype())?
        .grid([(count * m * n.div_ceil(4)).div_ceil(THREADS), 1, 1])
        .block(THREADS);
    let mut args =
        vec![partial.arg()?, to, finish.bias, finish.residual, Arg::i32(splits)?, Arg::i32(count)?];
    args.extend([Arg::i32(m)?, Arg::i32(n)?, Arg::i64(problem.out.leading)?, Arg::i64(problem.batch.c)?]);
    args.extend([finish.alpha, finish.flags]);
    ctx.launch(&launch, &args)
}

fn few_rows(ctx: &Context, variant: &Variant, problem: &mut Problem<'_>) -> Result<()> {
    let finish = Finish::of(problem)?;
    let launch = Form::of(problem)?
        .few_rows(problem.m)
        .element(problem.op, problem.dtype())?
        .grid([problem.n.div_ceil(variant.tile[1]) * problem.batch.count, 1, 1])
        .block(variant.threads);
    let mut args = factors(problem)?.to_vec();
    let c = problem.out.tensor.arg_mut_at(problem.out.offset)?;
    args.extend([
        c,
        finish.bias,
        finish.residual,
        Arg::i32(problem.m)?,
        Arg::i32(problem.n)?,
        Arg::i32(problem.k)?,
    ]);
    args.extend([Arg::i64(problem.a.leading)?, Arg::i64(problem.b.leading)?, Arg::i64(problem.out.leading)?]);
    args.extend([Arg::i64(problem.batch.a)?, Arg::i64(problem.batch.b)?, Arg::i64(problem.batch.c)?]);
    args.extend([finish.alpha, finish.flags]);
    ctx.launch(&launch, &args)
}

/// Where both factors lie.
fn factors(problem: &Problem<'_>) -> Result<[Arg; 2]> {
    Ok([problem.a.tensor.arg_at(problem.a.offset)?, problem.b.tensor.arg_at(problem.b.offset)?])
}
