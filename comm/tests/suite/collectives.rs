//! Calls that all ranks make together.

use super::*;
use bigmac_comm::{CommError, Reduce, shard};
use bigmac_runtime::memory::scopes::{MESSAGES, WORKSPACE};
use bigmac_runtime::{Error, Spec};
use std::time::{Duration, SystemTime};

const SHAPES: [&[usize]; 7] = [&[], &[0], &[1], &[5], &[3, 7], &[2, 0, 3], &[1031]];

fn sum<T: Number>(size: usize, len: usize) -> Vec<T> {
    (0..len).map(|i| T::sum((0..size).map(|rank| T::of(value(rank, i))))).collect()
}

fn max<T: Number>(size: usize, len: usize) -> Vec<T> {
    (0..len)
        .map(|i| {
            (0..size)
                .map(|rank| T::of(value(rank, i)))
                .reduce(|a, b| if b.to() > a.to() { b } else { a })
                .unwrap()
        })
        .collect()
}

fn all_reduce_of<T: Number>(ctx: &Context, comm: &dyn Communicator) {
    for shape in SHAPES {
        let len = shape.iter().product();
        for (op, expected) in
            [(Reduce::Sum, sum::<T>(comm.size(), len)), (Reduce::Max, max::<T>(comm.size(), len))]
        {
            let mut x = tensor::<T>(ctx, comm.rank(), shape);
            comm.all_reduce(ctx, &mut x, op).unwrap();
            assert_eq!(x.shape(), shape);
            assert_eq!(x.as_bytes().unwrap(), bytes(&expected), "{op} of {shape:?}");
        }
    }
}

pub fn all_reduce(ctx: &Context, comm: &dyn Communicator) {
    all_reduce_of::<f64>(ctx, comm);
    all_reduce_of::<f32>(ctx, comm);
    all_reduce_of::<bf16>(ctx, comm);
    // A part of a tensor that is otherwise unshared is reduced where it lies.
    let mut part = tensor::<f32>(ctx, comm.rank(), &[9]).narrow(0, 2, 5).unwrap();
    comm.all_reduce(ctx, &mut part, Reduce::Sum).unwrap();
    assert_eq!(part.as_bytes().unwrap(), bytes(&sum::<f32>(comm.size(), 9)[2..7]));
    // What cannot be written or added is refused before any rank waits.
    let held = part.clone();
    let error = comm.all_reduce(ctx, &mut part, Reduce::Sum).unwrap_err();
    assert!(matches!(error, CommError::Runtime(Error::Shared { .. })), "{error}");
    drop(held);
    let mut bytes = Tensor::from_slice(ctx, &[1_u8], &[1]).unwrap();
    let error = comm.all_reduce(ctx, &mut bytes, Reduce::Sum).unwrap_err();
    assert!(matches!(error, CommError::Runtime(Error::DType { .. })), "{error}");
}

/// The bits are those of the fixed order, however late which rank comes.
pub fn all_reduce_whatever_the_timing(ctx: &Context, comm: &dyn Communicator) {
    let expected = sum::<f32>(comm.size(), 257);
    for trial in 0..30_u64 {
        // Any fixed scatter of delays will do: none, a yield, or some tens of microseconds.
        let jitter = (trial * 7919 + comm.rank() as u64 * 104_729) % 11;
        match jitter {
            0..4 => {}
            4..8 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(jitter * 20)),
        }
        let mut x = tensor::<f32>(ctx, comm.rank(), &[257]);
        comm.all_reduce(ctx, &mut x, Reduce::Sum).unwrap();
        assert_eq!(x.as_bytes().unwrap(), bytes(&expected), "trial {trial}");
    }
}

pub fn reduce_scatter_and_all_gather(ctx: &Context, comm: &dyn Communicator) {
    for shape in [&[0_usize][..], &[1], &[13], &[5, 3], &[17, 2, 2], &[4, 0]] {
        let len = shape.iter().product();
        let expected = sum::<f32>(comm.size(), len);
        let x = tensor::<f32>(ctx, comm.rank(), shape);
        let mine = comm.reduce_scatter(ctx, &x, Reduce::Sum).unwrap();
        let rows = shard(shape[0], comm.size(), comm.rank());
        let row: usize = shape[1..].iter().product();
        assert_eq!((mine.shape()[0], &mine.shape()[1..]), (rows.len(), &shape[1..]));
        assert_eq!(mine.as_bytes().unwrap(), bytes(&expected[rows.start * row..rows.end * row]));
        let all = comm.all_gather(ctx, &mine).unwrap();
        assert_eq!(all.shape(), shape);
        assert_eq!(all.as_bytes().unwrap(), bytes(&expected));
        assert_eq!(x.as_bytes().unwrap(), bytes(&values::<f32>(comm.rank(), len)), "the input stays");
    }
    // A transposed view gives what its copy gives.
    let view = tensor::<bf16>(ctx, comm.rank(), &[3, 11]).permute(&[1, 0]).unwrap();
    let of_view = comm.reduce_scatter(ctx, &view, Reduce::Max).unwrap();
    let of_copy = comm.reduce_scatter(ctx, &view.copy(ctx).unwrap(), Reduce::Max).unwrap();
    assert_eq!(of_view.as_bytes().unwrap(), of_copy.as_bytes().unwrap());
    let scalar = tensor::<f32>(ctx, 0, &[]);
    assert!(matches!(comm.all_gather(ctx, &scalar), Err(CommError::Runtime(Error::Shape { .. }))));
    assert!(matches!(
        comm.reduce_scatter(ctx, &scalar, Reduce::Sum),
        Err(CommError::Runtime(Error::Shape { .. }))
    ));
}

pub fn all_gather_of_uneven_rows(ctx: &Context, comm: &dyn Communicator) {
    let rows = |rank: usize| (rank * 3 + 2) % 5;
    let all = comm.all_gather(ctx, &tensor::<f64>(ctx, comm.rank(), &[rows(comm.rank()), 3])).unwrap();
    let expected: Vec<f64> = (0..comm.size()).flat_map(|rank| values::<f64>(rank, rows(rank) * 3)).collect();
    assert_eq!(all.shape(), [(0..comm.size()).map(rows).sum(), 3]);
    assert_eq!(all.as_slice::<f64>().unwrap(), expected);
    let tokens = Tensor::from_slice(ctx, &[comm.rank() as i32], &[1]).unwrap();
    let all = comm.all_gather(ctx, &tokens).unwrap();
    assert_eq!(all.as_slice::<i32>().unwrap(), (0..comm.size() as i32).collect::<Vec<_>>());
}

pub fn broadcast(ctx: &Context, comm: &dyn Communicator) {
    for root in 0..comm.size() {
        for shape in SHAPES {
            let mut x = tensor::<f32>(ctx, comm.rank(), shape);
            comm.broadcast(ctx, &mut x, root).unwrap();
            assert_eq!(x.as_slice::<f32>().unwrap(), values::<f32>(root, x.len()));
            x.as_mut_slice::<f32>().unwrap().fill(0.0);
        }
    }
}

pub fn all_to_all_v(ctx: &Context, comm: &dyn Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    let shape = |from: usize, to: usize| [(from * 2 + to) % 4, 1 + to];
    let tensors = (0..size).map(|to| tensor::<f32>(ctx, rank * 10 + to, &shape(rank, to))).collect();
    let specs: Vec<Spec> = (0..size).map(|from| Spec::new(&shape(from, rank), F32)).collect();
    let received = ctx.in_scope("activations.encoder");
    let got = comm.all_to_all_v(&received, tensors, &specs).unwrap();
    for (from, got) in got.iter().enumerate() {
        assert_eq!(got.shape(), shape(from, rank));
        assert_eq!(got.as_slice::<f32>().unwrap(), values::<f32>(from * 10 + rank, got.len()));
    }
    comm.barrier().unwrap();
    assert_eq!(current(ctx, MESSAGES) + current(ctx, WORKSPACE), 0);
    comm.barrier().unwrap();
    assert_eq!(received.scope().current(), specs.iter().map(Spec::bytes).sum::<usize>());
    let tensors = (0..size).map(|_| tensor::<f32>(ctx, rank, &[2])).collect();
    let error = comm.all_to_all_v(ctx, tensors, &vec![Spec::new(&[3], F32); size]).unwrap_err();
    assert!(matches!(error, CommError::Spec { tag: None, .. }), "{error}");
}

/// No one leaves a barrier before everybody has entered it, by the clock of the host.
pub fn barrier_waits(ctx: &Context, comm: &dyn Communicator) {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    for late in 0..comm.size() {
        comm.barrier().unwrap();
        if comm.rank() == late {
            std::thread::sleep(Duration::from_millis(40));
        }
        let entered = now();
        comm.barrier().unwrap();
        let times = Tensor::from_slice(ctx, &[entered, now()], &[1, 2]).unwrap();
        let times = comm.all_gather(ctx, &times).unwrap();
        let times = times.as_slice::<f64>().unwrap();
        let last_entered = times.iter().step_by(2).copied().fold(0.0, f64::max);
        let left = times.iter().skip(1).step_by(2);
        // Seconds since 1970 are not exact in f64.
        assert!(left.copied().all(|left| left > last_entered - 0.001), "rank {late} was late: {times:?}");
    }
}

pub fn collectives_leave_no_memory(ctx: &Context, comm: &dyn Communicator) {
    let result = ctx.in_scope("gradients");
    let mut x = tensor::<f32>(&result, comm.rank(), &[1001]);
    for _ in 0..5 {
        comm.all_reduce(ctx, &mut x, Reduce::Max).unwrap();
        assert!(x.is_unshared());
        // A peer that is ahead may have sent for the next call already.
        comm.barrier().unwrap();
        assert_eq!((current(ctx, MESSAGES), current(ctx, WORKSPACE), result.scope().current()), (0, 0, 4004));
        comm.barrier().unwrap();
        comm.broadcast(ctx, &mut x, 0).unwrap();
        x.as_mut_slice::<f32>().unwrap()[0] = 0.0;
        let part = comm.reduce_scatter(&result, &x, Reduce::Sum).unwrap();
        let all = comm.all_gather(&result, &part).unwrap();
        assert_eq!(result.scope().current(), x.storage_bytes() + part.storage_bytes() + all.storage_bytes());
        assert!(x.is_unshared() && part.is_unshared() && all.is_unshared());
    }
    comm.barrier().unwrap();
    ctx.memory().scope(MESSAGES).reset_peak();
    comm.barrier().unwrap();
    comm.all_reduce(ctx, &mut x, Reduce::Max).unwrap();
    // Between threads a shard; between processes also what came of others: their parts of this shard, and their shards.
    let shards = [1001 / comm.size() * 4, 2 * 1001_usize.div_ceil(comm.size()) * comm.size() * 4];
    let peak = ctx.memory().scope(MESSAGES).peak();
    assert!((shards[0]..=shards[1]).contains(&peak), "{peak} bytes, expected {shards:?}");
}

/// Random values of every float dtype: what is reduced in one call is what the rule says, bit for bit, and the pieces
/// of it are what the parts say.
pub fn random_values(ctx: &Context, comm: &dyn Communicator) {
    fn check<T: Number>(ctx: &Context, comm: &dyn Communicator, len: usize, seed: u64) {
        let random = |rank: usize| -> Vec<T> {
            let mut state = seed.wrapping_mul(31).wrapping_add(rank as u64);
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let exponent = ((state >> 59) as i32) - 16;
                T::of(((state >> 20) as i32 as f64) * f64::powi(2.0, exponent - 31))
            };
            (0..len).map(|_| next()).collect()
        };
        let all: Vec<Vec<T>> = (0..comm.size()).map(random).collect();
        let expected: Vec<T> = (0..len).map(|i| T::sum(all.iter().map(|values| values[i]))).collect();
        let mine = || Tensor::from_slice(ctx, &all[comm.rank()], &[len]).unwrap();
        let mut reduced = mine();
        comm.all_reduce(ctx, &mut reduced, Reduce::Sum).unwrap();
        assert!(reduced.as_bytes().unwrap() == bytes(&expected), "{} {len}", T::DTYPE);
        let part = comm.reduce_scatter(ctx, &mine(), Reduce::Sum).unwrap();
        assert!(comm.all_gather(ctx, &part).unwrap().as_bytes().unwrap() == bytes(&expected));
    }
    for (seed, len) in [0, 1, 2, 1000, 40_003, 200_001].into_iter().enumerate() {
        check::<f64>(ctx, comm, len, seed as u64);
        check::<f32>(ctx, comm, len, seed as u64);
        check::<bf16>(ctx, comm, len, seed as u64);
        check::<f16>(ctx, comm, len, seed as u64);
    }
}
