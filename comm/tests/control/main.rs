//! The control plane: ranks as threads on loopback, and as processes where death matters.

mod disagree;
mod join;
mod launchers;
mod losses;
mod processes;
#[path = "../support/proxy.rs"]
mod proxy;
mod strangers;

use bigmac_comm::control::{ControlError, Hello, Hub, Job, Limits, Member, Token};
use std::sync::Once;
use std::time::Duration;

/// Far longer than anything here takes: who waits that long has not been told.
const LONG: Duration = Duration::from_secs(60);

/// Limits that nothing reaches.
const LIMITS: Limits = Limits { join: LONG, beat: Duration::from_millis(100), silence: LONG };

fn token() -> Token {
    Token::new("sesame", "in a test").unwrap()
}

/// Ends this process, loudly, where a test of it hangs.
fn guard() {
    static GUARD: Once = Once::new();
    GUARD.call_once(|| {
        std::thread::spawn(|| {
            std::thread::sleep(5 * LONG);
            eprintln!("the tests of the control plane hang");
            std::process::abort();
        });
    });
}

fn hub(world: usize, limits: Limits) -> Hub {
    guard();
    Hub::bind("127.0.0.1:0", Job { world, restart: 0, token: token() }, limits).unwrap()
}

fn hello(rank: usize, world: usize) -> Hello {
    Hello {
        rank,
        world,
        restart: 0,
        host: format!("host{rank}"),
        pid: std::process::id(),
        version: "1".into(),
        token: token(),
        facts: [("seed".to_owned(), "7".to_owned())].into(),
    }
}

/// Joins every hello on a thread of its own; what came of it, in their order.
fn join_all(address: &str, hellos: Vec<Hello>, limits: Limits) -> Vec<Result<Member, ControlError>> {
    let threads: Vec<_> = hellos
        .into_iter()
        .map(|hello| {
            let address = address.to_owned();
            std::thread::spawn(move || Member::join(&address, hello, limits))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// A whole job of threads.
fn job(world: usize, limits: Limits) -> (Hub, Vec<Member>) {
    let hub = hub(world, limits);
    let hellos = (0..world).map(|rank| hello(rank, world)).collect();
    let members = join_all(&hub.address().to_string(), hellos, limits);
    (hub, members.into_iter().map(Result::unwrap).collect())
}
