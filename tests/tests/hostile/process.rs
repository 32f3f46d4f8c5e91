//! Runs the program under the limits that no input may make it break.

use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The most address space of the program, in bytes.
const MEMORY: libc::rlim_t = 8 << 30;
/// The largest file that it may write, in bytes: a mistake must not fill the disk.
const FILE: libc::rlim_t = 1 << 30;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take where long work was asked for, before it is asked to stop.
const LONG: Duration = Duration::from_millis(1500);
/// How long it may take to stop after each of two Ctrl-C.
const STOPPING: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    Code(i32),
    Signal(i32),
    /// It had to be killed.
    Hang,
    /// Long work was asked for, and it stopped (or died) at Ctrl-C. The code, where it has one.
    Stopped(Option<i32>),
}

/// What a process left.
pub struct Finished {
    pub end: End,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub seconds: f64,
}

/// Where standard output goes.
#[derive(Clone, Copy, PartialEq)]
pub enum Stdout {
    File,
    /// `/dev/full`: every write fails as on a full disk.
    Full,
    /// A pipe that no one reads.
    Closed,
}

/// The program to be tried: `BIGMAC_BINARY`, or the one that Cargo built beside this test.
///
/// # Errors
/// Where there is none.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("BIGMAC_BINARY") {
        Some(path) => PathBuf::from(path),
        None => {
            let test = std::env::current_exe()?;
            let profile = test.parent().and_then(Path::parent).context("a test without a target folder")?;
            profile.join("bigmac")
        }
    };
    std::fs::canonicalize(&path).with_context(|| {
        let path = path.display();
        format!("the program to be tried was not found at '{path}': run `cargo build -p bigmac`, or set BIGMAC_BINARY")
    })
}

/// Runs the program in a folder; its outputs go to files in `aside`. `long`: the command asks for long work.
///
/// # Errors
/// Where the process could not be started.
pub fn run(
    binary: &Path,
    args: &[OsString],
    folder: &Path,
    aside: &Path,
    stdout: Stdout,
    long: bool,
) -> Result<Finished> {
    let out = aside.join("stdout");
    let mut command = Command::new(binary);
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command.stderr(File::create(aside.join("stderr"))?);
    command.stdout(match stdout {
        Stdout::File => File::create(&out)?.into(),
        Stdout::Full => Stdio::from(File::options().write(true).open("/dev/full")?),
        Stdout::Closed => Stdio::piped(),
    });
    // Nothing of the machine may decide what happens.
    command.env_remove("BIGMAC_KERNEL_DIR").env("NO_COLOR", "1").env("COLUMNS", "100").env("TMPDIR", aside);
    // SAFETY: between fork and exec only setrlimit and signal are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            // A shell that starts the harness in the background has Ctrl-C ignored, and children would inherit that.
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            for (what, most) in
                [(libc::RLIMIT_AS, MEMORY), (libc::RLIMIT_FSIZE, FILE), (libc::RLIMIT_CORE, 0)]
            {
                let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
                if libc::setrlimit(what, &limit) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let started = Instant::now();
    let mut child = command.spawn().context("could not start the program")?;
    drop(child.stdout.take());
    let end = wait(&mut child, if long { LONG } else { PATIENCE }, long)?;
    let stderr = std::fs::read(aside.join("stderr"))?;
    Ok(Finished {
        end,
        stdout: if stdout == Stdout::File { std::fs::read(&out)? } else { Vec::new() },
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn wait(child: &mut Child, patience: Duration, long: bool) -> Result<End> {
    if let Some(status) = within(child, patience)? {
        return Ok(end(status));
    }
    if long {
        let pid = i32::try_from(child.id())?;
        // The second Ctrl-C ends at once what did not come to the end of a step.
        for _ in 0..2 {
            // SAFETY: plain kill(2) on a child that has not been waited for, so the number is still its own.
            unsafe { libc::kill(pid, libc::SIGINT) };
            if let Some(status) = within(child, STOPPING)? {
                return Ok(End::Stopped(status.code()));
            }
        }
    }
    child.kill()?;
    child.wait()?;
    Ok(End::Hang)
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Code(code),
        (None, signal) => End::Signal(signal.unwrap_or(0)),
    }
}

/// Waits until the process ends or the time is over. Most end within milliseconds, so it looks often at first.
fn within(child: &mut Child, most: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= most {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(Duration::from_millis(20));
    }
}
