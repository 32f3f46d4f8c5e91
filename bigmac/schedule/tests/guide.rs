//! The pages about schedules are right as they stand: the blocks of `docs/add-a-schedule.md` are applied to a copy of
//! the crate, which is then tested, and the times that `docs/schedules.md` gives are those of the simulator.

use bigmac_close::{absolute, assert_close};
use bigmac_schedule::{Options, UniformCosts, Workload, registry, simulate};
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

/// The largest last end - first start of any rank, of an order of the LLM on equal stages.
fn cost(order: &str, p: usize, n: usize, [forward, backward_input, backward_weight]: [f64; 3]) -> f64 {
    let costs = UniformCosts { forward, backward_input, backward_weight, ..UniformCosts::default() };
    let workload = Workload::uniform(p, 1, n, p, costs, 0.0).unwrap();
    let options = Options { llm: registry::llm_schedule(order).unwrap(), ..Options::default() };
    let table = registry::schedule("llm").unwrap().build(&workload, &options).unwrap();
    let simulation = simulate(&table, &workload).unwrap();
    simulation.active.iter().flatten().map(|span| span.end - span.start).fold(0.0, f64::max)
}

/// A zero-bubble order as the page has it: name, formula, least number of microbatches, and what they say.
type ZeroBubble = (&'static str, &'static str, &'static str, fn(usize) -> usize, fn([f64; 3]) -> f64);

const ZERO_BUBBLE: [ZeroBubble; 2] = [
    ("zb-h1", "N R + (p - 1)(F + B - W)", "N >= p", |p| p, |[f, b, w]| f + b - w),
    (
        "zb-h2",
        "N R + (p - 1) max(0, F + B - 2W)",
        "N >= 2p - 1",
        |p| 2 * p - 1,
        |[f, b, w]| (f + b - 2.0 * w).max(0.0),
    ),
];

#[test]
fn the_zero_bubble_times_hold_where_the_page_says() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(home.join("docs/schedules.md")).unwrap();
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("They hold on equal stages, without transfers, for W <= F"));
    for (order, formula, condition, least, rest) in ZERO_BUBBLE {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{order}` |"))).unwrap();
        assert!(row.ends_with(&format!("| {formula} |")), "{row}");
        assert!(words.contains(&format!("`{order}` from {condition}")));
        let closed = |p: usize, n: usize, costs: [f64; 3]| {
            n as f64 * costs.iter().sum::<f64>() + (p - 1) as f64 * rest(costs)
        };
        for p in 1..8 {
            for n in [least(p), least(p) + 1, 3 * p, 5 * p + 3] {
                for [f, b, w] in [[1, 1, 1], [4, 5, 3], [5, 1, 4], [3, 9, 3], [7, 2, 7], [2, 3, 0], [6, 1, 6]]
                {
                    let costs = [f, b, w].map(f64::from);
                    assert_close(cost(order, p, n, costs), closed(p, n, costs), absolute(1e-9));
                }
            }
        }
        // Beyond, it takes longer: too few microbatches, or weight gradients that are longer than forwards.
        let beyond = |p, n, costs| cost(order, p, n, costs) > closed(p, n, costs) + 1e-9;
        assert!(beyond(4, least(4) - 1, [1.0, 1.0, 1.0]) || order == "zb-h1");
        assert!(beyond(4, 16, [1.0, 1.5, 1.2]));
    }
}
