//! Ranks that fail, panic, end early or never come: an error at once or within the limit, and never a hang.

mod waits;

use bigmac_comm::{
    CommError, Communicator, LocalCommunicator, RankError, RankFailure, Reduce, Tag, run_ranks,
};
use bigmac_runtime::{Context, DType, Tensor};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};
use waits::{WAITS, Wait, spec};

/// Far longer than any of these tests may take: a rank that waits this long has not been woken.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs three ranks of which rank 1 does `fault` a little later than the others have begun to wait; returns what these
/// got and what `run_ranks` said.
fn with_fault(
    wait: Wait,
    fault: impl Fn(LocalCommunicator) -> Result<(), CommError> + Sync,
) -> (Vec<CommError>, Option<RankError<CommError>>) {
    let errors = Mutex::new(Vec::new());
    let both = Barrier::new(2);
    let began = Instant::now();
    let outcome = run_ranks(3, LIMIT, |comm| {
        let ctx = Context::cpu(comm.rank(), 1)?;
        if comm.rank() == 1 {
            std::thread::sleep(Duration::from_millis(10));
            return fault(comm);
        }
        errors.lock().unwrap().push(wait(&comm, &ctx).unwrap_err());
        // Whoever has its error first stays until the other has its own: its end would be another cause.
        both.wait();
        Ok(())
    });
    assert!(began.elapsed() < LIMIT / 4, "somebody waited for the time limit");
    (errors.into_inner().unwrap(), outcome.err())
}

/// Both waiting ranks name rank 1 and a reason that contains `reason`.
fn assert_poisoned(name: &str, errors: &[CommError], reason: &str) {
    assert_eq!(errors.len(), 2, "{name}");
    for error in errors {
        assert!(
            matches!(error, CommError::Poisoned { rank: 0 | 2, by: 1, reason: r } if r.contains(reason)),
            "{name}: {error}"
        );
    }
}

#[test]
fn an_error_of_a_rank_is_the_cause_and_wakes_its_peers() {
    for (name, wait) in WAITS {
        let (errors, cause) = with_fault(*wait, |_| {
            Err(CommError::Runtime(bigmac_runtime::Error::argument("load", "the disk is full")))
        });
        assert_poisoned(name, &errors, "the disk is full");
        let cause = cause.unwrap();
        assert!(matches!(cause.cause, RankFailure::Failed(CommError::Runtime(_))), "{cause}");
        assert_eq!(cause.to_string(), "rank 1: load: the disk is full");
    }
}

#[test]
fn a_panic_is_an_error_that_names_the_rank() {
    for (name, wait) in WAITS {
        let (errors, cause) = with_fault(*wait, |comm| panic!("index {} out of range", comm.rank() + 6));
        assert_poisoned(name, &errors, "panicked");
        assert_eq!(cause.unwrap().to_string(), "rank 1: panicked: index 7 out of range");
    }
}

#[test]
fn abort_gives_its_reason() {
    for (name, wait) in WAITS {
        let (errors, cause) = with_fault(*wait, |comm| {
            comm.abort("the loss is not finite");
            comm.abort("a later reason");
            Ok(())
        });
        assert_poisoned(name, &errors, "the loss is not finite");
        assert_eq!(cause.unwrap().to_string(), "rank 1: aborted: the loss is not finite");
    }
}

#[test]
fn a_rank_that_ends_early_fails_whoever_waits_for_it() {
    for (name, wait) in WAITS {
        let (errors, _) = with_fault(*wait, |_| Ok(()));
        assert_poisoned(name, &errors, "it ended");
    }
}

#[test]
fn what_was_sent_before_the_end_still_arrives() {
    run_ranks(2, LIMIT, |comm| {
        let ctx = Context::cpu(comm.rank(), 1)?;
        if comm.rank() == 1 {
            return comm.send(&ctx, Tensor::zeros(&ctx, &[3], DType::F32)?, 0, Tag(0));
        }
        std::thread::sleep(Duration::from_millis(20));
        comm.recv(&ctx, 1, Tag(0), &spec())?;
        let error = comm.send(&ctx, Tensor::zeros(&ctx, &[3], DType::F32)?, 1, Tag(0)).unwrap_err();
        assert!(matches!(error, CommError::Poisoned { rank: 0, by: 1, .. }), "{error}");
        assert_eq!(ctx.memory().scope("messages").current(), 0);
        Ok::<_, CommError>(())
    })
    .unwrap();
}

#[test]
fn the_first_cause_is_told_and_not_what_followed() {
    // Rank 3 fails; 2 waits for 3, 1 for 2, 0 for 1, and each passes its error on.
    for _ in 0..50 {
        let error = run_ranks(4, LIMIT, |comm| {
            let ctx = Context::cpu(comm.rank(), 1)?;
            if comm.rank() == 3 {
                return Err(CommError::Runtime(bigmac_runtime::Error::argument("step", "first cause")));
            }
            comm.recv(&ctx, comm.rank() + 1, Tag(0), &spec()).map(drop)
        });
        assert_eq!(error.unwrap_err().to_string(), "rank 3: step: first cause");
    }
}

#[test]
fn later_calls_fail_too() {
    let mut world = LocalCommunicator::world(2, LIMIT);
    let ctx = Context::cpu(0, 1).unwrap();
    let one = world.remove(1);
    let zero = world.remove(0);
    one.send(&ctx, Tensor::zeros(&ctx, &[3], DType::F32).unwrap(), 0, Tag(0)).unwrap();
    one.abort("enough");
    let sent = zero.send(&ctx, Tensor::zeros(&ctx, &[3], DType::F32).unwrap(), 1, Tag(0));
    for error in
        [sent.unwrap_err(), zero.recv(&ctx, 1, Tag(0), &spec()).unwrap_err(), zero.barrier().unwrap_err()]
    {
        assert_eq!(error.to_string(), "rank 0 stopped because of rank 1: enough");
    }
}

#[test]
fn a_panic_outside_run_ranks_poisons_through_the_drop() {
    let mut world = LocalCommunicator::world(2, LIMIT);
    let one = world.remove(1);
    let zero = world.remove(0);
    let both = std::sync::Arc::new(Barrier::new(2));
    let split = both.clone();
    let thread = std::thread::spawn(move || {
        let _held = one.split(7, 0);
        split.wait();
        panic!("on purpose");
    });
    zero.split(8, 0).unwrap();
    both.wait();
    let began = Instant::now();
    let error = zero.barrier().unwrap_err();
    assert!(
        matches!(&error, CommError::Poisoned { by: 1, reason, .. } if reason == "it panicked"),
        "{error}"
    );
    assert!(thread.join().is_err() && began.elapsed() < LIMIT / 4);
}

#[test]
fn whoever_never_comes_is_named_after_the_limit() {
    let limit = Duration::from_millis(60);
    for (name, wait) in WAITS {
        let mut world = LocalCommunicator::world(3, limit);
        let ctx = Context::cpu(0, 1).unwrap();
        for tag in [5, 9] {
            let tensor = Tensor::zeros(&ctx, &[1], DType::F32).unwrap();
            world[1].send(&ctx, tensor, 0, Tag(tag)).unwrap();
        }
        let began = Instant::now();
        let error = wait(&world[0], &ctx).unwrap_err();
        let waited = began.elapsed();
        assert!(waited >= limit && waited < limit + Duration::from_secs(5), "{name}: {waited:?}");
        let text = error.to_string();
        assert!(matches!(error, CommError::Timeout { rank: 0, seconds: 0.06, .. }), "{name}: {text}");
        let hint = match *name {
            "recv" => {
                "a message from rank 1 under tag 0 (arrived from it under other tags: {5, 9})".to_owned()
            }
            call => format!("ranks [1, 2] to join {call}"),
        };
        assert!(text.contains(&hint), "{name}: {text}");
        world.clear();
    }
}

/// The limit is that of a call, not of each peer in turn.
#[test]
fn late_peers_do_not_add_up() {
    let limit = Duration::from_millis(300);
    let began = Instant::now();
    let errors = Mutex::new(Vec::new());
    let outcome = run_ranks(4, limit, |comm| {
        // Each comes within the limit of the one before it, and the last one not within that of the first.
        std::thread::sleep(limit * 2 / 3 * comm.rank() as u32);
        comm.barrier().inspect_err(|error| errors.lock().unwrap().push(error.to_string()))
    });
    assert_eq!(outcome.unwrap_err().rank, 0);
    assert!(began.elapsed() < limit * 3);
}

#[test]
fn different_collectives_are_told_apart() {
    let error = run_ranks(2, LIMIT, |comm| {
        let ctx = Context::cpu(comm.rank(), 1)?;
        let mut x = Tensor::zeros(&ctx, &[3 + comm.rank()], DType::F32)?;
        comm.all_reduce(&ctx, &mut x, Reduce::Sum)
    });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("all_reduce (sum) of f32 [3]") && text.contains("f32 [4]"), "{text}");
    let error = run_ranks(2, LIMIT, |comm| {
        let ctx = Context::cpu(comm.rank(), 1)?;
        match comm.rank() {
            0 => comm.barrier(),
            _ => comm.broadcast(&ctx, &mut Tensor::zeros(&ctx, &[3], DType::F32)?, 0),
        }
    });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("barrier") && text.contains("broadcast from rank 0 of f32 [3]"), "{text}");
}

#[test]
fn a_message_that_nobody_receives_is_an_error_of_its_receiver() {
    let error = run_ranks(3, LIMIT, |comm| {
        let ctx = Context::cpu(comm.rank(), 1)?;
        if comm.rank() == 0 {
            comm.send(&ctx, Tensor::zeros(&ctx, &[3], DType::F32)?, 2, Tag(4))?;
        }
        comm.barrier()
    });
    assert_eq!(error.unwrap_err().to_string(), "rank 2: ended without receiving tag 4 from rank 0");
}
