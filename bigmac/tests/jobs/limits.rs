//! How soon a loss is known, in every phase of a run: a rank that is killed within a second, one that is stopped or cut off
//! within a second of the limit that was asked for.

use crate::alone::alone;
use crate::proxy::Proxy;
use crate::ranks::{SOON, free_port, is_free, kill, random, rank, ranks};
use crate::work::{Work, wait_until};
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long a rank may be silent.
const LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Stop,
    /// From the control plane: the network forwards nothing, and closes nothing.
    CutOff,
}

impl Fault {
    /// How long it may take until all know.
    fn allowed(self) -> Duration {
        const MORE: Duration = Duration::from_secs(1);
        match self {
            Fault::Kill => MORE,
            Fault::Stop | Fault::CutOff => LIMIT + MORE,
        }
    }
}

/// A process, and the lines that it writes to standard error, with their times.
struct Said {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl Said {
    fn of(mut child: Child) -> Said {
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = tell.send((Instant::now(), line));
            }
        });
        Said { child, lines }
    }

    /// Waits for its end, and for what it wrote; when it ended.
    fn end(mut self) -> (Instant, Vec<(Instant, String)>) {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if began.elapsed() > SOON {
                self.child.kill().unwrap();
                panic!("it hangs, and said {:?}", self.lines.iter().collect::<Vec<_>>());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        (Instant::now(), self.lines.iter().collect())
    }
}

/// The times after the fault at which each rank that lives said why it stopped, and what it said.
struct Known(Vec<(usize, Duration, String)>);

impl Known {
    /// One line of each of these ranks, among all lines.
    fn of(ranks: &[usize], fault: Instant, lines: &[(Instant, String)]) -> Known {
        let known = ranks.iter().map(|rank| {
            let start = format!("[r{rank}] error: ");
            let mut own = lines.iter().filter(|(_, line)| line.starts_with(&start));
            let (at, line) = own.next().unwrap_or_else(|| panic!("rank {rank} said nothing: {lines:?}"));
            assert!(own.next().is_none(), "rank {rank} said more than one line: {lines:?}");
            (*rank, at.saturating_duration_since(fault), line.clone())
        });
        Known(known.collect())
    }

    fn check(&self, fault: Fault) {
        for (rank, after, line) in &self.0 {
            assert!(*after <= fault.allowed(), "{fault:?}: rank {rank} knew after {after:?}: {line}");
        }
    }

    /// Whether a rank was there when it learned of the loss.
    fn was_in(&self, phase: Phase) -> bool {
        self.0.iter().any(|(_, _, line)| {
            let own = line.split(": lost ").next().unwrap_or_default();
            let is = |text: &str| own.contains(&format!("({text})"));
            match phase {
                Phase::Op => own.contains(", op ") && !is("reduction") && !is("checkpoint"),
                Phase::Reduction => is("reduction"),
                Phase::Checkpoint => is("checkpoint"),
            }
        })
    }

    fn longest(&self) -> Duration {
        self.0.iter().map(|(_, after, _)| *after).max().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Op,
    Reduction,
    Checkpoint,
}

impl Phase {
    /// A run in which a rank is mostly there when the other one is lost, and that other one.
    fn run(self) -> (&'static str, usize) {
        match self {
            Phase::Op => ("--pp 2 --set model.llm.layers=4", 1),
            // The other one computes for longer than the sum takes.
            Phase::Reduction => ("--dp 2 --pp 1 --set model.llm.layers=4", 1),
            // Rank 0 writes the most, and is waited for.
            Phase::Checkpoint => ("--pp 2 --set output.checkpoint_every=1 --set model.llm.mlp=4096", 0),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A run of two ranks with a fault in the middle of it.
fn disturbed(work: &Work, fault: Fault, phase: Phase, seed: &mut u64) -> Known {
    let _ = fs::remove_dir_all(work.path("run"));
    let (flags, lost) = phase.run();
    let train = format!("train tiny.toml --steps 100000 {flags} --out run");
    let mut nodes = Vec::new();
    let mut proxy = None;
    if let Fault::CutOff = fault {
        let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let between = proxy.insert(Proxy::to(port).unwrap()).address();
        for (node, master) in [(0, port), (1, between)] {
            let launch = format!(
                "launch -n 1 --nnodes 2 --node-rank {node} --master {master} --token-file token --peer-timeout 1s"
            );
            nodes.push(work.command(&format!("{launch} -- {train}")).spawn().unwrap());
        }
    } else {
        nodes.push(work.command(&format!("launch -n 2 --peer-timeout 1s -- {train}")).spawn().unwrap());
    }
    let metrics = work.path("run/metrics.jsonl");
    wait_until(&mut nodes[0], || fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 1));
    let found = ranks(&nodes[0]);
    let nodes: Vec<Said> = nodes.into_iter().map(Said::of).collect();
    std::thread::sleep(Duration::from_millis(random(seed) % 40));
    let at = Instant::now();
    match &proxy {
        Some(proxy) => proxy.cut(),
        None if matches!(fault, Fault::Stop) => kill(found[&lost], libc::SIGSTOP),
        None => kill(found[&lost], libc::SIGKILL),
    }
    let lines: Vec<_> = nodes.into_iter().flat_map(|node| node.end().1).collect();
    let survivors: Vec<usize> = (0..2).filter(|rank| proxy.is_some() || *rank != lost).collect();
    Known::of(&survivors, at, &lines)
}

#[test]
fn a_loss_is_known_in_time_in_every_phase() {
    let _alone = alone();
    let work = Work::new();
    fs::write(work.path("token"), "between us").unwrap();
    let mut seed = 5;
    for fault in [Fault::Kill, Fault::Stop, Fault::CutOff] {
        for phase in [Phase::Op, Phase::Reduction, Phase::Checkpoint] {
            let mut tries = 0;
            loop {
                let known = disturbed(&work, fault, phase, &mut seed);
                known.check(fault);
                tries += 1;
                if known.was_in(phase) {
                    eprintln!("{fault:?}, {phase}: known after {:?} (try {tries})", known.longest());
                    break;
                }
                assert!(tries < 30, "{fault:?}: no rank was met in {phase}; the last one said {:?}", known.0);
            }
        }
    }
}

/// Two of three ranks, and the third never comes.
#[test]
fn a_loss_is_known_in_time_before_all_ranks_have_come() {
    let _alone = alone();
    let work = Work::new();
    for fault in [Fault::Kill, Fault::Stop, Fault::CutOff] {
        let port = free_port();
        let proxy = Proxy::to(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        let start = |number: usize, port: u16| {
            let mut command = rank(&work, number, 3, port, "train tiny.toml --pp 3 --out early");
            // Without a token the address tells jobs apart, and the proxy has another one.
            command.env("BIGMAC_TOKEN", "between us").env("BIGMAC_PEER_TIMEOUT", "1").spawn().unwrap()
        };
        let first = start(0, port);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = start(1, proxy.address().port());
        let pid = i32::try_from(second.id()).unwrap();
        // Nothing tells that it has joined; if it has not, the loss has no name below.
        std::thread::sleep(Duration::from_millis(700));
        let at = Instant::now();
        match fault {
            Fault::Kill => kill(pid, libc::SIGKILL),
            Fault::Stop => kill(pid, libc::SIGSTOP),
            Fault::CutOff => proxy.cut(),
        }
        let check = |rank: usize, child: Child| {
            let (_, lines) = Said::of(child).end();
            let (known, line) = lines.first().unwrap_or_else(|| panic!("rank {rank} said nothing"));
            assert_eq!(lines.len(), 1, "{lines:?}");
            let after = known.saturating_duration_since(at);
            assert!(after <= fault.allowed(), "{fault:?}: rank {rank} knew after {after:?}: {line}");
            line.clone()
        };
        let said = check(0, first);
        assert!(said.starts_with("error: ") && said.contains("lost rank 1 on "), "{said}");
        match fault {
            Fault::CutOff => assert!(check(1, second).contains("control plane at "), "rank 1"),
            _ => {
                kill(pid, libc::SIGKILL);
                Said::of(second).end();
            }
        }
        assert!(is_free(port));
    }
}

/// Rank 0 evaluates, and the others have left.
#[test]
fn a_loss_is_known_in_time_when_the_others_are_done() {
    let _alone = alone();
    let work = Work::new();
    let train = "train tiny.toml --steps 3 --pp 2 --set output.final_samples=4 \
                 --set model.generator.sample_steps=5000 --out late";
    for fault in [Fault::Kill, Fault::Stop] {
        let _ = fs::remove_dir_all(work.path("late"));
        let mut child = work.command(&format!("launch -n 2 --peer-timeout 1s -- {train}")).spawn().unwrap();
        let began = Instant::now();
        while !work.path("late/checkpoints/step-00000003").exists() || ranks(&child).len() != 1 {
            assert!(child.try_wait().unwrap().is_none(), "it ended early");
            assert!(began.elapsed() < Duration::from_secs(60), "it does not get there");
            std::thread::sleep(Duration::from_millis(1));
        }
        let last = ranks(&child)[&0];
        let node = Said::of(child);
        let at = Instant::now();
        kill(last, if matches!(fault, Fault::Kill) { libc::SIGKILL } else { libc::SIGSTOP });
        let (end, lines) = node.end();
        // The launcher waits a second for a rank to end by itself, and looks every second.
        let allowed = fault.allowed() + Duration::from_secs(2);
        assert!(end - at <= allowed, "{fault:?}: it ended after {:?}: {lines:?}", end - at);
        assert!(lines.last().is_some_and(|(_, line)| line.contains("rank 0")), "{lines:?}");
    }
}
