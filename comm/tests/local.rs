//! The suite on threads, and what only threads can show.

mod suite;

use bigmac_comm::{CommError, Communicator, LocalCommunicator, Reduce, Tag, run_ranks};
use bigmac_runtime::{Context, DType, Spec, Tensor};
use proptest::prelude::*;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// Sizes of worlds worth trying.
const SIZES: [usize; 5] = [1, 2, 3, 4, 7];

#[test]
fn suite_on_threads() {
    for size in SIZES {
        let large = if size <= 2 { suite::LARGE } else { &[] };
        for (name, case) in suite::CASES.iter().chain(large) {
            let outcome = run_ranks(size, LIMIT, |comm| {
                suite::run(name, *case, &Context::cpu(comm.rank(), 1)?, &comm);
                Ok::<_, CommError>(())
            });
            if let Err(error) = outcome {
                panic!("{name} with {size} ranks: {error}");
            }
        }
    }
}

#[test]
fn tensors_are_handed_over_without_a_copy() {
    let addresses = run_ranks(2, LIMIT, |comm| {
        let ctx = Context::cpu(comm.rank(), 1)?;
        let tensor = Tensor::zeros(&ctx, &[1000], DType::F32)?;
        let sent = tensor.as_slice::<f32>()?.as_ptr() as usize;
        comm.send(&ctx, tensor, 1 - comm.rank(), Tag(0))?;
        let got = comm.recv(&ctx, 1 - comm.rank(), Tag(0), &Spec::new(&[1000], DType::F32))?;
        Ok::<_, CommError>((sent, got.as_slice::<f32>()?.as_ptr() as usize))
    })
    .unwrap();
    assert_eq!((addresses[0].0, addresses[1].0), (addresses[1].1, addresses[0].1));
}

/// What was sent is counted at its sender until it is received, and an all_reduce has a shard in flight.
#[test]
fn messages_are_counted_once() {
    run_ranks(2, LIMIT, |comm| {
        let ctx = Context::cpu(comm.rank(), 1)?;
        let messages = ctx.memory().scope("messages");
        for (i, len) in [101, 0, 7].into_iter().enumerate() {
            comm.send(&ctx, Tensor::zeros(&ctx, &[len], DType::F32)?, 1 - comm.rank(), Tag(i as u64))?;
        }
        assert_eq!(messages.current(), 108 * 4);
        comm.barrier()?;
        for (i, len) in [101, 0, 7].into_iter().enumerate() {
            comm.recv(&ctx, 1 - comm.rank(), Tag(i as u64), &Spec::new(&[len], DType::F32))?;
        }
        comm.barrier()?;
        assert_eq!((messages.current(), messages.peak()), (0, 108 * 4));
        messages.reset_peak();
        comm.all_reduce(&ctx, &mut Tensor::zeros(&ctx, &[1001], DType::F32)?, Reduce::Sum)?;
        assert!(messages.peak() <= 501 * 4, "{}", messages.peak());
        Ok::<_, CommError>(())
    })
    .unwrap();
}

#[test]
fn integers_are_not_reduced_and_the_error_names_the_call() {
    let comm = LocalCommunicator::world(1, LIMIT).remove(0);
    let ctx = Context::cpu(0, 1).unwrap();
    let mut x = Tensor::zeros(&ctx, &[1], DType::U8).unwrap();
    let error = comm.all_reduce(&ctx, &mut x, Reduce::Sum).unwrap_err().to_string();
    assert!(error.contains("all_reduce") && error.contains("u8") && error.contains("bf16"), "{error}");
}

#[test]
fn waiting_on_a_pool_worker_is_refused() {
    let comm = LocalCommunicator::world(1, LIMIT).remove(0);
    let threads = Context::cpu(0, 2).unwrap();
    let errors = threads.threads().map_blocks(2, 1, |_, _| comm.barrier().unwrap_err());
    assert!(errors.iter().all(|error| matches!(error, CommError::InsidePool { rank: 0, .. })), "{errors:?}");
}

#[test]
fn ranks_have_named_threads_and_results_in_order() {
    let names = run_ranks(5, LIMIT, |comm| {
        let name = std::thread::current().name().map(str::to_owned);
        Ok::<_, CommError>((comm.rank(), name))
    });
    let expected: Vec<_> = (0..5).map(|rank| (rank, Some(format!("rank-{rank}")))).collect();
    assert_eq!(names.unwrap(), expected);
    assert!(run_ranks(0, LIMIT, |_| Ok::<_, CommError>(())).unwrap().is_empty());
}

/// One message of a random pattern.
#[derive(Clone, Debug)]
struct Message {
    from: usize,
    to: usize,
    tag: u64,
    len: usize,
    /// Whether the sender keeps a view, so that a copy goes.
    kept: bool,
    /// Where the receiver puts it in its order.
    when: u32,
}

fn patterns() -> impl Strategy<Value = (usize, Vec<Message>)> {
    (1_usize..6).prop_flat_map(|size| {
        let message = (0..size, 0..size, 0..4_u64, 0..70_usize, any::<bool>(), any::<u32>())
            .prop_map(|(from, to, tag, len, kept, when)| Message { from, to, tag, len, kept, when });
        (Just(size), proptest::collection::vec(message, 0..120))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any pattern of messages arrives: right values, right order within a tag, no byte left over.
    #[test]
    fn random_patterns_arrive((size, messages) in patterns()) {
        // Messages of one sender and tag arrive as they were sent, so receivers may shuffle only the rest.
        let mut order: Vec<usize> = (0..messages.len()).collect();
        order.sort_by_key(|&i| messages[i].when);
        let key = |i: usize| (messages[i].from, messages[i].to, messages[i].tag);
        let outcome = run_ranks(size, LIMIT, |comm| {
            let ctx = Context::cpu(comm.rank(), 1)?;
            let received = ctx.in_scope("activations.llm");
            let mut kept = Vec::new();
            for (i, message) in messages.iter().enumerate().filter(|(_, m)| m.from == comm.rank()) {
                let tensor = Tensor::from_slice(&ctx, &vec![i as f32; message.len], &[message.len])?;
                if message.kept {
                    kept.push(tensor.clone());
                }
                comm.send(&ctx, tensor, message.to, Tag(message.tag))?;
            }
            let mut taken = vec![false; messages.len()];
            let mut got = Vec::new();
            for &place in order.iter().filter(|&&i| messages[i].to == comm.rank()) {
                // The first not taken yet under the key that stands here.
                let i = (0..messages.len()).find(|&i| !taken[i] && key(i) == key(place)).unwrap();
                taken[i] = true;
                let spec = Spec::new(&[messages[i].len], DType::F32);
                let tensor = comm.recv(&received, messages[i].from, Tag(messages[i].tag), &spec)?;
                assert!(tensor.as_slice::<f32>()?.iter().all(|&x| x == i as f32));
                got.push(tensor);
            }
            assert_eq!(received.scope().current(), got.iter().map(Tensor::storage_bytes).sum::<usize>());
            comm.barrier()?;
            assert_eq!(ctx.memory().scope("messages").current(), 0);
            assert_eq!(ctx.memory().scope("workspace").current(), kept.iter().map(Tensor::storage_bytes).sum::<usize>());
            Ok::<_, CommError>(())
        });
        prop_assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    }
}
