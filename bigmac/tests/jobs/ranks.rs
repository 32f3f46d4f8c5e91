//! The processes that a launcher has started.

use crate::work::Ended;
use std::collections::BTreeMap;
use std::fs;
use std::process::Child;
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
