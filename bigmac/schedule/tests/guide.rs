//! `docs/add-a-schedule.md` works as it stands: its blocks are applied to a copy of the crate, which is then tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Rust blocks of a page, each with the file that the lines above it name last.
fn blocks(page: &str) -> Vec<(PathBuf, String)> {
    let mut blocks = Vec::new();
    let mut file = PathBuf::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line == "```rust" {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((file.clone(), block.join("\n") + "\n"));
        }
        let names = line.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs"));
        if let Some(name) = names.filter(|name| name.starts_with("bigmac/schedule/")).last() {
            file = PathBuf::from(name);
        }
    }
    blocks
}

/// Does what a reader of the page does: makes a new file, replaces a list, or adds to the end of a file.
fn apply(root: &Path, file: &Path, block: &str) {
    let path = root.join(file);
    let old = fs::read_to_string(&path).unwrap_or_default();
    let head = block.lines().next().unwrap();
    let new = match old.split_once(head.split(':').next().unwrap()) {
        Some((before, rest)) if head.starts_with("pub const") => {
            let (_, after) = rest.split_once(";\n").unwrap();
            format!("{before}{block}{after}")
        }
        _ => format!("{old}\n{block}"),
    };
    fs::write(path, new.trim_start()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// A workspace of this crate alone, with the versions of this one.
fn workspace(home: &Path, root: &Path) {
    let _ = fs::remove_dir_all(root);
    for member in ["bigmac/schedule/src", "tests/close/src"] {
        copy(&home.join(member), &root.join(member));
    }
    for file in ["Cargo.lock", "bigmac/schedule/Cargo.toml", "tests/close/Cargo.toml"] {
        fs::copy(home.join(file), root.join(file)).unwrap();
    }
    let manifest = fs::read_to_string(home.join("Cargo.toml")).unwrap();
    let (before, rest) = manifest.split_once("members = [").unwrap();
    let (_, after) = rest.split_once(']').unwrap();
    let lines = after.lines().filter(|line| !line.starts_with("default-members"));
    let after = lines.collect::<Vec<_>>().join("\n");
    let members = r#"members = ["bigmac/schedule", "tests/close"]"#;
    fs::write(root.join("Cargo.toml"), format!("{before}{members}{after}\n")).unwrap();
}

#[test]
fn the_page_on_adding_a_schedule_works() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // A fixed place, so that what was built for the last run serves the next.
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("add-a-schedule");
    workspace(&home, &root);
    let page = fs::read_to_string(home.join("docs/add-a-schedule.md")).unwrap();
    let blocks = blocks(&page);
    assert_eq!(blocks.len(), 4, "{blocks:?}");
    blocks.iter().for_each(|(file, block)| apply(&root, file, block));
    let output = Command::new(env!("CARGO"))
        .args(["test", "--offline", "--quiet", "-p", "bigmac-schedule", "--lib", "stack"])
        .current_dir(&root)
        // With the profiles of this workspace, the dependencies that it has built serve here too.
        .env("CARGO_TARGET_DIR", root.join("../.."))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("test result: ok. 1 passed"), "{said}");
}
