//! Libraries that a backend loads at run time: which they are, where they are looked for, and how they are opened.

mod elf;
mod open;
mod search;

pub(crate) use elf::required_length;
pub(crate) use open::functions;
pub use open::{LibraryError, Opened};
pub use search::directories;

use crate::shared::variable;
use serde::Serialize;
use std::path::PathBuf;

/// A library that a backend loads at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Library {
    /// The file names that would do, the preferred one first.
    pub names: &'static [&'static str],
    /// Its purpose, and where it comes from.
    pub purpose: &'static str,
    /// The environment variable that names the file, so that nothing is searched.
    pub variable: &'static str,
    /// What to do when it is not found.
    #[serde(skip)]
    pub advice: &'static str,
}

/// The NVIDIA driver.
pub const CUDA: Library = Library {
    names: &["libcuda.so.1"],
    purpose: "the NVIDIA driver; installed with it",
    variable: "BIGMAC_LIBCUDA",
    advice: "install the NVIDIA driver, or use the device 'cpu'",
};

/// The compiler of kernels.
pub const NVRTC: Library = Library {
    names: &["libnvrtc.so.13", "libnvrtc.so.12"],
    purpose: "compiles kernels; part of the CUDA toolkit",
    variable: "BIGMAC_LIBNVRTC",
    advice: "install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc` (nvidia-cuda-nvrtc-cu12 for a driver of CUDA 12) \
             in the Python environment in use",
};

/// Every library that a backend loads.
pub const ALL: [Library; 2] = [CUDA, NVRTC];

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lookup {
    /// The library.
    #[serde(flatten)]
    pub library: Library,
    /// The file that the library's variable names, when it is set.
    pub given: Option<PathBuf>,
    /// The file, when there is one.
    pub found: Option<PathBuf>,
    /// The directories that were searched, in this order; none when the file was given.
    pub looked_in: Vec<PathBuf>,
}

impl Library {
    /// Looks for the library: the file that its variable names, else the first of its names in [`directories`]. A name
    /// goes before a directory. Nothing is opened.
    pub fn find(self) -> Lookup {
        self.find_in(variable(self.variable).map(PathBuf::from), directories)
    }

    fn find_in(self, given: Option<PathBuf>, directories: impl FnOnce() -> Vec<PathBuf>) -> Lookup {
        let looked_in = if given.is_some() { Vec::new() } else { directories() };
        let found = match &given {
            Some(file) => file.is_file().then(|| file.clone()),
            None => search::find(self.names, &looked_in),
        };
        Lookup { library: self, given, found, looked_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_given_is_taken_or_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        let (real, searched) = (dir.path().join("mine.so"), dir.path().join("libcuda.so.1"));
        std::fs::write(&real, "").unwrap();
        std::fs::write(&searched, "").unwrap();
        let directories = || vec![dir.path().to_owned()];
        assert_eq!(CUDA.find_in(Some(real.clone()), directories).found, Some(real));
        let missing = CUDA.find_in(Some(dir.path().join("none.so")), directories);
        assert_eq!((missing.found, missing.looked_in), (None, Vec::new()));
        assert_eq!(CUDA.find_in(None, directories).found, Some(searched));
        let says = |lookup: Lookup, wanted: &[&str]| {
            let error = LibraryError::NotFound(Box::new(lookup));
            let whole = error.to_string();
            assert!(wanted.iter().all(|wanted| whole.contains(wanted)), "{whole}");
            assert!(
                whole.starts_with(&error.brief()) && !error.brief().contains("looked in"),
                "{}",
                error.brief()
            );
        };
        let missing = CUDA.find_in(Some("/none.so".into()), directories);
        says(missing, &["BIGMAC_LIBCUDA is '/none.so'", "not a file", "unset"]);
        let missing = NVRTC.find_in(None, || vec!["/first".into(), "/second".into()]);
        says(
            missing,
            &[
                "libnvrtc.so.13 or libnvrtc.so.12",
                "pip install",
                "BIGMAC_LIBNVRTC",
                "looked in /first, /second",
            ],
        );
    }
}
