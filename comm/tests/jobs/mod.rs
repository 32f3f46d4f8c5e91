//! What processes of a test do: the test starts its own program again, with the name of a job in the environment, and
//! reads what the processes print.

use super::waits::WAITS;
use super::{bits, suite};
use bigmac_comm::{CommError, Communicator, ProcessCommunicator, Tag};
use bigmac_runtime::{Context, DType, Spec, Tensor};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The variable with the name of the job.
pub const JOB: &str = "BIGMAC_TEST_JOB";
/// How long a call of a job waits.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a job may take.
pub const LIMIT: Duration = Duration::from_secs(150);

/// How a job ended on a rank.
#[derive(Debug, PartialEq)]
pub enum End {
    /// As it should.
    Done,
    /// Its peers failed; the engine can't be stopped in order.
    Failed,
}

/// Does a job, and drops the communicator.
pub fn run(job: &str, ctx: &Context, comm: ProcessCommunicator) -> End {
    let rank = comm.rank();
    match job.split_once('/').unwrap_or((job, "")) {
        ("suite", _) => {
            for (name, case) in suite::CASES.iter().chain(suite::LARGE) {
                suite::run(name, *case, ctx, &comm);
            }
            say(&format!("PASSED {rank}"));
        }
        ("bits", _) => say(&format!("BITS {rank} {}", digest(&bits::bits(ctx, &comm).unwrap()))),
        ("speed", _) => say(&format!("SPEED {rank} {}", speed(ctx, &comm))),
        ("once", _) => comm.barrier().unwrap(),
        (fault, wait) => return with_fault(fault, wait, ctx, comm),
    }
    End::Done
}

/// Measures ranks 0 and 1 while others wait: half the time of a round trip of 1 KiB, and the rate of 16 MiB one way and
/// then back.
pub fn speed(ctx: &Context, comm: &dyn Communicator) -> String {
    let round_trips = |bytes: usize, count: usize| {
        let spec = Spec::new(&[bytes], DType::U8);
        let (mut times, other) = (Vec::new(), 1 - comm.rank());
        for _ in 0..count {
            let began = Instant::now();
            if comm.rank() == 0 {
                comm.send(ctx, Tensor::zeros(ctx, &[bytes], DType::U8).unwrap(), other, Tag(0)).unwrap();
            }
            let got = comm.recv(ctx, other, Tag(0), &spec).unwrap();
            if comm.rank() == 1 {
                comm.send(ctx, got, other, Tag(0)).unwrap();
            }
            times.push(began.elapsed().as_secs_f64() / 2.0);
        }
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let mut said = String::new();
    if comm.rank() < 2 {
        let small = round_trips(1 << 10, 2000);
        let large = round_trips(16 << 20, 20);
        said = format!(
            "1 KiB in {:.1} us, 16 MiB at {:.2} GB/s",
            small * 1e6,
            f64::from(16 << 20) / large / 1e9
        );
    }
    comm.barrier().unwrap();
    said
}

/// What rank 0 measured.
pub fn speed_in(output: &str) -> &str {
    output.lines().find(|line| line.starts_with("SPEED 0")).unwrap_or(output)
}

/// Rank 1 does `fault` while the others are in the wait of that name; they say what they got.
fn with_fault(fault: &str, wait: &str, ctx: &Context, comm: ProcessCommunicator) -> End {
    comm.barrier().unwrap();
    let rank = comm.rank();
    say(&format!("READY {rank}"));
    if rank == 1 {
        std::thread::sleep(Duration::from_millis(50));
        match fault {
            "abort" => comm.abort("the loss is not finite"),
            "panic" => {
                let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                    let _held = comm;
                    panic!("on purpose");
                }));
                assert!(panicked.is_err());
            }
            "end" => return End::Done,
            // SAFETY: a signal to this process.
            "kill" => drop(unsafe { libc::raise(libc::SIGKILL) }),
            // The test kills it.
            "stay" => std::thread::sleep(LIMIT),
            other => panic!("no job is called {other}"),
        }
        return End::Failed;
    }
    let (_, wait) = WAITS.iter().find(|(name, _)| *name == wait).expect("a wait of that name");
    let error = wait(&comm, ctx).unwrap_err();
    assert!(matches!(error, CommError::Poisoned { .. }), "{error}");
    say(&format!("ERROR {rank} {error}"));
    if fault == "end" { End::Done } else { End::Failed }
}

/// One whole line in one piece: processes share the output.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// SHA-256 as text.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A program that runs, and the lines it prints. Killed when dropped.
pub struct Running {
    pub child: Child,
    pub lines: Receiver<String>,
    /// What it has printed so far.
    pub output: String,
    pub began: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts a program.
    pub fn start(mut command: Command) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (say, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let say = say.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    drop(say.send(line));
                }
            });
        }
        Running { child, lines, output: String::new(), began: Instant::now() }
    }

    /// Waits for its end; its status and all it printed.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.began.elapsed() > LIMIT {
                while let Ok(line) = self.lines.try_recv() {
                    self.output += &(line + "\n");
                }
                panic!("still running after {LIMIT:?}:\n{}", self.output);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // What it started may hold its output open.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(2)) {
            self.output += &(line + "\n");
        }
        (status, std::mem::take(&mut self.output))
    }
}
