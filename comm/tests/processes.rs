//! Real processes over TCP, and what happens when one of them is killed.

mod bits;
mod jobs;
mod suite;
mod waits;

use bigmac_comm::{CommError, Communicator, TcpEngine, run_ranks};
use bigmac_runtime::Context;
use jobs::{JOB, LIMIT, Running, TIMEOUT, digest};
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

const SIZE: usize = 4;
const RANK: &str = "BIGMAC_TEST_RANK";

/// One rank, when this program was started by one of the tests below.
#[test]
fn child() {
    let (Ok(job), Ok(rank)) = (std::env::var(JOB), std::env::var(RANK)) else { return };
    let rank: usize = rank.parse().unwrap();
    let listening = TcpEngine::listen("127.0.0.1").unwrap();
    println!("\nADDRESS={}", listening.address());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let addresses: Vec<SocketAddr> =
        line.split_whitespace().map(|address| address.parse().unwrap()).collect();
    let ctx = Context::cpu(rank, 1).unwrap();
    let comm = listening.connect(&ctx, rank, addresses, b"secret", TIMEOUT).unwrap();
    jobs::run(&job, &ctx, comm);
}

/// What a program that runs is told and asked.
impl Running {
    /// Reads on until a line contains `text`, and returns that line.
    fn read_until(&mut self, text: &str) -> String {
        loop {
            let left = LIMIT.saturating_sub(self.began.elapsed());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|error| {
                panic!("no line with '{text}' ({error}); so far:\n{}", self.output);
            });
            self.output += &line;
            self.output.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Writes a line to it.
    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Kills it as the system does, at once.
    fn kill(&mut self) {
        self.child.kill().unwrap();
    }
}

fn start(job: &str) -> Vec<Running> {
    let process = |rank: usize| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(JOB, job).env(RANK, rank.to_string());
        Running::start(command)
    };
    let mut processes: Vec<Running> = (0..SIZE).map(process).collect();
    let addresses: Vec<String> = processes
        .iter_mut()
        .map(|process| process.read_until("ADDRESS=").split_once("ADDRESS=").unwrap().1.to_owned())
        .collect();
    processes.iter_mut().for_each(|process| process.tell(&addresses.join(" ")));
    processes
}

#[test]
fn suite_between_processes() {
    for (rank, process) in start("suite").into_iter().enumerate() {
        let (status, output) = process.end();
        assert!(status.success() && output.contains(&format!("PASSED {rank}")), "{output}");
    }
}

#[test]
fn bits_are_those_of_threads() {
    let local = run_ranks(SIZE, LIMIT, |comm| bits::bits(&Context::cpu(comm.rank(), 1)?, &comm)).unwrap();
    for (rank, process) in start("bits").into_iter().enumerate() {
        let (_, output) = process.end();
        let expected = format!("BITS {rank} {}", digest(&local[rank]));
        assert!(output.contains(&expected), "expected {expected}, got {output}");
    }
}

#[test]
fn a_killed_process_is_known_to_all() {
    for wait in ["recv", "all_reduce", "barrier"] {
        let mut processes = start(&format!("stay/{wait}"));
        for process in &mut processes {
            process.read_until("READY");
        }
        let began = Instant::now();
        processes[1].kill();
        for (rank, process) in processes.into_iter().enumerate().filter(|(rank, _)| *rank != 1) {
            let (status, output) = process.end();
            let expected =
                format!("ERROR {rank} rank {rank} stopped because of rank 1: its connection to rank");
            assert!(status.success() && output.contains(&expected), "{output}");
        }
        assert!(began.elapsed() < TIMEOUT / 2, "{wait}: {:?}", began.elapsed());
    }
}

#[test]
fn faults_are_known_to_all() {
    for (fault, reason) in
        [("abort", "the loss is not finite"), ("panic", "it panicked"), ("end", "it ended while rank")]
    {
        for (rank, process) in start(&format!("{fault}/all_reduce")).into_iter().enumerate() {
            let (status, output) = process.end();
            let expected = format!("ERROR {rank} rank {rank} stopped because of rank 1: {reason}");
            assert!(status.success() && (rank == 1 || output.contains(&expected)), "{fault}: {output}");
        }
    }
}

#[test]
#[ignore = "a measurement: run it alone, with --nocapture"]
fn speed_between_processes() {
    let local =
        run_ranks(2, LIMIT, |comm| Ok::<_, CommError>(jobs::speed(&Context::cpu(comm.rank(), 1)?, &comm)));
    println!("threads: {}", local.unwrap()[0]);
    let outputs: Vec<String> = start("speed").into_iter().map(|process| process.end().1).collect();
    println!("TCP: {}", jobs::speed_in(&outputs[0]));
}
