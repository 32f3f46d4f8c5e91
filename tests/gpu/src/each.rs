//! A process per test, under a time limit: a kernel that faults takes its process's context with it, and one that
//! hangs never ends.

use crate::cases::Case;
use anyhow::{Context as _, bail};
use bigmac_runtime::Device;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is run after a test that was killed or faulted, to see whether the device still answers.
const SMOKE: [&str; 2] = ["kernel-broken", "memory-budget"];
/// Tests of a family that may hang before the rest of the family is left out.
const HANGS: usize = 2;
/// How often a process is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How a process ended.
enum Ended {
    Exited(ExitStatus),
    /// It took longer than it may, and was killed.
    Killed,
}

/// A process that ended, and what it printed.
struct Process {
    ended: Ended,
    said: String,
}

/// Runs each of the tests in a process of its own, for `limit` at most.
///
/// After a test that did not pass the device is tried; where it does not answer within `limit`, twice, the rest is
/// not run. The second test of a family that hangs ends its family.
///
/// # Errors
/// When a test fails, hangs, dies or is not run.
pub fn run(selected: &[Case], device: Device, small: bool, limit: Duration) -> anyhow::Result<()> {
    let start = |only: &str| start(only, device, small, limit);
    let mut bad = Vec::new();
    let mut hung: Vec<&str> = Vec::new();
    for (number, case) in selected.iter().enumerate() {
        let name = case.name.as_str();
        if hung.iter().filter(|family| **family == case.family()).count() >= HANGS {
            println!("NOT RUN {name}: {HANGS} tests of its family hung");
            bad.push(name);
            continue;
        }
        let began = Instant::now();
        let process = start(name)?;
        let seconds = began.elapsed().as_secs_f64();
        match process.ended {
            Ended::Exited(status) if status.success() => {
                print!("{}", outcome(&process.said));
                continue;
            }
            Ended::Exited(status) => match outcome(&process.said) {
                said if said.starts_with("FAILED") => print!("{said}"),
                _ => println!("DIED    {name} ({seconds:.1} s): {status}; {}", last_line(&process.said)),
            },
            Ended::Killed => {
                println!("HUNG    {name}: killed after {seconds:.1} s; {}", last_line(&process.said));
                hung.push(case.family());
            }
        }
        bad.push(name);
        if !answers(&start)? {
            let left: Vec<&str> = selected[number + 1..].iter().map(|case| case.name.as_str()).collect();
            println!("NOT RUN {}: the device does not answer any more", left.join(", "));
            bad.extend(left);
            break;
        }
    }
    println!("{} of {} did not pass", bad.len(), selected.len());
    if bad.is_empty() { Ok(()) } else { bail!("did not pass: {}", bad.join(", ")) }
}

/// Whether the device runs a kernel, at the second try at the latest: a driver may need a while to get rid of a
/// killed process.
fn answers(start: &impl Fn(&str) -> anyhow::Result<Process>) -> anyhow::Result<bool> {
    for _ in 0..2 {
        if matches!(start(&SMOKE.join(","))?.ended, Ended::Exited(status) if status.success()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// This program, with some tests.
fn start(only: &str, device: Device, small: bool, limit: Duration) -> anyhow::Result<Process> {
    let program = std::env::current_exe().context("this program's own path")?;
    let mut command = Command::new(&program);
    command.args(["--device", &device.to_string(), "--only", only]).args(small.then_some("--small"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    wait(child, limit)
}

/// Waits for a process, and kills it when it takes longer than `limit`.
fn wait(mut child: Child, limit: Duration) -> anyhow::Result<Process> {
    // Read meanwhile: a process whose pipe is full waits for its reader.
    let readers = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ];
    let readers: Vec<_> =
        readers.into_iter().flatten().map(|pipe| std::thread::spawn(|| text(pipe))).collect();
    let began = Instant::now();
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break Ended::Exited(status);
        }
        if began.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            break Ended::Killed;
        }
        std::thread::sleep(POLL);
    };
    let said = readers.into_iter().map(|reader| reader.join().unwrap_or_default()).collect();
    Ok(Process { ended, said })
}

/// Everything that comes out of a pipe, bytes that are no text left out.
fn text(mut pipe: Box<dyn Read + Send>) -> String {
    let mut bytes = Vec::new();
    // What came before an error is worth showing.
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The lines that say how the test ended: the first that does, and what follows up to the count.
fn outcome(said: &str) -> String {
    let ended = |line: &&str| ["passed ", "SKIPPED ", "FAILED "].iter().any(|word| line.starts_with(word));
    let lines = said.lines().skip_while(|line| !ended(line)).take_while(|line| !line.ends_with(" skipped"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn last_line(said: &str) -> &str {
    said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it printed nothing")
}
