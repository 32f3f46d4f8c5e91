//! Launches of the kernels.

use super::finish::{Finish, Target};
use super::form::Form;
use super::variant::{Family, Variant};
use super::{Problem, hopper};
use bigmac_gpu::Arg;
use bigmac_runtime::memory::scopes;
use bigmac_runtime::{Context, DType, Result, Tensor};

/// The parts of a split sum are multiples of this, which is one of every tile's: where they are cut does not depend on
/// the tile.
const SPLIT_UNIT: usize = 64;

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
        let launch = form.launch(variant, m).element(problem.dtype().in_kernels(problem.op)?);
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
    run(&form.partial(), &Finish::partial(), partial.arg_mut()?, n, m * n)?;

    const THREADS: usize = 256;
    let launch = form
        .reduce()
        .element(problem.dtype().in_kernels(problem.op)?)
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
        .launch(variant, problem.m)
        .element(problem.dtype().in_kernels(problem.op)?)
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
