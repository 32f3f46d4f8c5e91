//! The suite over TCP, between threads that each have an engine of their own, and what only this transport can show.

mod bits;
mod suite;
mod tcp_world;
mod waits;

use bigmac_comm::{
    CommError, Communicator, EngineError, ProcessCommunicator, Reduce, Tag, TcpEngine, run_ranks,
};
use bigmac_runtime::{Context, DType, Error, Spec, Tensor};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};
use tcp_world::{TOKEN, tcp_ranks};
use waits::{WAITS, Wait, spec};

const LIMIT: Duration = Duration::from_secs(60);

/// Sizes of worlds worth trying.
const SIZES: [usize; 5] = [1, 2, 3, 4, 7];

/// The results of ranks that neither panicked nor failed.
fn all<R>(outcomes: Vec<std::thread::Result<Result<R, CommError>>>) -> Vec<R> {
    outcomes.into_iter().map(|outcome| outcome.expect("a rank panicked").expect("a rank failed")).collect()
}

#[test]
fn suite_over_tcp() {
    for size in SIZES {
        let large = if size <= 2 { suite::LARGE } else { &[] };
        all(tcp_ranks(size, LIMIT, |ctx, comm| {
            for (name, case) in suite::CASES.iter().chain(large) {
                suite::run(name, *case, ctx, comm);
            }
            Ok(())
        }));
    }
}

#[test]
fn collectives_give_the_bits_of_threads() {
    for size in [2, 3, 5] {
        let local = run_ranks(size, LIMIT, |comm| bits::bits(&Context::cpu(comm.rank(), 1)?, &comm)).unwrap();
        let tcp = all(tcp_ranks(size, LIMIT, |ctx, comm| bits::bits(ctx, comm)));
        assert!(local == tcp, "{size} ranks");
    }
}

/// Ranks on a GPU, replayed: tensors travel through the CPU's memory, and come back to the device.
#[test]
fn ranks_on_a_gpu_give_the_same_bits() {
    let gpu = bigmac_gpu::Gpu::replay(bigmac_gpu::Order::Forward).unwrap();
    let run = |gpu: Option<&bigmac_gpu::Gpu>| {
        all(tcp_ranks(3, LIMIT, |cpu, comm| {
            let ctx = &Context::on(comm.rank(), 1, gpu)?;
            let make = || {
                let values: Vec<f32> = (0..1001).map(|i| (i * 3 + comm.rank()) as f32 * 0.3).collect();
                Tensor::from_slice(ctx, &values, &[1001])
            };
            let mut got = Vec::new();
            let mut keep = |tensor: &Tensor| {
                assert_eq!(tensor.device(), ctx.device());
                got.extend_from_slice(tensor.to_cpu(ctx)?.as_bytes()?);
                Ok::<_, CommError>(())
            };
            let mut x = make()?;
            comm.all_reduce(ctx, &mut x, Reduce::Sum)?;
            keep(&x)?;
            keep(&comm.reduce_scatter(ctx, &x, Reduce::Sum)?)?;
            keep(&comm.all_gather(ctx, &x)?)?;
            comm.broadcast(ctx, &mut x, 2)?;
            keep(&x)?;
            let (next, before) = ((comm.rank() + 1) % 3, (comm.rank() + 2) % 3);
            comm.send(ctx, make()?, next, Tag(7))?;
            keep(&comm.recv(ctx, before, Tag(7), &Spec::new(&[1001], DType::F32))?)?;
            let tensors = (0..3).map(|_| make()).collect::<Result<_, _>>()?;
            for x in comm.all_to_all_v(ctx, tensors, &vec![Spec::new(&[1001], DType::F32); 3])? {
                keep(&x)?;
            }
            drop(x);
            comm.barrier()?;
            for scope in ctx.memory().all_scopes().iter().chain(&cpu.memory().all_scopes()) {
                assert_eq!(scope.current(), 0, "{}", scope.name());
            }
            comm.barrier()?;
            Ok(got)
        }))
    };
    assert!(run(None) == run(Some(&gpu)));
}

/// Three ranks of which rank 1 does `fault` a little later than the others have begun to wait; what these got.
fn with_fault(
    wait: Wait,
    fault: impl Fn(&ProcessCommunicator) -> Result<(), CommError> + Sync,
) -> Vec<CommError> {
    let errors = Mutex::new(Vec::new());
    let (both, started) = (Barrier::new(2), Barrier::new(3));
    let began = Instant::now();
    tcp_ranks(3, LIMIT, |ctx, comm| {
        started.wait();
        if comm.rank() == 1 {
            std::thread::sleep(Duration::from_millis(10));
            return fault(comm);
        }
        errors.lock().unwrap().push(wait(comm, ctx).unwrap_err());
        both.wait();
        Ok(())
    });
    assert!(began.elapsed() < LIMIT / 2, "somebody waited for the time limit");
    errors.into_inner().unwrap()
}

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
fn whatever_ends_a_rank_is_told_to_its_peers() {
    for (name, wait) in WAITS {
        let errors =
            with_fault(*wait, |_| Err(CommError::Runtime(Error::argument("load", "the disk is full"))));
        assert_poisoned(name, &errors, "the disk is full");
        let errors = with_fault(*wait, |comm| panic!("index {} out of range", comm.rank() + 6));
        assert_poisoned(name, &errors, "panicked");
        let errors = with_fault(*wait, |comm| {
            comm.abort("the loss is not finite");
            comm.abort("a later reason");
            Ok(())
        });
        assert_poisoned(name, &errors, "the loss is not finite");
        let errors = with_fault(*wait, |_| Ok(()));
        assert_poisoned(name, &errors, "it ended");
    }
}

#[test]
fn the_first_cause_is_told_and_not_what_followed() {
    // Rank 3 fails; 2 waits for 3, 1 for 2, 0 for 1, and each passes its error on.
    for _ in 0..10 {
        let outcomes = tcp_ranks(4, LIMIT, |ctx, comm| {
            if comm.rank() == 3 {
                return Err(CommError::Runtime(Error::argument("step", "first cause")));
            }
            comm.recv(ctx, comm.rank() + 1, Tag(0), &spec()).map(drop)
        });
        for (rank, outcome) in outcomes.into_iter().enumerate().take(3) {
            let error = outcome.unwrap().unwrap_err();
            assert!(
                matches!(&error, CommError::Poisoned { rank: r, by: 3, reason } if *r == rank && reason.contains("first cause")),
                "{error}"
            );
        }
    }
}

#[test]
fn word_from_elsewhere_ends_waits() {
    for (name, wait) in WAITS {
        let done = Barrier::new(2);
        all(tcp_ranks(2, LIMIT, |ctx, comm| {
            if comm.rank() == 1 {
                done.wait();
                return Ok(());
            }
            let failer = comm.failure_handle();
            let told = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                failer.fail(1, "no sign of life for 30 s");
                failer.fail(1, "later");
            });
            // The waits are for worlds of three.
            let error = match *name {
                "all_to_all_v" => comm.barrier(),
                _ => wait(comm, ctx),
            }
            .unwrap_err();
            assert_eq!(
                error.to_string(),
                "rank 0 stopped because of rank 1: no sign of life for 30 s",
                "{name}"
            );
            let error = comm.send(ctx, Tensor::zeros(ctx, &[1], DType::F32)?, 1, Tag(0)).unwrap_err();
            assert!(error.to_string().contains("no sign of life"), "{error}");
            told.join().unwrap();
            done.wait();
            Ok(())
        }));
    }
}

#[test]
fn what_was_sent_before_the_end_still_arrives() {
    let outcomes = tcp_ranks(2, LIMIT, |ctx, comm| {
        const LEN: usize = 3 << 20;
        if comm.rank() == 1 {
            return comm.send(ctx, Tensor::zeros(ctx, &[LEN], DType::F32)?, 0, Tag(0));
        }
        std::thread::sleep(Duration::from_millis(100));
        comm.recv(ctx, 1, Tag(0), &Spec::new(&[LEN], DType::F32))?;
        let error = comm.recv(ctx, 1, Tag(0), &spec()).unwrap_err();
        assert!(matches!(error, CommError::Poisoned { rank: 0, by: 1, .. }), "{error}");
        let error = comm.send(ctx, Tensor::zeros(ctx, &[3], DType::F32)?, 1, Tag(0)).unwrap_err();
        assert!(error.to_string().contains("it ended before it received everything"), "{error}");
        assert_eq!(ctx.memory().scope("messages").current(), 0);
        Ok(())
    });
    all(outcomes);
}

#[test]
fn whoever_never_comes_is_named_after_the_limit() {
    let errors = Mutex::new(Vec::new());
    let limit = Duration::from_secs(2);
    let done = Barrier::new(2);
    tcp_ranks(2, limit, |ctx, comm| {
        if comm.rank() == 0 {
            let began = Instant::now();
            errors.lock().unwrap().push(comm.recv(ctx, 1, Tag(3), &spec()).unwrap_err().to_string());
            assert!(began.elapsed() >= limit);
            errors.lock().unwrap().push(comm.barrier().unwrap_err().to_string());
        } else {
            comm.send(ctx, Tensor::zeros(ctx, &[1], DType::F32)?, 0, Tag(5))?;
        }
        done.wait();
        Ok(())
    });
    let errors = errors.into_inner().unwrap();
    assert!(
        errors[0].contains(
            "rank 0 waited 2 s for a message from rank 1 under tag 3 (arrived from it under other tags: {5})"
        ),
        "{errors:?}"
    );
    assert!(errors[1].contains("for rank 1 to join barrier"), "{errors:?}");
}

/// The rank's own budget for messages is kept when they arrive: an error for the receive, and the rest still comes.
#[test]
fn no_room_where_messages_arrive() {
    all(tcp_ranks(2, LIMIT, |ctx, comm| {
        ctx.memory().scope("messages").set_budget((comm.rank() == 0).then_some(4000));
        comm.barrier()?;
        if comm.rank() == 1 {
            for len in [10, 200_000, 1001, 20] {
                comm.send(ctx, Tensor::zeros(ctx, &[len], DType::F32)?, 0, Tag(0))?;
            }
        } else {
            for len in [10, 200_000, 1001, 20] {
                let got = comm.recv(ctx, 1, Tag(0), &Spec::new(&[len], DType::F32));
                if len < 1000 {
                    got?;
                } else {
                    let error = got.unwrap_err();
                    assert!(
                        matches!(&error, CommError::Runtime(Error::Budget { allowed: 4000, .. })),
                        "{error}"
                    );
                }
            }
        }
        comm.barrier()
    }));
}

/// Different calls of the ranks of a group are told apart as between threads.
#[test]
fn different_collectives_are_told_apart() {
    let outcomes = tcp_ranks(2, LIMIT, |ctx, comm| {
        let mut x = Tensor::zeros(ctx, &[3 + comm.rank()], DType::F32)?;
        comm.all_reduce(ctx, &mut x, Reduce::Sum)
    });
    let errors: Vec<String> = outcomes.into_iter().map(|o| o.unwrap().unwrap_err().to_string()).collect();
    assert!(
        errors.iter().any(|text| text.contains("all_reduce (sum) of f32 [3]") && text.contains("f32 [4]")),
        "{errors:?}"
    );
}

/// Rank 0 of a world of two, whose rank 1 is this test.
fn alone() -> (Context, ProcessCommunicator, SocketAddr) {
    let ctx = Context::cpu(0, 1).unwrap();
    let listening = TcpEngine::listen("127.0.0.1").unwrap();
    // No one listens at the other's address once this is dropped.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let own = listening.address();
    let comm = listening.connect(&ctx, 0, vec![own, other], TOKEN, Duration::from_secs(10)).unwrap();
    (ctx, comm, own)
}

fn hello(token: &[u8], rank: u32) -> Vec<u8> {
    [&b"BIGMACT1"[..], &Sha256::digest(token)[..], &rank.to_le_bytes()].concat()
}

/// What a connection that began with `bytes` reads until it is closed.
fn is_dropped(address: SocketAddr, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(bytes).unwrap();
    !matches!(stream.read(&mut [0]), Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
}

#[test]
fn strangers_are_dropped_and_harm_nobody() {
    let (ctx, comm, address) = alone();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: somewhere\r\nAccept: text/html, everything else\r\n\r\n".to_vec(),
        hello(b"another token", 1),
        hello(TOKEN, 0),
        hello(TOKEN, 2),
        hello(TOKEN, u32::MAX),
    ] {
        assert!(is_dropped(address, &bytes));
    }
    // One that says nothing and goes.
    drop(TcpStream::connect(address).unwrap());
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(&hello(TOKEN, 1)).unwrap();
    // u32 length, kind 0 (message), group 0, tag 9, body 3 (values), dtype 1 (f32), one dimension of 2, two values.
    let mut frame = vec![0; 4];
    frame.extend([0]);
    frame.extend(0_u64.to_le_bytes());
    frame.extend(9_u64.to_le_bytes());
    frame.extend([3, 1, 1]);
    frame.extend(2_u64.to_le_bytes());
    let length = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame.extend([1.5_f32, -2.0].map(f32::to_le_bytes).concat());
    // However it is cut on its way.
    for byte in &frame {
        peer.write_all(&[*byte]).unwrap();
    }
    let got = comm.recv(&ctx, 1, Tag(9), &Spec::new(&[2], DType::F32)).unwrap();
    assert_eq!(got.as_slice::<f32>().unwrap(), [1.5, -2.0]);
    // A second connection of the same rank is a stranger's.
    assert!(is_dropped(address, &hello(TOKEN, 1)));
}

#[test]
fn a_peer_that_sends_nonsense_is_named() {
    for (bytes, reason) in [
        (&[0xff_u8; 4][..], "its header is too long"),
        (&[1, 0, 0, 0, 77], "its kind is unknown"),
        (&[2, 0, 0, 0, 3, 0], "bytes left over"),
        (&[1, 0, 0, 0, 0], "cut off"),
    ] {
        let (ctx, comm, address) = alone();
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(&hello(TOKEN, 1)).unwrap();
        peer.write_all(bytes).unwrap();
        let error = comm.recv(&ctx, 1, Tag(0), &spec()).unwrap_err();
        assert!(
            matches!(&error, CommError::Poisoned { by: 1, reason: r, .. } if r.contains(reason)),
            "{error}"
        );
    }
}

#[test]
fn connections_that_break_are_a_failure_after_a_while() {
    // Cut off in the middle of a frame, or between frames.
    for bytes in [&[9_u8, 0, 0, 0, 0][..], &[]] {
        let (ctx, comm, address) = alone();
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(&hello(TOKEN, 1)).unwrap();
        peer.write_all(bytes).unwrap();
        drop(peer);
        let began = Instant::now();
        let error = comm.recv(&ctx, 1, Tag(0), &spec()).unwrap_err();
        assert!(began.elapsed() >= Duration::from_millis(900), "no one else had time to say why");
        assert!(error.to_string().contains("ended without a good-bye"), "{error}");
    }
    // A peer that no one listens for.
    let (ctx, comm, _) = alone();
    comm.send(&ctx, Tensor::zeros(&ctx, &[3], DType::F32).unwrap(), 1, Tag(0)).unwrap();
    let error = comm.barrier().unwrap_err();
    assert!(error.to_string().contains("rank 1: it cannot be reached at 127.0.0.1:"), "{error}");
    assert_eq!(ctx.memory().scope("messages").current(), 0);
}

/// A frame's kind and the rest of its header.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut header = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut header).unwrap();
    (header[0], header.split_off(1))
}

/// Rank 2 has no connection with rank 1, which is lost, and learns it from rank 0; and whoever ends because of it says
/// so first, else its end would be taken for the cause.
#[test]
fn a_lost_rank_is_told_to_those_who_cannot_see_it() {
    let ctx = Context::cpu(0, 1).unwrap();
    let listening = TcpEngine::listen("127.0.0.1").unwrap();
    let others: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let own = listening.address();
    let addresses =
        std::iter::once(own).chain(others.iter().map(|other| other.local_addr().unwrap())).collect();
    let comm = listening.connect(&ctx, 0, addresses, TOKEN, LIMIT).unwrap();
    let mut lost = TcpStream::connect(own).unwrap();
    lost.write_all(&hello(TOKEN, 1)).unwrap();
    drop(lost);
    others[1].set_nonblocking(true).unwrap();
    let began = Instant::now();
    let mut told = loop {
        match others[1].accept() {
            Ok((told, _)) => break told,
            Err(error) => assert!(began.elapsed() < LIMIT, "rank 2 was told nothing: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    told.set_nonblocking(false).unwrap();
    told.set_read_timeout(Some(LIMIT)).unwrap();
    let mut greeting = [0; 44];
    told.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting[..], hello(TOKEN, 0));
    let says_who = |(kind, rest): (u8, Vec<u8>)| {
        assert_eq!((kind, &rest[..8]), (2, &1_u64.to_le_bytes()[..]));
        assert!(String::from_utf8_lossy(&rest[12..]).contains("ended without a good-bye"), "{rest:?}");
    };
    says_who(read_frame(&mut told));
    drop(comm);
    says_who(read_frame(&mut told));
    assert_eq!(read_frame(&mut told), (3, Vec::new()));
}

#[test]
fn bad_arguments_are_sentences() {
    let ctx = Context::cpu(0, 1).unwrap();
    let listening = TcpEngine::listen("127.0.0.1").unwrap();
    let own = listening.address();
    let error = listening.connect(&ctx, 1, vec![own], TOKEN, LIMIT).unwrap_err();
    assert!(matches!(error, EngineError::NoSuchRank { rank: 1, size: 1 }), "{error}");
    let error = TcpEngine::listen("no such host.invalid").unwrap_err().to_string();
    assert!(error.contains("cannot listen on no such host.invalid"), "{error}");
}

/// Dropping the last communicator closes the port and ends the threads.
#[test]
fn nothing_is_left_after_the_end() {
    let (_ctx, comm, address) = alone();
    let group = comm.split(0, 0);
    assert!(group.is_err(), "rank 1 is not there");
    drop(comm);
    let began = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(began.elapsed() < LIMIT, "the port is still open");
        std::thread::sleep(Duration::from_millis(10));
    }
}
