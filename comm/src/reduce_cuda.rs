//! The reduction over ranks that share a GPU.

use crate::communicator::Reduce;
use bigmac_gpu::{Arg, Launch, Source, Variants};
use bigmac_runtime::{Context, DType, Error, Result, Spec, Tensor};

/// The kernel's source.
static SOURCE: Source = Source::new("reduce.cu", include_str!("reduce.cu"));

const THREADS: usize = 256;

/// Every program that a reduction can ask for, so that all of them can be compiled where no GPU is.
pub fn programs() -> Variants {
    Variants::new(&SOURCE)
}

/// As [`crate::reduce::reduce`], of tensors on the context's device.
pub(crate) fn reduce(
    ctx: &Context,
    op: Reduce,
    inputs: &[Tensor],
    start: usize,
    out: &mut Tensor,
) -> Result<()> {
    let mut addresses = Vec::with_capacity(8 * inputs.len());
    for input in inputs {
        if start + out.len() > input.len() {
            let wanted = format!("tensors that hold {start}..{}", start + out.len());
            return Err(Error::shape("reduce", input.shape(), wanted));
        }
        if let Arg::Pointer(address) = input.arg()? {
            addresses.extend(address.to_le_bytes());
        }
    }
    let addresses = Tensor::from_bytes(ctx, &addresses, &Spec::new(&[addresses.len()], DType::U8))?;
    let vector = 16 / out.dtype().size();
    let launch = Launch::new(&SOURCE, "reduce_ranks")
        .element(out.dtype().in_kernels("reduce")?)
        .grid([out.len().div_ceil(vector * THREADS), 1, 1])
        .block(THREADS);
    let args = [
        addresses.arg()?,
        Arg::i32(inputs.len())?,
        Arg::i64(start)?,
        out.arg_mut()?,
        Arg::i64(out.len())?,
        Arg::I32(i32::from(op == Reduce::Max)),
    ];
    ctx.launch(&launch, &args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_gpu::Program;
    use bigmac_gpu::nvidia::Compiler;

    #[test]
    fn the_kernel_compiles_for_gpus_without_spilling() {
        let compiler = match Compiler::open() {
            Ok(compiler) => compiler,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "the reduction can't be compiled: {error}");
                eprintln!("SKIPPED: the reduction isn't compiled for any GPU. {error}");
                return;
            }
        };
        for target in programs().architectures() {
            for knobs in programs().programs() {
                let image = compiler.compile(target, &Program { source: &SOURCE, knobs: &knobs }).unwrap();
                assert!(image.resources.iter().any(|found| found.kernel == "reduce_ranks"), "{}", image.log);
                let spills = image.resources.iter().map(|found| found.spill_stores + found.spill_loads);
                assert_eq!(spills.sum::<u32>(), 0, "{target} {knobs:?}: {}", image.log);
            }
        }
    }
}
