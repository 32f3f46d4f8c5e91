//! Whether the program did right: what it said, what it left, and what it may not have touched.

use crate::attempt::Attempt;
use crate::commands::OUTPUT_FLAGS;
use crate::process::{End, Finished, Stdout};
use crate::results;
use crate::snapshot::{REPLACED, Snapshot};
use std::path::{Component, Path, PathBuf};

/// The longest message that can be called readable, in characters.
const READABLE: usize = 3000;

/// Judges a process; says what is wrong. The first word or two of a complaint name its kind.
pub fn judge(
    attempt: &Attempt,
    finished: &Finished,
    before: &Snapshot,
    after: &Snapshot,
) -> Result<(), String> {
    let stderr = &finished.stderr;
    for sign in ["panicked at", "RUST_BACKTRACE", "stack overflow", "memory allocation of"] {
        if let Some(line) = stderr.lines().find(|line| line.contains(sign)) {
            return Err(format!("panic: {line}"));
        }
    }
    let code = match finished.end {
        End::Hang => return Err("hang: it had to be killed".into()),
        End::Signal(signal) => return Err(format!("signal {signal}")),
        End::Stopped(code) => return stopped(code),
        End::Code(code) => code,
    };
    if ![0, 1, 2, 75].contains(&code) {
        return Err(format!("code: {code} is not documented"));
    }
    said(code, stderr)?;
    untouched(attempt, before, after)?;
    if code == 0 { done(attempt, finished, after) } else { failed(attempt, before, after) }
}

/// Of long work only that it ends at Ctrl-C, as it would end by itself.
fn stopped(code: Option<i32>) -> Result<(), String> {
    match code {
        None | Some(0..=2 | 75 | 130) => Ok(()),
        Some(code) => Err(format!("code: {code} at Ctrl-C is not documented")),
    }
}

/// One readable paragraph that begins with `error: `, exactly when the program failed.
fn said(code: i32, stderr: &str) -> Result<(), String> {
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error:")).collect();
    if code == 0 {
        return if errors.is_empty() { Ok(()) } else { Err(format!("exit 0: but it said '{}'", errors[0])) };
    }
    let [error] = errors[..] else {
        return Err(format!("message: {} lines begin with 'error:', expected 1", errors.len()));
    };
    if error.trim() == "error:" {
        return Err("message: an empty one".into());
    }
    let from = stderr.find("error:").unwrap_or(0);
    let told = &stderr[from..];
    if let Some(strange) = told.chars().find(|c| c.is_control() && !['\n', '\t'].contains(c)) {
        return Err(format!("message: it holds the control character {strange:?}: {}", error.escape_debug()));
    }
    let long = told.chars().count();
    if long > READABLE { Err(format!("message: {long} characters")) } else { Ok(()) }
}

/// Nothing but the command's own outputs is new, changed or gone.
fn untouched(attempt: &Attempt, before: &Snapshot, after: &Snapshot) -> Result<(), String> {
    let outputs = outputs(attempt);
    let own = attempt.folder_name();
    for (path, how) in after.changed(before) {
        let allowed = path.strip_prefix(own).is_ok_and(|path| {
            outputs
                .iter()
                .any(|output| path.starts_with(output) || (how == "new" && output.starts_with(path)))
        });
        if !allowed || how == REPLACED {
            return Err(format!("touched: '{}' is {how}", path.display()));
        }
    }
    Ok(())
}

/// The paths that the command may write, relative to where it runs, without `.` and `..`.
pub fn outputs(attempt: &Attempt) -> Vec<PathBuf> {
    let words: Vec<String> = attempt.args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut outputs = named(&words);
    outputs.extend(attempt.behind.clone());
    for (i, word) in words.iter().enumerate() {
        if word == "--resume" || word.starts_with("--resume=") {
            let run = words.get(i + 1).map(String::as_str).filter(|_| word == "--resume");
            let run = run.or(word.strip_prefix("--resume=")).unwrap_or("");
            // From one of its checkpoints a run goes on in a directory of its own.
            outputs
                .push(run.split_once("/checkpoints").map_or(run.to_owned(), |(run, _)| format!("{run}-2")));
        }
    }
    match words.first().map(String::as_str) {
        // A configuration without a path makes the shapes set; one without `--out` runs below `runs`.
        Some("train") => outputs.extend(["runs".into(), "data".into()]),
        Some("compare" | "profile" | "data" | "eval") => outputs.push("data".into()),
        Some("imagine") => outputs.push("picture.png".into()),
        _ => {}
    }
    outputs.iter().map(|output| lexical(Path::new(output))).collect()
}

/// The values of flags that name an output.
fn named(words: &[String]) -> Vec<String> {
    let mut values = vec![];
    for (i, word) in words.iter().enumerate() {
        for flag in OUTPUT_FLAGS {
            match word.strip_prefix(flag) {
                Some("") => values.extend(words.get(i + 1).cloned()),
                Some(rest) => values.extend(rest.strip_prefix('=').map(ToOwned::to_owned)),
                None => {}
            }
        }
    }
    values
}

fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// After success: it was right to succeed, and what it was asked for is there.
fn done(attempt: &Attempt, finished: &Finished, after: &Snapshot) -> Result<(), String> {
    if let Some(why) = &attempt.must_fail {
        return Err(format!("exit 0: {why}"));
    }
    let words: Vec<String> = attempt.args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.iter().any(|word| ["--help", "-h", "--version", "-V", "help"].contains(&word.as_str())) {
        return if finished.stdout.is_empty() && attempt.stdout == Stdout::File {
            Err("exit 0: but nothing was printed".into())
        } else {
            Ok(())
        };
    }
    if words.iter().any(|word| word == "--json") && attempt.stdout == Stdout::File {
        let text =
            std::str::from_utf8(&finished.stdout).map_err(|_| "exit 0: standard output is not UTF-8")?;
        results::check_json(text).map_err(|wrong| format!("exit 0: standard output: {wrong}"))?;
    }
    let command = words.first().map_or("", String::as_str);
    for output in outputs(attempt) {
        let place = attempt.folder.join(&output);
        let asked = named(&words).iter().any(|name| lexical(Path::new(name)) == output);
        let there = after.has(&Path::new(attempt.folder_name()).join(&output));
        if !there && asked {
            return Err(format!("exit 0: but output '{}' is missing", output.display()));
        }
        if place.is_file() && !attempt.behind.iter().any(|behind| Path::new(behind) == output) {
            results::check_file(&place).map_err(|wrong| format!("exit 0: {wrong}"))?;
        } else if command == "train" && place.join("config.toml").is_file() {
            results::check_run(&place).map_err(|wrong| format!("exit 0: {wrong}"))?;
        }
    }
    Ok(())
}

/// The run that a command trained, where it says that it did.
pub fn trained(attempt: &Attempt, finished: &Finished) -> Option<String> {
    if finished.end != End::Code(0) || attempt.args.first().is_none_or(|word| word != "train") {
        return None;
    }
    let runs = outputs(attempt).into_iter().filter(|run| !run.as_os_str().is_empty());
    let mut runs = runs.filter(|run| attempt.folder.join(run).join("checkpoints").is_dir());
    runs.next().map(|run| run.to_string_lossy().into_owned())
}

/// After a failure: no output is half written. One that is new is whole.
fn failed(attempt: &Attempt, before: &Snapshot, after: &Snapshot) -> Result<(), String> {
    let own = Path::new(attempt.folder_name());
    for (path, how) in after.changed(before) {
        let Ok(inside) = path.strip_prefix(own) else { continue };
        let place = attempt.folder.join(inside);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if how == "gone" {
            // Older checkpoints go when newer ones are there.
            if !path.components().any(|part| part.as_os_str() == "checkpoints") {
                return Err(format!("half: '{}' is gone after a failure", path.display()));
            }
        } else if name.starts_with(".tmp") || name.ends_with(".tmp") || name.ends_with(".part") {
            return Err(format!("half: '{}' was left after a failure", path.display()));
        } else if std::fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_file()) {
            results::check_file(&place).map_err(|wrong| format!("half: {wrong}"))?;
        }
    }
    Ok(())
}
