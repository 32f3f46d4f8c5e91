//! Tests of jobs run one at a time, so that limits of time hold, and leave nothing behind: no process, and so no port that
//! one listens at, and no file in shared memory.

use crate::ranks::is_alive;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static ONE: Mutex<()> = Mutex::new(());

/// How long what was killed may take to be gone.
const GONE: Duration = Duration::from_secs(1);

/// Held by a test while it runs; fails it where something is left in the end.
pub struct Alone {
    shared_memory: Vec<String>,
    _one: MutexGuard<'static, ()>,
}

pub fn alone() -> Alone {
    // A test that failed has no say in the others.
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Alone { shared_memory: shared_memory(), _one }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let began = Instant::now();
        while !processes().is_empty() && began.elapsed() < GONE {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(processes().is_empty(), "still there: {:?}", processes());
        assert_eq!(shared_memory(), self.shared_memory);
    }
}

/// Processes of this build's program.
fn processes() -> Vec<i32> {
    let program = fs::canonicalize(env!("CARGO_BIN_EXE_bigmac")).unwrap();
    let is_ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_ours(pid) && is_alive(*pid)).collect()
}

fn shared_memory() -> Vec<String> {
    let entries = fs::read_dir(Path::new("/dev/shm")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
