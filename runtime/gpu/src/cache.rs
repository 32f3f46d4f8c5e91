//! Compiled kernels on disk, by everything that went into them.

use crate::driver::{DriverError, DriverResult};
use crate::launch::{Program, Text};
use crate::shared::{Turns, variable};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that says where compiled kernels are kept, instead of `bigmac/kernels` in the user's cache directory.
pub const CACHE_DIR: &str = "BIGMAC_CACHE_DIR";

/// A folder of compiled kernels. Several processes may use it at once.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// What a compiled kernel is found by: a hash of its text, its knobs, its target and its compiler.
#[derive(Clone, Debug)]
pub struct Key(Sha256);

impl Key {
    /// The key of a program as `text` has it now, for a `target`, by a `compiler` of some version with some options.
    pub fn new(text: &Text, program: &Program<'_>, target: &str, compiler: &str) -> Key {
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            // With its length before it, so that no two lists of parts look alike.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(&text.file);
        add(&text.main);
        for (name, text) in &text.includes {
            add(name);
            add(text);
        }
        for (name, value) in program.knobs {
            add(name);
            add(&value.to_string());
        }
        add(target);
        add(compiler);
        Key(hash)
    }

    fn name(self, extension: &str) -> String {
        let hex: String = self.0.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex}.{extension}")
    }
}

impl Cache {
    /// The cache in [`CACHE_DIR`], else in the user's cache directory, else in that for temporary files.
    pub fn open() -> DriverResult<Cache> {
        let var = |name| variable(name).map(PathBuf::from);
        let directory = var(CACHE_DIR)
            .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("bigmac/kernels")))
            .or_else(|| var("HOME").map(|dir| dir.join(".cache/bigmac/kernels")))
            .unwrap_or_else(|| std::env::temp_dir().join("bigmac-kernels"));
        Cache::at(directory)
    }

    /// The cache in that folder.
    pub fn at(directory: PathBuf) -> DriverResult<Cache> {
        std::fs::create_dir_all(&directory).map_err(|e| wrong(&directory, &e))?;
        Ok(Cache { directory })
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of that key and extension. When it is missing, `make` is given a path beside it to write to, which is
    /// then renamed: a file in the cache is always whole. Threads of this process that want the same file wait for the
    /// first of them; several devices need one compilation only.
    pub fn get_or_make(
        &self,
        key: Key,
        extension: &str,
        make: impl FnOnce(&Path) -> DriverResult<()>,
    ) -> DriverResult<PathBuf> {
        static MAKING: LazyLock<Turns<PathBuf>> = LazyLock::new(Turns::default);
        let name = key.name(extension);
        let path = self.directory.join(&name);
        if path.is_file() {
            return Ok(path);
        }
        MAKING.alone(&path, || {
            if !path.is_file() {
                self.make(&name, &path, make)?;
            }
            Ok(path.clone())
        })
    }

    fn make(
        &self,
        name: &str,
        path: &Path,
        make: impl FnOnce(&Path) -> DriverResult<()>,
    ) -> DriverResult<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let aside = self.directory.join(format!("{}-{number}-{name}", std::process::id()));
        let made = make(&aside).and_then(|()| std::fs::rename(&aside, path).map_err(|e| wrong(path, &e)));
        made.inspect_err(|_| {
            // The error to report is the first one; what is left aside does no harm.
            let _ = std::fs::remove_file(&aside);
        })
    }
}

pub(crate) fn wrong(path: &Path, error: &std::io::Error) -> DriverError {
    let message = format!("{error}; set {CACHE_DIR} to a folder that can be written to");
    DriverError::call(format!("kernel cache {}", path.display()), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::{Knob, Source};

    static SOURCE: Source = Source::new("x.cu", "text");

    #[test]
    fn everything_that_matters_changes_the_key() {
        let text = SOURCE.read().unwrap();
        let key = |text: &Text, knobs: &[(&'static str, Knob)], target: &str, compiler: &str| {
            Key::new(text, &Program { source: &SOURCE, knobs }, target, compiler).name("bin")
        };
        let one = [("A", Knob::Int(1))];
        let mut keys = vec![
            key(&text, &one, "sm_80", "13.0"),
            key(&text, &one, "sm_90a", "13.0"),
            key(&text, &one, "sm_80", "13.1"),
            key(&text, &[("A", Knob::Int(2))], "sm_80", "13.0"),
            key(&text, &[], "sm_80", "13.0"),
        ];
        let mut other = text.clone();
        other.includes[0].1.push(' ');
        keys.push(key(&other, &one, "sm_80", "13.0"));
        assert_eq!(keys[0], key(&text, &one, "sm_80", "13.0"));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn a_file_is_made_once_and_not_at_all_after_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("deep/er")).unwrap();
        let text = SOURCE.read().unwrap();
        let key = Key::new(&text, &Program { source: &SOURCE, knobs: &[] }, "t", "c");
        let failed = cache.get_or_make(key.clone(), "bin", |path| {
            std::fs::write(path, "half").unwrap();
            Err(DriverError::OutOfMemory(1))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(cache.directory()).unwrap().count(), 0);
        let make = |path: &Path| {
            std::fs::write(path, "whole").unwrap();
            Ok(())
        };
        let path = cache.get_or_make(key.clone(), "bin", make).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        let again = cache.get_or_make(key, "bin", |_| panic!("made twice")).unwrap();
        assert_eq!(again, path);
    }

    #[test]
    fn threads_that_want_one_file_make_it_once() {
        let dir = tempfile::tempdir().unwrap();
        let text = SOURCE.read().unwrap();
        let key = Key::new(&text, &Program { source: &SOURCE, knobs: &[] }, "t", "c");
        let made = AtomicU64::new(0);
        // Caches of several devices in one folder.
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let cache = Cache::at(dir.path().to_owned()).unwrap();
                    let make = |path: &Path| {
                        made.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        std::fs::write(path, "whole").unwrap();
                        Ok(())
                    };
                    let path = cache.get_or_make(key.clone(), "bin", make).unwrap();
                    assert_eq!(std::fs::read_to_string(path).unwrap(), "whole");
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}
