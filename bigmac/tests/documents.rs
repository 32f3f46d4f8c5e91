//! Documents and example configurations say what the program does.

use bigmac::config::{self, Config};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::{Table, Value};

/// A path below the repository's root.
fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap()
}

/// Every key with its value, as `a.b.c`.
fn flatten(table: &Table, prefix: &str, keys: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => flatten(inner, &format!("{path}."), keys),
            value => {
                keys.insert(path, value.clone());
            }
        }
    }
}

#[test]
fn configuration_lists_every_key_with_its_default() {
    let mut wanted = BTreeMap::new();
    flatten(&config::write(&Config::default()).parse().unwrap(), "", &mut wanted);
    let text = read("docs/configuration.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeMap<String, Value> = rows
        .map(|row| {
            let (key, rest) = row.split_once("` | `").unwrap();
            let (default, meaning) = rest.split_once("` | ").unwrap();
            assert!(meaning.len() > 5, "{key} has no meaning");
            let default: Table = format!("v = {default}").parse().unwrap();
            (key.to_owned(), default["v"].clone())
        })
        .collect();
    let differs = |key: &&String| listed.get(*key) != wanted.get(*key);
    let wrong: BTreeSet<&String> = listed.keys().chain(wanted.keys()).filter(differs).collect();
    assert!(wrong.is_empty(), "docs/configuration.md and the defaults differ in {wrong:?}");
}

#[test]
fn every_configuration_file_reads() {
    let entries = std::fs::read_dir(root("configs")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let config = config::read(Some(&file), &[]).unwrap();
        assert_ne!(config, Config::default(), "{} sets nothing", file.display());
    }
}

/// The command lines of the page on adding a schedule, with an order that exists in place of its example.
#[test]
fn commands_of_the_page_on_adding_a_schedule_run() {
    let page = read("docs/add-a-schedule.md").replace("\\\n", " ");
    let place = tempfile::tempdir().unwrap();
    let commands: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("cargo run --release -- ")).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in commands {
        let command = command.replace("--llm stack", "--llm gpipe").replace("llm=stack", "llm=gpipe");
        let mut run = Command::new(env!("CARGO_BIN_EXE_bigmac"));
        run.current_dir(place.path()).args(command.split_whitespace().map(|word| match word {
            "configs/tiny.toml" => root(word).into_os_string(),
            word => word.into(),
        }));
        if command.starts_with("train") {
            run.args(["--steps", "2", "--set", "data.shapes=64"]);
        }
        let output = run.output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for made in ["stack.html", "runs/stack/timeline.html", "runs/stack/metrics.jsonl"] {
        assert!(place.path().join(made).exists(), "{made}");
    }
}

/// The picture in README is what the command under it draws.
#[test]
fn the_picture_is_up_to_date() {
    let text = read("README.md").replace("\\\n", "");
    let command = text.lines().find(|line| line.contains("--timeline docs/nested.svg")).unwrap();
    let drawn = tempfile::Builder::new().suffix(".svg").tempfile().unwrap();
    let arguments = command.split_whitespace().skip(1).map(|word| match word {
        "docs/nested.svg" => drawn.path().to_str().unwrap(),
        word => word,
    });
    let output = Command::new(env!("CARGO_BIN_EXE_bigmac")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let same = std::fs::read_to_string(drawn.path()).unwrap() == read("docs/nested.svg");
    assert!(same, "docs/nested.svg has changed: look at it after {command}");
}
