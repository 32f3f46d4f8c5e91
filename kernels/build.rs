//! Lists the folders of `src` that hold kernels, for `src/programs.rs`: so an operator is one folder and one `mod`
//! line. What the kernels are compiled as is said by `programs` in the folder's `cuda.rs`, or without one in its
//! `mod.rs`.
//!
//! Also copies what the guides in `docs` have their readers write, for the tests in `src/lib.rs`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// True for a folder with a CUDA source.
fn has_kernels(folder: &Path) -> bool {
    let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.any(|file| file.path().extension().is_some_and(|extension| extension == "cu"))
}

/// The functions that list the folders' programs, in a fixed order: a folder is not read in the same order everywhere.
fn programs() -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir("src")? {
        let folder = entry?.path();
        if let Some(name) = folder.file_name().filter(|_| has_kernels(&folder)) {
            let file = if folder.join("cuda.rs").is_file() { "::cuda" } else { "" };
            paths.push(format!("crate::{}{file}::programs", name.display()));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Writes the code blocks of a guide to `to`: `0.rs`, `1.rs` and so on, and `kernel.cu`.
fn copy_blocks(guide: &str, to: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={guide}");
    fs::create_dir_all(to)?;
    let text = fs::read_to_string(guide)?;
    let blocks = text.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let mut count = 0;
    for (language, block) in blocks {
        if language == "rust" {
            // A file that is included has no comment of its own.
            fs::write(to.join(format!("{count}.rs")), block.replace("//!", "//"))?;
            count += 1;
        } else if language == "cpp" {
            fs::write(to.join("kernel.cu"), block)?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("programs.rs"), format!("&[{}]", programs()?.join(", ")))?;
    copy_blocks("../docs/add-an-operator.md", &out.join("operator"))?;
    copy_blocks("../docs/add-a-kernel.md", &out.join("kernel"))
}
