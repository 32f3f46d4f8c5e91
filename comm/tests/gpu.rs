//! Ranks that share a GPU, replayed: every collective gives the bits that it gives on the CPU.

use bigmac_comm::{CommError, Communicator, Reduce, Tag, run_ranks};
use bigmac_gpu::{Gpu, Order};
use bigmac_runtime::{Context, DType, Element, Spec, Tensor};
use half::bf16;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Values whose sum over ranks depends on the order.
fn value(rank: usize, i: usize) -> f32 {
    [1.0e7, 1.0, -1.0e7, 0.5][rank % 4] * (1.0 + (i * 11 + rank) as f32 / 13.0)
}

/// What each rank got of every collective, in one list of bytes.
fn collectives<T: Element>(gpu: Option<&Gpu>, size: usize, len: usize, of: fn(f32) -> T) -> Vec<Vec<u8>> {
    run_ranks(size, LIMIT, |comm| {
        let (ctx, rank) = (Context::on(comm.rank(), 1, gpu)?, comm.rank());
        let make = |len: usize| {
            let values: Vec<T> = (0..len).map(|i| of(value(rank, i))).collect();
            Tensor::from_slice(&ctx, &values, &[len])
        };
        let mut got = Vec::new();
        let mut keep = |tensor: &Tensor| {
            assert_eq!(tensor.device(), ctx.device());
            got.extend_from_slice(tensor.to_cpu(&ctx)?.as_bytes()?);
            Ok::<_, CommError>(())
        };
        for op in [Reduce::Sum, Reduce::Max] {
            let mut x = make(len)?;
            comm.all_reduce(&ctx, &mut x, op)?;
            keep(&x)?;
            keep(&comm.reduce_scatter(&ctx, &make(len)?, op)?)?;
        }
        keep(&comm.all_gather(&ctx, &make(len + rank)?)?)?;
        let mut x = make(len)?;
        comm.broadcast(&ctx, &mut x, size - 1)?;
        keep(&x)?;
        let next = (rank + 1) % size;
        comm.send(&ctx, make(len)?, next, Tag(7))?;
        keep(&comm.recv(&ctx, (rank + size - 1) % size, Tag(7), &Spec::new(&[len], T::DTYPE))?)?;
        drop(x);
        // What was sent is counted here until it has been received.
        comm.barrier()?;
        assert!(ctx.memory().all_scopes().iter().all(|scope| scope.current() == 0));
        Ok::<_, CommError>(got)
    })
    .unwrap()
}

#[test]
fn collectives_give_the_bits_of_the_cpu() {
    for order in [Order::Forward, Order::Random(2)] {
        let gpu = Gpu::replay(order).unwrap();
        for size in [1, 2, 3, 5] {
            for len in [1, 7, 8, 2053] {
                let wanted = collectives(None, size, len, |v| v);
                assert_eq!(collectives(Some(&gpu), size, len, |v| v), wanted, "f32, {size} ranks, {len}");
                let wanted = collectives(None, size, len, bf16::from_f32);
                assert_eq!(collectives(Some(&gpu), size, len, bf16::from_f32), wanted, "bf16, {size}, {len}");
            }
        }
    }
}

#[test]
fn a_dtype_that_gpus_do_not_reduce_is_refused() {
    let gpu = Gpu::replay(Order::Forward).unwrap();
    let outcome = run_ranks(2, LIMIT, |comm| {
        let ctx = Context::on_gpu(comm.rank(), 1, &gpu)?;
        let mut x = Tensor::zeros(&ctx, &[3], DType::F64)?;
        let error = comm.all_reduce(&ctx, &mut x, Reduce::Sum).unwrap_err().to_string();
        assert!(error.contains("reduce") && error.contains("f64"), "{error}");
        Ok::<_, CommError>(())
    });
    outcome.unwrap();
}
