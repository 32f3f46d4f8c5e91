//! What collectives give, to be compared between ways of connecting ranks.

use bigmac_comm::{CommError, Communicator, Reduce};
use bigmac_runtime::{Context, DType, Spec, Tensor};

/// What every collective gives on a rank, in one list of bytes.
pub fn bits(ctx: &Context, comm: &dyn Communicator) -> Result<Vec<u8>, CommError> {
    let mut got = Vec::new();
    for len in [1, 7, 4099, 70_001] {
        let value =
            |i: usize| (i as f32 * 0.37 + comm.rank() as f32).sin() * f32::powi(10.0, (i % 13) as i32 - 6);
        let make = || Tensor::from_slice(ctx, &(0..len).map(value).collect::<Vec<_>>(), &[len]);
        for op in [Reduce::Sum, Reduce::Max] {
            let mut x = make()?;
            comm.all_reduce(ctx, &mut x, op)?;
            got.extend_from_slice(x.as_bytes()?);
            let part = comm.reduce_scatter(ctx, &make()?, op)?;
            got.extend_from_slice(part.as_bytes()?);
            got.extend_from_slice(comm.all_gather(ctx, &part)?.as_bytes()?);
        }
        let mut x = make()?;
        comm.broadcast(ctx, &mut x, comm.size() - 1)?;
        got.extend_from_slice(x.as_bytes()?);
        let specs = vec![Spec::new(&[len], DType::F32); comm.size()];
        let all =
            comm.all_to_all_v(ctx, (0..comm.size()).map(|_| make()).collect::<Result<_, _>>()?, &specs)?;
        for x in all {
            got.extend_from_slice(x.as_bytes()?);
        }
    }
    Ok(got)
}
