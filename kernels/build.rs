//! Lists the folders of `src` that hold kernels, for `src/programs.rs`: so an operator is one folder and one `mod` line.
//! What the kernels are compiled as is said by `programs` in the folder's `cuda.rs`, or without one in its `mod.rs`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// True for a folder with a CUDA source.
fn has_kernels(folder: &Path) -> bool {
    let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.any(|file| file.path().extension().is_some_and(|extension| extension == "cu"))
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src");
    let mut paths = Vec::new();
    for entry in fs::read_dir("src")? {
        let folder = entry?.path();
        if let Some(name) = folder.file_name().filter(|_| has_kernels(&folder)) {
            let file = if folder.join("cuda.rs").is_file() { "::cuda" } else { "" };
            paths.push(format!("crate::{}{file}::programs", name.display()));
        }
    }
    // A folder is not read in the same order everywhere.
    paths.sort();
    let list = PathBuf::from(env::var("OUT_DIR")?).join("programs.rs");
    Ok(fs::write(list, format!("&[{}]", paths.join(", ")))?)
}
