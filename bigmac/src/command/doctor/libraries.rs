//! Optional libraries, and where the dynamic loader would look for them.

use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A library that a backend loads at run time.
#[derive(Debug, Serialize)]
pub(super) struct Library {
    /// The file names that would do, the preferred one first.
    pub names: &'static [&'static str],
    /// What it is for.
    pub purpose: &'static str,
    /// The file, when there is one.
    pub found: Option<PathBuf>,
    /// The directories that were searched, in this order.
    pub looked_in: Vec<PathBuf>,
}

impl Library {
    pub(super) fn title(&self) -> String {
        self.names.join(" | ")
    }
}

/// Names and purpose of each library.
const WANTED: [(&[&str], &str); 4] = [
    (&["libcuda.so.1"], "the NVIDIA driver; installed with it"),
    (&["libnvrtc.so.13", "libnvrtc.so.12"], "compiles kernels; part of the CUDA toolkit"),
    (&["libnccl.so.2"], "communication between NVIDIA GPUs"),
    (&["libmpi.so", "libmpi.so.40", "libmpi.so.12"], "communication between processes; OpenMPI or MPICH"),
];

/// Looks for every library.
pub(super) fn find_all() -> Vec<Library> {
    let directories = directories();
    WANTED
        .iter()
        .map(|&(names, purpose)| Library {
            names,
            purpose,
            found: find(names, &directories),
            looked_in: directories.clone(),
        })
        .collect()
}

/// The first file of one of these names; a name goes before a directory.
fn find(names: &[&str], directories: &[PathBuf]) -> Option<PathBuf> {
    names
        .iter()
        .flat_map(|name| directories.iter().map(move |dir| dir.join(name)))
        .find(|path| path.is_file())
}

/// The directories that libraries are looked for in, each once: `LD_LIBRARY_PATH`, the CUDA toolkit's, those of
/// `/etc/ld.so.conf`, and the loader's own.
pub(super) fn directories() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH")
        .map(|paths| std::env::split_paths(&paths).collect())
        .unwrap_or_default();
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    all.extend(toolkits.chain([PathBuf::from("/usr/local/cuda")]).map(|toolkit| toolkit.join("lib64")));
    all.extend(configured(Path::new("/etc/ld.so.conf")));
    let arch = std::env::consts::ARCH;
    for directory in [
        format!("/lib/{arch}-linux-gnu"),
        format!("/usr/lib/{arch}-linux-gnu"),
        format!("/usr/lib/{arch}-linux-gnu/openmpi/lib"),
        "/lib64".into(),
        "/usr/lib64".into(),
        "/usr/lib64/openmpi/lib".into(),
        "/lib".into(),
        "/usr/lib".into(),
    ] {
        all.push(directory.into());
    }
    let mut seen = BTreeSet::new();
    all.retain(|directory| !directory.as_os_str().is_empty() && seen.insert(directory.clone()));
    all
}

/// The directories that a file like `/etc/ld.so.conf` names, with those of the files it includes (`include DIR/*.conf`).
/// Included files are not followed further.
fn configured(file: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for line in lines(file) {
        let Some(pattern) = line.strip_prefix("include").filter(|rest| rest.starts_with(char::is_whitespace))
        else {
            directories.push(PathBuf::from(line));
            continue;
        };
        let pattern = Path::new(pattern.trim());
        let within = file.parent().unwrap_or(Path::new("/")).join(pattern.parent().unwrap_or(Path::new("")));
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(within).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension() == pattern.extension());
        files.sort();
        directories.extend(files.iter().flat_map(|path| lines(path)).map(PathBuf::from));
    }
    directories
}

/// The lines that say something. A file that isn't there has none.
fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let without_comment = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    text.lines().map(without_comment).filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_configuration_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("ld.so.conf");
        std::fs::create_dir(dir.path().join("more")).unwrap();
        std::fs::write(&conf, "# comment\n/first # why\ninclude more/*.conf\n\n/last\n").unwrap();
        std::fs::write(dir.path().join("more/b.conf"), "/b\n").unwrap();
        std::fs::write(dir.path().join("more/a.conf"), "/a1\n/a2\n").unwrap();
        std::fs::write(dir.path().join("more/c.txt"), "/c\n").unwrap();
        let expected = ["/first", "/a1", "/a2", "/b", "/last"].map(PathBuf::from);
        assert_eq!(configured(&conf), expected);
        assert!(configured(&dir.path().join("none")).is_empty());
    }

    #[test]
    fn the_preferred_name_is_found_first_and_only_as_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for directory in [&one, &two] {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::create_dir(one.join("lib.so.2")).unwrap();
        std::fs::write(one.join("lib.so.1"), "").unwrap();
        let both = [one.clone(), two.clone()];
        assert_eq!(find(&["lib.so.2", "lib.so.1"], &both), Some(one.join("lib.so.1")));
        std::fs::write(two.join("lib.so.2"), "").unwrap();
        assert_eq!(find(&["lib.so.2", "lib.so.1"], &both), Some(two.join("lib.so.2")));
        assert_eq!(find(&["lib.so.3"], &both), None);
    }
}
