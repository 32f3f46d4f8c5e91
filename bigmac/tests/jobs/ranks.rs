//! The processes of a job: those that a launcher has started, and those that a test starts itself.

use crate::work::{Ended, Work, wait};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::Duration;

/// Far beyond what news of a loss takes, even on a busy machine; a hang is minutes.
pub const SOON: Duration = Duration::from_secs(20);

/// The ranks that a launcher has started, with their processes.
pub fn ranks(launcher: &Child) -> BTreeMap<usize, i32> {
    let mut ranks = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let (Ok(stat), Ok(environment)) =
            (fs::read_to_string(entry.path().join("stat")), fs::read(entry.path().join("environ")))
        else {
            continue;
        };
        // After the name, which is in parentheses: state and parent.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        let rank = environment.split(|b| *b == 0).find_map(|v| v.strip_prefix(b"BIGMAC_RANK="));
        if let (true, Some(rank)) = (parent == Some(&launcher.id().to_string()), rank) {
            ranks.insert(String::from_utf8_lossy(rank).parse().unwrap(), pid);
        }
    }
    ranks
}

/// Sends a signal.
pub fn kill(pid: i32, number: i32) {
    // SAFETY: kill takes any number.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

pub fn is_alive(pid: i32) -> bool {
    // A process that has ended and is not waited for yet is a zombie.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// Each rank but those that were `lost` has said in one line why it stopped, and no process is left.
pub fn all_have_ended(ended: &Ended, ranks: &BTreeMap<usize, i32>, lost: &[usize], cause: &str) {
    for (rank, pid) in ranks {
        assert!(!is_alive(*pid), "rank {rank} is still there");
        if lost.contains(rank) {
            continue;
        }
        let said: Vec<&str> =
            ended.stderr.lines().filter(|line| line.starts_with(&format!("[r{rank}] error: "))).collect();
        assert_eq!(said.len(), 1, "rank {rank}: {said:?} in\n{}", ended.stderr);
        for wanted in [&format!("rank {rank} on "), "stopped at step ", ", op ", cause] {
            assert!(said[0].contains(wanted), "'{wanted}' is not in: {}", said[0]);
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether a job can listen there again.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A rank as torchrun starts it.
pub fn rank(work: &Work, rank: usize, size: usize, port: u16, arguments: &str) -> Command {
    let mut command = work.command(arguments);
    for (name, value) in
        [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("LOCAL_WORLD_SIZE", size)]
    {
        command.env(name, value.to_string());
    }
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command.env("BIGMAC_JOIN_TIMEOUT", "20").env_remove("BIGMAC_TOKEN");
    command
}

pub fn run_all(commands: impl IntoIterator<Item = Command>) -> Vec<Ended> {
    let children: Vec<_> = commands.into_iter().map(|mut command| command.spawn().unwrap()).collect();
    children.into_iter().map(wait).collect()
}

/// Each rank ends with that code and one sentence in which all of `wanted` is.
pub fn all_say(ended: &[Ended], code: i32, wanted: &[&str]) {
    for (rank, ended) in ended.iter().enumerate() {
        assert_eq!(ended.status.code(), Some(code), "rank {rank}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "rank {rank}: {}", ended.stderr);
        for wanted in wanted {
            assert!(ended.stderr.contains(wanted), "rank {rank}: '{wanted}' is not in {}", ended.stderr);
        }
    }
}

/// Random numbers that need no crate.
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *state >> 33
}
