//! Ranks that fail or go, as threads: everybody is told once, with the cause.

use super::proxy::Proxy;
use super::*;
use bigmac_comm::control::{At, Loss};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// A short limit of silence, for those tests that wait for it.
const SHORT: Limits = Limits { silence: Duration::from_millis(1500), ..LIMITS };

fn news(member: &Member) -> Receiver<Loss> {
    let (tell, told) = channel();
    member.watch(move |loss| tell.send(loss.clone()).unwrap());
    told
}

fn only(told: &Receiver<Loss>) -> Loss {
    let loss = told.recv_timeout(LONG).unwrap();
    // The watcher is dropped once it was called.
    assert!(told.recv().is_err());
    loss
}

#[test]
fn a_failure_is_told_with_reason_and_position() {
    let (hub, mut members) = job(3, LIMITS);
    let told: Vec<_> = members.iter().map(news).collect();
    let failing = members.remove(1);
    failing.position().set(12, 34, format_args!("F llm.{} mb {}", 0, 3));
    failing.fail("out of memory");
    let at = At { step: 12, op: 34, text: "F llm.0 mb 3".into() };
    let expected =
        Loss { rank: Some(1), host: "host1".into(), position: Some(at), cause: "out of memory".into() };
    assert_eq!(only(&told[0]), expected);
    assert_eq!(only(&told[2]), expected);
    assert_eq!(
        expected.to_string(),
        "lost rank 1 on host1, last seen at step 12, op 34 (F llm.0 mb 3): out of memory"
    );
    assert_eq!(hub.failure(), Some(expected.clone()));
    // Its own failure is no news to it, also when it goes.
    drop(failing);
    assert!(told[1].recv().is_err());
    // From now on everybody has it.
    let late = news(&members[0]);
    assert_eq!(only(&late), expected);
    let error = members[1].gather("x", vec![]).unwrap_err();
    assert!(error.is_loss() && error.to_string() == expected.to_string(), "{error}");
}

#[test]
fn a_dropped_member_is_a_loss_with_its_last_beat_and_a_farewell_is_none() {
    let (hub, mut members) = job(4, LIMITS);
    let told: Vec<_> = members.iter().map(news).collect();
    members.remove(3).leave();
    assert!(told[0].recv_timeout(4 * LIMITS.beat).is_err());
    let gone = members.remove(1);
    gone.position().set(5, 6, "op");
    // A few beats.
    std::thread::sleep(10 * LIMITS.beat);
    drop(gone);
    for one in [&told[0], &told[2]] {
        let loss = only(one);
        assert_eq!(loss.rank, Some(1));
        assert!(loss.cause.starts_with("its connection closed without a farewell"), "{loss}");
        assert_eq!(loss.position, Some(At { step: 5, op: 6, text: "op".into() }));
    }
    assert_eq!(hub.failure().unwrap().rank, Some(1));
    assert!(told[3].recv().is_err(), "a rank that left is told nothing");
}

#[test]
fn a_panic_is_told_as_one() {
    let (_hub, mut members) = job(2, LIMITS);
    let told = news(&members[0]);
    let panicking = members.remove(1);
    let thread = std::thread::spawn(move || {
        let _held = panicking;
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert_eq!(only(&told).cause, "it panicked");
}

#[test]
fn a_gather_ends_when_a_rank_is_lost_or_leaves() {
    for leaves in [false, true] {
        let (_hub, mut members) = job(2, LIMITS);
        let going = members.remove(1);
        let member = &members[0];
        std::thread::scope(|scope| {
            let gathering = scope.spawn(move || member.gather("addresses", vec![]));
            std::thread::sleep(Duration::from_millis(50));
            if leaves {
                going.leave()
            } else {
                drop(going)
            }
            let error = gathering.join().unwrap().unwrap_err();
            assert!(error.is_loss());
            let said = error.to_string();
            let reason = "lost rank 1 on host1: it left the job while other ranks gather \"addresses\"";
            assert_eq!(said == reason, leaves, "{said}");
        });
    }
}

#[test]
fn a_gather_after_a_rank_has_left_ends_too() {
    let (_hub, mut members) = job(2, LIMITS);
    members.remove(1).leave();
    let error = members[0].gather("addresses", vec![]).unwrap_err();
    assert!(
        error.to_string().contains("rank 1 on host1: it left the job while other ranks gather"),
        "{error}"
    );
}

#[test]
fn gathers_that_differ_are_named() {
    let (_hub, members) = job(2, LIMITS);
    std::thread::scope(|scope| {
        let threads = [(0, "addresses"), (1, "digests")].map(|(rank, what): (usize, _)| {
            let member = &members[rank];
            scope.spawn(move || member.gather(what, vec![]).unwrap_err().to_string())
        });
        let said = threads.map(|thread| thread.join().unwrap());
        assert_eq!(said[0], said[1]);
        assert!(
            said[0].contains("where rank") && said[0].contains("digests") && said[0].contains("addresses")
        );
    });
}

#[test]
fn the_end_of_the_hub_is_a_loss_for_all() {
    let (hub, members) = job(3, LIMITS);
    let told: Vec<_> = members.iter().map(news).collect();
    let address = hub.address().to_string();
    drop(hub);
    for one in &told {
        let loss = only(one);
        assert_eq!((loss.rank, loss.host.as_str()), (None, address.as_str()));
        assert_eq!(loss.cause, "it was closed before all ranks had left");
    }
}

#[test]
fn members_that_are_coming_are_told_as_well() {
    let hub = hub(3, LIMITS);
    let address = hub.address().to_string();
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| Member::join(&address, hello(0, 3), LIMITS));
        std::thread::sleep(Duration::from_millis(200));
        drop(hub);
        assert!(joining.join().unwrap().unwrap_err().is_loss());
    });
}

#[test]
fn a_cut_connection_is_noticed_on_both_sides() {
    let hub = hub(3, SHORT);
    let proxy = Proxy::to(hub.address()).unwrap();
    let address = |rank| if rank == 2 { proxy.address() } else { hub.address() };
    let threads = [0, 1, 2].map(|rank| {
        let address = address(rank).to_string();
        std::thread::spawn(move || Member::join(&address, hello(rank, 3), SHORT).unwrap())
    });
    let members = threads.map(|thread| thread.join().unwrap());
    let told = members.each_ref().map(news);
    // Longer than the limit: beats keep it.
    assert!(told[0].recv_timeout(2 * SHORT.silence).is_err());
    proxy.cut();
    let cut = Instant::now();
    let losses = told.each_ref().map(only);
    eprintln!("all know of a cut connection after {:?}, the limit is {:?}", cut.elapsed(), SHORT.silence);
    assert!(cut.elapsed() >= SHORT.silence / 2 && cut.elapsed() < LONG / 2);
    for loss in &losses[..2] {
        assert_eq!(loss.rank, Some(2));
        assert!(loss.cause.starts_with("did not answer for 1.5 s"), "{loss}");
    }
    assert_eq!((losses[2].rank, &losses[2].host), (None, &proxy.address().to_string()));
    assert!(losses[2].cause.starts_with("did not answer for 1.5 s"), "{}", losses[2]);
}
