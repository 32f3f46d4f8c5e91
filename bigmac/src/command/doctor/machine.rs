//! Processor, memory and disk.

use anyhow::Context;
use bigmac::profile::processor;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What the system reports of this machine; `None` where it does not.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub processor: Option<String>,
    /// How many threads run at once: processors that this process may use, quotas counted in.
    pub threads: usize,
    /// Vector extensions of the processor.
    pub extensions: Vec<&'static str>,
    /// Vector extensions that this program was compiled to use.
    pub built_for: Vec<&'static str>,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes that a new program can have without swapping.
    pub memory_available: Option<u64>,
    /// Where runs are written to by default.
    pub directory: PathBuf,
    /// Bytes free to this user in that directory.
    pub disk_free: Option<u64>,
}

impl Machine {
    pub(super) fn inspect() -> anyhow::Result<Machine> {
        let directory = std::env::current_dir().context("cannot tell the current directory")?;
        let threads =
            std::thread::available_parallelism().context("cannot tell how many processors there are")?;
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let (extensions, built_for) = extensions();
        Ok(Machine {
            processor: processor(),
            threads: threads.get(),
            extensions,
            built_for,
            memory_total: meminfo(&memory, "MemTotal"),
            memory_available: meminfo(&memory, "MemAvailable"),
            disk_free: disk_free(&directory),
            directory,
        })
    }
}

/// A value in the text of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Extensions that the processor has, and those of them that the compiler was told to use.
fn extensions() -> (Vec<&'static str>, Vec<&'static str>) {
    let mut found = (Vec::new(), Vec::new());
    macro_rules! look_for {
        ($detected:ident: $($name:tt)*) => {$(
            if std::arch::$detected!($name) {
                found.0.push($name);
            }
            if cfg!(target_feature = $name) {
                found.1.push($name);
            }
        )*};
    }
    #[cfg(target_arch = "x86_64")]
    look_for!(is_x86_feature_detected: "sse4.2" "avx" "avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vl" "avx512vnni" "avx512bf16");
    #[cfg(target_arch = "aarch64")]
    look_for!(is_aarch64_feature_detected: "neon" "fp16" "bf16" "i8mm" "sve");
    found
}

/// Bytes free to this user where `path` lies.
fn disk_free(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in a zero byte, and `stat` is room for what the call writes.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, so it has written all of `stat`.
    let stat = unsafe { stat.assume_init() };
    Some(stat.f_bavail * stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_files_are_read() {
        let text = "MemTotal:       24683656 kB\nMemFree:            1 kB\nMemAvailable:   23148564 kB\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(24_683_656 * 1024));
        assert_eq!(meminfo(text, "MemAvailable"), Some(23_148_564 * 1024));
        assert_eq!(meminfo(text, "Mem"), None);
    }

    #[test]
    fn disk_space_is_that_of_a_directory_that_exists() {
        assert!(disk_free(&std::env::temp_dir()).is_some());
        assert_eq!(disk_free(Path::new("/no/such/directory")), None);
    }

    #[test]
    fn the_program_runs_on_what_it_was_built_for() {
        let (has, built_for) = extensions();
        assert!(built_for.iter().all(|name| has.contains(name)), "{built_for:?} {has:?}");
    }
}
