//! Ranks and the hub as real processes: killed, and stopped.

use super::*;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// Tells a process of these tests what it is: RANK WORLD ADDRESS, or hub WORLD ADDRESS.
const ROLE: &str = "CONTROL_TEST_ROLE";
/// Enough for a busy machine to answer in time.
const SILENCE: Duration = Duration::from_secs(3);
const LIMITS: Limits = Limits { silence: SILENCE, beat: Duration::from_millis(500), join: LONG };
/// In these processes everything that is said begins with this: the test harness writes to the same stream.
const MARK: char = '@';

/// A process of these tests. It is killed when it is dropped.
struct Process {
    child: Child,
    said: Receiver<(Instant, String)>,
}

impl Process {
    fn start(role: &str) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::role", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, said) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once(MARK) {
                    let _ = tell.send((Instant::now(), said.to_owned()));
                }
            }
        });
        Process { child, said }
    }

    fn next(&self) -> (Instant, String) {
        self.said.recv_timeout(LONG).expect("said nothing")
    }

    fn signal(&self, signal: i32) {
        // SAFETY: it sends a signal to a child of this process that was not waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the processes run; nothing in the tests' own process.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<_> = role.split(' ').collect();
    let world = words[1].parse().unwrap();
    if words[0] == "hub" {
        let _hub = Hub::bind(words[2], Job { world, restart: 0, token: token() }, LIMITS).unwrap();
        println!("{MARK}listening");
        std::thread::sleep(LONG);
        return;
    }
    let rank = words[0].parse().unwrap();
    let (tell, told) = channel();
    let member = match Member::join(words[2], hello(rank, world), LIMITS) {
        Ok(member) => member,
        Err(error) => return println!("{MARK}{error}"),
    };
    member.position().set(3, rank, "op");
    member.watch(move |loss| {
        let _ = tell.send(loss.to_string());
    });
    println!("{MARK}joined");
    println!("{MARK}{}", told.recv_timeout(LONG).unwrap());
}

fn ranks(range: std::ops::Range<usize>, world: usize, address: &str) -> Vec<Process> {
    range.map(|rank| Process::start(&format!("{rank} {world} {address}"))).collect()
}

/// Four ranks that have joined, and time for a few beats.
fn joined(address: &str) -> Vec<Process> {
    let processes = ranks(0..4, 4, address);
    for process in &processes {
        assert_eq!(process.next().1, "joined");
    }
    std::thread::sleep(3 * LIMITS.beat);
    processes
}

/// All survivors have said that they lost rank 2, and how; how long the last one took.
fn assert_told(survivors: &[Process], from: Instant, cause: &str) -> Duration {
    let told = survivors.iter().map(|process| {
        let (when, said) = process.next();
        assert!(said.starts_with("lost rank 2 on host2") && said.contains(cause), "{said}");
        assert!(said.contains("last seen at step 3, op 2 (op)"), "{said}");
        when - from
    });
    told.max().unwrap()
}

#[test]
fn a_killed_rank_is_known_at_once() {
    let hub = hub(4, LIMITS);
    let mut processes = joined(&hub.address().to_string());
    let victim = processes.remove(2);
    let from = Instant::now();
    victim.signal(libc::SIGKILL);
    let took = assert_told(&processes, from, "its connection closed without a farewell");
    eprintln!("all know of a killed rank after {took:?}");
    // Without waiting for any silence.
    assert!(took < SILENCE / 2, "{took:?}");
}

#[test]
fn a_stopped_rank_is_known_after_the_limit() {
    let hub = hub(4, LIMITS);
    let mut processes = joined(&hub.address().to_string());
    let victim = processes.remove(2);
    let from = Instant::now();
    victim.signal(libc::SIGSTOP);
    let took = assert_told(&processes, from, "did not answer for 3 s");
    eprintln!("all know of a stopped rank after {took:?}, the limit is {SILENCE:?}");
    assert!(took > SILENCE / 2 && took < LONG / 2, "{took:?}");
    // Once it goes on it learns of it too.
    victim.signal(libc::SIGCONT);
    assert!(victim.next().1.contains("did not answer for 3 s"));
}

#[test]
fn a_rank_that_is_killed_while_others_are_awaited_is_known() {
    let hub = hub(4, Limits { join: LONG / 3, ..LIMITS });
    let address = hub.address().to_string();
    let mut processes = ranks(0..3, 4, &address);
    // No one says that it waits: give them time to come.
    std::thread::sleep(Duration::from_secs(2));
    processes.remove(2).signal(libc::SIGKILL);
    for process in &processes {
        let said = process.next().1;
        assert!(said.contains("lost rank 2") || said.contains("control plane"), "{said}");
    }
}

/// A port that was free a moment ago.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_killed_hub_is_known_at_once_and_a_stopped_one_after_the_limit() {
    for (signal, cause) in
        [(libc::SIGKILL, "its connection closed"), (libc::SIGSTOP, "did not answer for 3 s")]
    {
        let address = free_port();
        let hub = Process::start(&format!("hub 4 {address}"));
        assert_eq!(hub.next().1, "listening");
        let processes = joined(&address);
        let from = Instant::now();
        hub.signal(signal);
        for process in &processes {
            let (when, said) = process.next();
            assert!(said.starts_with(&format!("control plane at {address}: {cause}")), "{said}");
            let took = when - from;
            eprintln!("a rank knows of a hub with signal {signal} after {took:?}");
            assert_eq!(took > SILENCE / 2, signal == libc::SIGSTOP, "{took:?}");
        }
    }
}
