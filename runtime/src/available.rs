//! How much memory this process may use: what is compared with what a model needs before anything is allocated.

use std::fmt;
use std::path::{Path, PathBuf};

/// The least of the limits that the system sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    /// Bytes.
    pub bytes: u64,
    /// Which limit it is.
    pub limit: Limit,
}

/// What limits the memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The memory of the machine.
    Machine,
    /// The limit of its control group, as of a container or a job.
    ControlGroup,
    /// The limit on its address space.
    AddressSpace,
    /// The limit on its data.
    Data,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Machine => "the memory of this machine",
            Limit::ControlGroup => "the memory limit of this process's control group",
            Limit::AddressSpace => "the limit on this process's address space, 'ulimit -v'",
            Limit::Data => "the limit on this process's data, 'ulimit -d'",
        })
    }
}

/// What this process may use; `None` where the system does not say.
pub fn available() -> Option<Available> {
    available_under(Path::new("/"))
}

/// The same as a system says whose files lie under `root`.
fn available_under(root: &Path) -> Option<Available> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| physical(&text));
    let limits = read("proc/self/limits").unwrap_or_default();
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let group = group_files(&groups)
        .into_iter()
        .filter_map(|file| std::fs::read_to_string(root.join(file)).ok())
        .filter_map(|text| text.trim().parse().ok())
        .min();
    let found = [
        (machine, Limit::Machine),
        (group, Limit::ControlGroup),
        (process(&limits, "Max address space"), Limit::AddressSpace),
        (process(&limits, "Max data size"), Limit::Data),
    ];
    let found = found.into_iter().filter_map(|(bytes, limit)| Some(Available { bytes: bytes?, limit }));
    found.min_by_key(|available| available.bytes)
}

/// The bytes in the text of `/proc/meminfo`.
fn physical(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

/// The soft limit of that name in the text of `/proc/self/limits`; none where it is `unlimited`.
fn process(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The files that may hold the limits of the groups that the text of `/proc/self/cgroup` names, and of those above
/// them: a limit holds for all groups below. In a container the path may be that of the host, and the root what the
/// container sees of it.
fn group_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            some if some.split(',').any(|one| one == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|group| Path::new(mount).join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max cpu time              unlimited            unlimited            seconds   \n\
        Max data size             unlimited            unlimited            bytes     \n\
        Max address space         8589934592           unlimited            bytes     \n";

    /// A system whose files say this.
    fn system(files: &[(&str, &str)]) -> Option<Available> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        available_under(root.path())
    }

    #[test]
    fn the_least_limit_counts() {
        let memory = ("proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\n");
        let of = |bytes, limit| Some(Available { bytes, limit });
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[memory]), of(16 << 20, Limit::Machine));
        let limits = ("proc/self/limits", LIMITS);
        assert_eq!(system(&[limits]), of(8 << 30, Limit::AddressSpace));
        assert_eq!(system(&[memory, limits]), of(16 << 20, Limit::Machine));
        let data = LIMITS.replace("data size             unlimited", "data size             4096");
        assert_eq!(system(&[memory, ("proc/self/limits", &data)]), of(4096, Limit::Data));
    }

    #[test]
    fn control_groups_of_both_kinds_limit_those_below_them() {
        let memory = ("proc/meminfo", "MemTotal: 16384 kB\n");
        let group = |bytes| Some(Available { bytes, limit: Limit::ControlGroup });
        let second = ("proc/self/cgroup", "0::/jobs/one\n");
        let job = ("sys/fs/cgroup/jobs/memory.max", "1000000\n");
        let one = ("sys/fs/cgroup/jobs/one/memory.max", "max\n");
        assert_eq!(system(&[memory, second, job, one]), group(1_000_000));
        let first = ("proc/self/cgroup", "5:devices:/\n4:cpu,memory:/jobs/one\n0::/\n");
        let limit = ("sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes", "2000000\n");
        assert_eq!(system(&[memory, first, limit]), group(2_000_000));
        // Seen from a container, the group is the root of what is mounted.
        let root = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000000\n");
        assert_eq!(system(&[memory, first, root]), group(3_000_000));
        let none = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(system(&[memory, first, none]).unwrap().limit, Limit::Machine);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_system_says_what_there_is() {
        assert!(available().unwrap().bytes > 1 << 20);
    }
}
