//! Coming together, gathering and leaving.

use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Instant;

#[test]
fn thirty_two_ranks_gather_in_rank_order_and_leave() {
    const WORLD: usize = 32;
    let (hub, members) = job(WORLD, LIMITS);
    for member in &members {
        let hosts: Vec<_> = member.peers().iter().map(|peer| (peer.rank, peer.host.clone())).collect();
        assert_eq!(hosts, (0..WORLD).map(|rank| (rank, format!("host{rank}"))).collect::<Vec<_>>());
    }
    std::thread::scope(|scope| {
        for (rank, member) in members.into_iter().enumerate() {
            scope.spawn(move || {
                // The later a rank, the more it has, from nothing on; who is early waits for no one's next one.
                for round in 0..5usize {
                    let part = |rank: usize| vec![(rank + round) as u8; rank * round * 100];
                    let all = member.gather(&format!("round {round}"), part(rank)).unwrap();
                    assert_eq!(all, (0..WORLD).map(part).collect::<Vec<_>>());
                }
                member.leave();
            });
        }
    });
    assert_eq!(hub.finish(LONG), None);
}

#[test]
fn large_parts_arrive_whole_and_larger_ones_are_refused() {
    let (_hub, members) = job(2, LIMITS);
    let large = |rank: usize| (0..16 << 20).map(|i: usize| (i * 31 + rank) as u8).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        for (rank, member) in members.iter().enumerate() {
            scope.spawn(move || {
                let all = member.gather("large", large(rank)).unwrap();
                assert!(all == [large(0), large(1)]);
                let error = member.gather("larger", vec![0; (16 << 20) + 1]).unwrap_err();
                assert!(error.to_string().contains("cannot gather 16777217 bytes as \"larger\""), "{error}");
                assert_eq!(member.gather("small", vec![1]).unwrap(), [[1], [1]]);
            });
        }
    });
}

#[test]
fn facts_that_are_too_long_are_said_at_once() {
    let hub = hub(1, LIMITS);
    let facts = [("data".to_owned(), "x".repeat(2 << 20))].into();
    let error = Member::join(&hub.address().to_string(), Hello { facts, ..hello(0, 1) }, LIMITS).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("as \"facts\": at most 1048576 bytes"), "{error}");
}

#[test]
fn members_wait_for_a_hub_that_comes_later() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = port.to_string();
    std::thread::scope(|scope| {
        let early = scope.spawn(|| join_all(&address, vec![hello(0, 2), hello(1, 2)], LIMITS));
        std::thread::sleep(Duration::from_millis(200));
        let _hub = Hub::bind(&address, Job { world: 2, restart: 0, token: token() }, LIMITS).unwrap();
        for member in early.join().unwrap() {
            member.unwrap().leave();
        }
    });
}

#[test]
fn a_place_where_nobody_listens_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let limits = Limits { join: Duration::from_millis(300), ..LIMITS };
    let error = Member::join(&address, hello(0, 1), limits).unwrap_err();
    assert!(error.is_loss() && !error.is_input());
    let said = error.to_string();
    assert!(said.starts_with(&format!("could not join the job at {address} within 0.3 s: ")), "{said}");
    assert!(said.contains("refused"), "{said}");
}

#[test]
fn ranks_that_do_not_come_are_named() {
    let limits = Limits { join: Duration::from_millis(500), ..LIMITS };
    let hub = hub(5, limits);
    let address = hub.address().to_string();
    for result in join_all(&address, vec![hello(1, 5), hello(3, 5)], LIMITS) {
        let error = result.unwrap_err();
        assert!(error.is_loss() && !error.is_input());
        let said = error.to_string();
        assert!(
            said.contains(&format!(
                "control plane at {address}: 2 of 5 ranks came within 0.5 s, missing: ranks 0, 2 and 4"
            )),
            "{said}"
        );
    }
    // Who comes too late is told the same.
    let late = Member::join(&address, hello(0, 5), LIMITS).unwrap_err();
    assert_eq!(late.to_string(), hub.failure().unwrap().to_string());
}

#[test]
fn a_taken_port_is_bad_input() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let bind =
        |address: &str| Hub::bind(address, Job { world: 1, restart: 0, token: token() }, LIMITS).unwrap_err();
    let error = bind(&address);
    assert!(error.is_input() && !error.is_loss());
    assert!(
        error.to_string().starts_with(&format!("cannot listen on {address}: the port is taken")),
        "{error}"
    );
    // RFC 5737: an address of no one.
    let elsewhere = bind("192.0.2.1:0");
    assert!(elsewhere.to_string().starts_with("cannot listen on 192.0.2.1:0: "), "{elsewhere}");
    assert!(bind("nothing").is_input());
    for world in [0, usize::MAX] {
        let job = Job { world, restart: 0, token: token() };
        let error = Hub::bind("127.0.0.1:0", job, LIMITS).unwrap_err();
        assert!(error.is_input() && error.to_string().contains("expected 1 to 65536"), "{error}");
    }
}

/// Answers one connection with these bytes.
fn server(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 12]);
        stream.write_all(&answer).unwrap();
        let _ = stream.read(&mut [0; 12]);
    });
    address
}

#[test]
fn other_servers_and_other_protocols_are_told_apart() {
    let address = server(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    let error = Member::join(&address, hello(0, 1), LIMITS).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("is not a BigMac control plane"), "{error}");
    let address = server([&b"BIGMACcp"[..], &77u32.to_le_bytes(), &[0; 32]].concat());
    let error = Member::join(&address, hello(0, 1), LIMITS).unwrap_err();
    assert!(error.is_input(), "{error}");
    assert!(
        error.to_string().contains(&format!("{address} speaks protocol 77, this rank speaks 2")),
        "{error}"
    );
}

#[test]
fn a_later_start_waits_for_its_own_hub_and_an_earlier_one_ends() {
    let old = hub(1, LIMITS);
    let port = old.address();
    let again = Hello { restart: 1, ..hello(0, 1) };
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| Member::join(&port.to_string(), again.clone(), LIMITS));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!joining.is_finished());
        drop(old);
        let job = Job { world: 1, restart: 1, token: token() };
        let new = Hub::bind(&port.to_string(), job, LIMITS).unwrap();
        let member = joining.join().unwrap().unwrap();
        let stale = Member::join(&port.to_string(), hello(0, 1), LIMITS).unwrap_err();
        assert!(stale.is_loss());
        assert!(
            stale
                .to_string()
                .contains("rank 0 on host0 belongs to restart 0 of the job, the control plane at"),
            "{stale}"
        );
        // The job goes on.
        assert_eq!(member.gather("after", vec![5]).unwrap(), [[5]]);
        member.leave();
        assert_eq!(new.finish(LONG), None);
    });
    // Where its own hub never comes, it says what it has met.
    let old = hub(1, LIMITS);
    let short = Limits { join: Duration::from_millis(200), ..LIMITS };
    let error = Member::join(&old.address().to_string(), again, short).unwrap_err();
    assert!(error.is_loss() && error.to_string().contains("belongs to restart 1"), "{error}");
}

#[test]
fn latecomers_do_not_disturb_a_job_that_runs() {
    let (hub, members) = job(2, LIMITS);
    let short = Limits { join: Duration::from_millis(200), ..LIMITS };
    let again = Hello { host: "elsewhere".into(), ..hello(1, 2) };
    let second = Member::join(&hub.address().to_string(), again, short).unwrap_err();
    assert!(second.to_string().contains("the job runs already, with rank 1 on host1 (pid "), "{second}");
    assert_eq!(hub.failure(), None);
    members.into_iter().for_each(Member::leave);
    assert_eq!(hub.finish(LONG), None);
}

#[test]
fn finish_ends_what_does_not_end_by_itself() {
    let (hub, members) = job(1, LIMITS);
    let begun = Instant::now();
    let loss = hub.finish(Duration::from_millis(100)).unwrap();
    assert!(begun.elapsed() < LONG / 2);
    assert_eq!(loss.rank, None);
    assert_eq!(members[0].gather("x", vec![]).unwrap_err().to_string(), loss.to_string());
}
