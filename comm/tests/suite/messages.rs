//! Messages from rank to rank.

use super::*;
use bigmac_comm::{CommError, Tag};
use bigmac_runtime::memory::scopes::{MESSAGES, WORKSPACE};
use bigmac_runtime::{Error, Spec};

/// The rank after this one, and the rank before it, in a ring.
fn ring(comm: &dyn Communicator) -> (usize, usize) {
    let (rank, size) = (comm.rank(), comm.size());
    ((rank + 1) % size, (rank + size - 1) % size)
}

/// Every rank sends to every rank, itself included, and receives in another order.
pub fn out_of_order(ctx: &Context, comm: &dyn Communicator) {
    let len = |from: usize, to: usize, tag: usize| (from * 5 + to * 3 + tag * 7) % 19;
    for tag in 0..5 {
        for to in 0..comm.size() {
            let sent = tensor::<f32>(ctx, comm.rank() + tag, &[len(comm.rank(), to, tag)]);
            comm.send(ctx, sent, to, Tag(tag as u64)).unwrap();
        }
    }
    for tag in [3, 0, 4, 1, 2] {
        for from in (0..comm.size()).rev() {
            let shape = [len(from, comm.rank(), tag)];
            let got = comm.recv(ctx, from, Tag(tag as u64), &Spec::new(&shape, F32)).unwrap();
            assert_eq!(got.as_slice::<f32>().unwrap(), values::<f32>(from + tag, shape[0]));
        }
    }
}

pub fn same_tag_keeps_order(ctx: &Context, comm: &dyn Communicator) {
    let (next, before) = ring(comm);
    for i in 0..20 {
        comm.send(ctx, tensor::<f64>(ctx, i, &[3]), next, Tag(u64::MAX)).unwrap();
    }
    for i in 0..20 {
        let got = comm.recv(ctx, before, Tag(u64::MAX), &Spec::new(&[3], DType::F64)).unwrap();
        assert_eq!(got.as_slice::<f64>().unwrap(), values::<f64>(i, 3));
    }
}

/// No rank receives before all have sent everything: sending does not wait.
pub fn many_in_flight(ctx: &Context, comm: &dyn Communicator) {
    const COUNT: usize = 1000;
    let (next, before) = ring(comm);
    for i in 0..COUNT {
        comm.send(ctx, tensor::<f32>(ctx, i, &[i % 9]), next, Tag(i as u64)).unwrap();
    }
    comm.barrier().unwrap();
    for i in (0..COUNT).rev() {
        let got = comm.recv(ctx, before, Tag(i as u64), &Spec::new(&[i % 9], F32)).unwrap();
        assert_eq!(got.as_slice::<f32>().unwrap(), values::<f32>(i, i % 9));
    }
}

pub fn scopes_are_exact(ctx: &Context, comm: &dyn Communicator) {
    let activations = ctx.in_scope("activations.llm");
    let (next, before) = ring(comm);
    for (i, len) in [101, 0, 7].into_iter().enumerate() {
        comm.send(ctx, tensor::<f32>(ctx, i, &[len]), next, Tag(i as u64)).unwrap();
    }
    assert_eq!(current(ctx, WORKSPACE), 0);
    comm.barrier().unwrap();
    // Between threads what this rank sent, between processes what has come for it.
    assert_eq!(current(ctx, MESSAGES), 108 * 4);
    comm.barrier().unwrap();
    let got = comm.recv(&activations, before, Tag(0), &Spec::new(&[101], F32)).unwrap();
    assert_eq!(activations.scope().current(), 101 * 4);
    comm.barrier().unwrap();
    assert_eq!(current(ctx, MESSAGES), 7 * 4);
    comm.barrier().unwrap();
    for (i, len) in [(1, 0), (2, 7)] {
        drop(comm.recv(ctx, before, Tag(i), &Spec::new(&[len], F32)).unwrap());
    }
    drop(got);
    comm.barrier().unwrap();
    for scope in ctx.memory().all_scopes() {
        assert_eq!(scope.current(), 0, "{}", scope.name());
    }
    assert!((108 * 4..=2 * 108 * 4).contains(&ctx.memory().scope(MESSAGES).peak()));
}

/// Of a strided view, a part, or a tensor that somebody else holds, a copy goes: the sender keeps its own, the receiver
/// can write to what it gets.
pub fn views_are_copied(ctx: &Context, comm: &dyn Communicator) {
    let (next, before) = ring(comm);
    let whole = tensor::<f32>(ctx, comm.rank(), &[4, 6]);
    let views = [
        (whole.clone(), (0..24).collect::<Vec<_>>()),
        (whole.permute(&[1, 0]).unwrap(), (0..24).map(|i| i % 4 * 6 + i / 4).collect()),
        (whole.narrow(0, 1, 2).unwrap(), (6..18).collect()),
        (whole.narrow(1, 5, 1).unwrap(), vec![5, 11, 17, 23]),
    ];
    for (tag, (view, _)) in views.iter().enumerate() {
        comm.send(ctx, view.clone(), next, Tag(tag as u64)).unwrap();
    }
    assert_eq!(current(ctx, WORKSPACE), 24 * 4);
    comm.barrier().unwrap();
    assert_eq!(current(ctx, MESSAGES), (24 + 24 + 12 + 4) * 4);
    comm.barrier().unwrap();
    for (tag, (view, order)) in views.iter().enumerate() {
        let mut got = comm.recv(ctx, before, Tag(tag as u64), &view.spec()).unwrap();
        let all = values::<f32>(before, 24);
        assert_eq!(got.as_slice::<f32>().unwrap(), order.iter().map(|&i| all[i]).collect::<Vec<_>>());
        assert!(got.is_whole());
        got.as_mut_slice::<f32>().unwrap().fill(7.0);
    }
    comm.barrier().unwrap();
    // Also when no other tensor holds the rest of the storage: it does not travel along.
    let part = tensor::<f32>(ctx, comm.rank(), &[4, 6]).narrow(0, 3, 1).unwrap();
    comm.send(ctx, part, next, Tag(9)).unwrap();
    comm.barrier().unwrap();
    assert_eq!((current(ctx, MESSAGES), current(ctx, WORKSPACE)), (6 * 4, 24 * 4));
    comm.barrier().unwrap();
    let got = comm.recv(ctx, before, Tag(9), &Spec::new(&[1, 6], F32)).unwrap();
    assert_eq!(got.as_slice::<f32>().unwrap(), &values::<f32>(before, 24)[18..]);
    assert!(got.is_whole());
    assert_eq!(whole.as_slice::<f32>().unwrap(), values::<f32>(comm.rank(), 24));
}

pub fn wrong_spec(ctx: &Context, comm: &dyn Communicator) {
    let (next, before) = ring(comm);
    for wanted in [Spec::new(&[5, 3], F32), Spec::new(&[15], F32), Spec::new(&[3, 5], DType::BF16)] {
        comm.send(ctx, tensor::<f32>(ctx, 0, &[3, 5]), next, Tag(9)).unwrap();
        let error = comm.recv(ctx, before, Tag(9), &wanted).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("{} {:?}", wanted.dtype, wanted.shape)), "{text}");
        assert!(text.contains("f32 [3, 5]") && text.contains("under tag 9"), "{text}");
        let CommError::Spec { rank, from, tag: Some(Tag(9)), .. } = error else { panic!("{error:?}") };
        assert_eq!((rank, from), (comm.rank(), before));
    }
    comm.barrier().unwrap();
    assert_eq!(current(ctx, MESSAGES), 0);
}

pub fn budgets_are_kept(ctx: &Context, comm: &dyn Communicator) {
    let (next, before) = ring(comm);
    let small = ctx.in_scope("activations.llm");
    small.scope().set_budget(Some(39));
    comm.send(ctx, tensor::<f32>(ctx, 0, &[10]), next, Tag(0)).unwrap();
    let error = comm.recv(&small, before, Tag(0), &Spec::new(&[10], F32)).unwrap_err();
    assert!(matches!(error, CommError::Runtime(Error::Budget { allowed: 39, .. })), "{error}");
    comm.barrier().unwrap();
    ctx.memory().scope(MESSAGES).set_budget(Some(40));
    let error = comm.send(ctx, tensor::<f32>(ctx, 0, &[11]), next, Tag(0)).unwrap_err();
    assert!(error.to_string().contains("messages"), "{error}");
    comm.barrier().unwrap();
    assert_eq!(current(ctx, MESSAGES) + current(ctx, WORKSPACE) + small.scope().current(), 0);
    small.scope().set_budget(None);
    ctx.memory().scope(MESSAGES).set_budget(None);
    comm.barrier().unwrap();
}

pub fn bad_arguments(ctx: &Context, comm: &dyn Communicator) {
    let size = comm.size();
    let spec = Spec::new(&[1], F32);
    let one = || tensor::<f32>(ctx, 0, &[1]);
    for error in [
        comm.send(ctx, one(), size, Tag(0)).unwrap_err(),
        comm.recv(ctx, size, Tag(0), &spec).unwrap_err(),
        comm.broadcast(ctx, &mut one(), size).unwrap_err(),
    ] {
        assert!(matches!(error, CommError::NoSuchRank { given, size: s, .. } if given == size && s == size));
    }
    let error = comm.all_to_all_v(ctx, vec![one(); size + 1], &vec![spec; size]).unwrap_err();
    assert!(matches!(error, CommError::Count { what: "tensors", .. }), "{error}");
    comm.barrier().unwrap();
}

/// Every size and dtype arrives as it was, whole or in pieces.
pub fn sizes_and_dtypes(ctx: &Context, comm: &dyn Communicator) {
    let (next, before) = ring(comm);
    let bytes = |rank: usize, count: usize| -> Vec<u8> {
        let mut state = rank as u32 + 1;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(|_| byte()).collect()
    };
    // The last are around a size at which engines begin to send payloads on their own.
    let lens = [0, 1, 3, 1021, 4090, 4096, 20_011].into_iter().chain(16_340..16_390);
    for dtype in DType::ALL {
        for len in lens.clone().take(if dtype == DType::U8 { usize::MAX } else { 7 }) {
            let spec = Spec::new(&[len], dtype);
            let sent = Tensor::from_bytes(ctx, &bytes(comm.rank(), spec.bytes()), &spec).unwrap();
            comm.send(ctx, sent, next, Tag(len as u64)).unwrap();
            let got = comm.recv(ctx, before, Tag(len as u64), &spec).unwrap();
            assert!(got.as_bytes().unwrap() == bytes(before, spec.bytes()), "{dtype} {len}");
        }
    }
}

/// 64 MiB each way at once: no one waits for a buffer of the other.
pub fn large_messages_cross(ctx: &Context, comm: &dyn Communicator) {
    const LEN: usize = 16 << 20;
    let (next, before) = ring(comm);
    let values = |rank: usize| (0..LEN).map(move |i| (i * 7 + rank) as u32);
    let sent = Tensor::from_slice(ctx, &values(comm.rank()).collect::<Vec<_>>(), &[LEN]).unwrap();
    comm.send(ctx, sent, next, Tag(0)).unwrap();
    let got = comm.recv(ctx, before, Tag(0), &Spec::new(&[LEN], DType::U32)).unwrap();
    assert!(got.as_slice::<u32>().unwrap().iter().copied().eq(values(before)));
}

/// Small messages do not overtake large ones of the same tag.
pub fn sizes_do_not_change_the_order(ctx: &Context, comm: &dyn Communicator) {
    let (next, before) = ring(comm);
    let len = |i: usize| if i.is_multiple_of(3) { 300_000 + i } else { i };
    for i in 0..30 {
        let sent = Tensor::from_slice(ctx, &vec![i as f32; len(i)], &[len(i)]).unwrap();
        comm.send(ctx, sent, next, Tag(5)).unwrap();
    }
    for i in 0..30 {
        let got = comm.recv(ctx, before, Tag(5), &Spec::new(&[len(i)], F32)).unwrap();
        assert!(got.as_slice::<f32>().unwrap().iter().all(|&x| x == i as f32), "{i}");
    }
}

/// A message that the receiver's budget has no room for is an error where it is received, and those after it come.
pub fn no_room_at_the_receiver(ctx: &Context, comm: &dyn Communicator) {
    let (next, before) = ring(comm);
    let small = ctx.in_scope("activations.llm");
    small.scope().set_budget(Some(1 << 20));
    for len in [5, 300_000, 6] {
        comm.send(ctx, tensor::<f32>(ctx, 1, &[len]), next, Tag(0)).unwrap();
    }
    for len in [5, 300_000, 6] {
        let got = comm.recv(&small, before, Tag(0), &Spec::new(&[len], F32));
        if len > 1000 {
            let error = got.unwrap_err();
            assert!(matches!(error, CommError::Runtime(Error::Budget { .. })), "{error}");
        } else {
            assert_eq!(got.unwrap().as_slice::<f32>().unwrap(), values::<f32>(1, len));
        }
    }
    small.scope().set_budget(None);
    comm.barrier().unwrap();
    assert_eq!(current(ctx, MESSAGES), 0);
}

pub fn planned_tensors_travel_as_shapes(ctx: &Context, comm: &dyn Communicator) {
    let (next, before) = ring(comm);
    let spec = Spec::new(&[1 << 20, 1 << 20], DType::BF16);
    comm.send(ctx, Tensor::shape_only(&spec), next, Tag(0)).unwrap();
    assert!(comm.recv(ctx, before, Tag(0), &spec).unwrap().is_shape_only());
}
