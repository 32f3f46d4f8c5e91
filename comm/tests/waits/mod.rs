//! Every call that waits for another rank.

use bigmac_comm::{CommError, Communicator, Reduce, Tag};
use bigmac_runtime::{Context, DType, Spec, Tensor};

/// What the waits are for.
pub fn spec() -> Spec {
    Spec::new(&[3], DType::F32)
}

/// A call that waits for rank 1 in a world of three.
pub type Wait = fn(&dyn Communicator, &Context) -> Result<(), CommError>;
/// Every such call, by name.
pub const WAITS: &[(&str, Wait)] = &[
    ("recv", |comm, ctx| comm.recv(ctx, 1, Tag(0), &spec()).map(drop)),
    ("all_reduce", |comm, ctx| comm.all_reduce(ctx, &mut Tensor::zeros(ctx, &[3], DType::F32)?, Reduce::Sum)),
    ("reduce_scatter", |comm, ctx| {
        comm.reduce_scatter(ctx, &Tensor::zeros(ctx, &[3], DType::F32)?, Reduce::Sum).map(drop)
    }),
    ("all_gather", |comm, ctx| comm.all_gather(ctx, &Tensor::zeros(ctx, &[3], DType::F32)?).map(drop)),
    ("broadcast", |comm, ctx| comm.broadcast(ctx, &mut Tensor::zeros(ctx, &[3], DType::F32)?, 1)),
    ("all_to_all_v", |comm, ctx| {
        let tensors = (0..3).map(|_| Tensor::zeros(ctx, &[3], DType::F32)).collect::<Result<_, _>>()?;
        comm.all_to_all_v(ctx, tensors, &vec![spec(); 3]).map(drop)
    }),
    ("barrier", |comm, _| comm.barrier()),
    ("split", |comm, _| comm.split(0, 0).map(drop)),
];
