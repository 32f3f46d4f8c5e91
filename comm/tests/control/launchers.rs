//! Launchers: told of the job's end, and heard about ranks that never join.

use super::proxy::Proxy;
use super::*;
use bigmac_comm::control::LauncherMember;
use std::time::Instant;

fn launcher(address: &str, rank: usize, world: usize, limits: Limits) -> LauncherMember {
    let hello = Hello { facts: Default::default(), ..hello(rank, world) };
    LauncherMember::start(address, hello, limits).unwrap()
}

/// What it learns, as soon as it does.
fn learns(launcher: &LauncherMember) -> String {
    let began = Instant::now();
    loop {
        if let Some(loss) = launcher.loss() {
            return loss.to_string();
        }
        assert!(began.elapsed() < LONG, "it learned nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_loss_is_told_to_launchers_and_an_orderly_end_is_none() {
    let (hub, mut members) = job(2, LIMITS);
    let launcher = launcher(&hub.address().to_string(), 0, 2, LIMITS);
    // Welcomed while the job runs.
    std::thread::sleep(2 * LIMITS.beat);
    assert!(launcher.loss().is_none());
    members.remove(1).fail("out of memory");
    assert_eq!(learns(&launcher), "lost rank 1 on host1: out of memory");

    let (hub, members) = job(2, LIMITS);
    let both = [0, 1].map(|rank| self::launcher(&hub.address().to_string(), rank, 2, LIMITS));
    std::thread::sleep(2 * LIMITS.beat);
    members.into_iter().for_each(Member::leave);
    assert!(hub.finish(LONG).is_none());
    std::thread::sleep(2 * LIMITS.beat);
    assert!(both.iter().all(|launcher| launcher.loss().is_none()));
}

#[test]
fn the_end_of_a_launcher_is_no_loss() {
    let (hub, members) = job(2, LIMITS);
    let launcher = launcher(&hub.address().to_string(), 0, 2, LIMITS);
    std::thread::sleep(2 * LIMITS.beat);
    drop(launcher);
    std::thread::sleep(2 * LIMITS.beat);
    assert!(hub.failure().is_none());
    members.into_iter().for_each(Member::leave);
}

#[test]
fn a_rank_that_ended_before_it_joined_is_not_waited_for() {
    for is_input in [false, true] {
        let hub = hub(3, LIMITS);
        let address = hub.address().to_string();
        let joined = {
            let address = address.clone();
            std::thread::spawn(move || join_all(&address, vec![hello(0, 3), hello(1, 3)], LIMITS))
        };
        let launcher = launcher(&address, 2, 3, LIMITS);
        launcher.gone(2, "it ended with exit code 1".into(), is_input);
        let began = Instant::now();
        launcher.end();
        for error in joined.join().unwrap().into_iter().map(Result::unwrap_err) {
            let wanted = if is_input {
                "rank 2 on host2: it ended with exit code 1, before it joined the job"
            } else {
                "lost rank 2 on host2: it ended with exit code 1, before it joined the job"
            };
            assert_eq!((error.to_string().as_str(), error.is_input()), (wanted, is_input));
        }
        assert!(began.elapsed() < LONG / 2);
    }
}

#[test]
fn what_is_said_of_ranks_that_have_joined_or_cannot_be_does_not_count() {
    let (hub, members) = job(2, LIMITS);
    let launcher = launcher(&hub.address().to_string(), 0, 2, LIMITS);
    for rank in [0, 1, 2, usize::MAX] {
        launcher.gone(rank, "it ended".into(), true);
    }
    launcher.end();
    assert!(hub.failure().is_none());
    members.into_iter().for_each(Member::leave);
    assert!(hub.finish(LONG).is_none());
}

#[test]
fn a_launcher_that_is_cut_off_or_unknown_learns_as_much() {
    let short = Limits { silence: Duration::from_millis(1500), ..LIMITS };
    let (hub, _members) = job(2, short);
    let proxy = Proxy::to(hub.address()).unwrap();
    let cut = launcher(&proxy.address().to_string(), 0, 2, short);
    std::thread::sleep(2 * LIMITS.beat);
    proxy.cut();
    assert!(learns(&cut).starts_with(&format!("control plane at {}: did not answer", proxy.address())));
    // Another token: what it says is not heard.
    let hub = self::hub(2, LIMITS);
    let other = Hello { token: Token::new("other", "in a test").unwrap(), ..hello(0, 2) };
    let stranger = LauncherMember::start(&hub.address().to_string(), other, LIMITS).unwrap();
    stranger.gone(1, "it ended".into(), true);
    stranger.end();
    assert!(hub.failure().is_none());
    let members = join_all(&hub.address().to_string(), vec![hello(0, 2), hello(1, 2)], LIMITS);
    assert!(members.iter().all(Result::is_ok));
}
