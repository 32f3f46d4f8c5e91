//! Whether what a command wrote is whole: read back by something else than what wrote it, where there is such a thing.

use serde_json::Value;
use std::path::Path;

/// Keys whose value may be null: nothing of that kind could be judged, or nothing was given.
const NULLABLE: &[&str] = &[
    "eval",
    "caption_exact",
    "drawn_exact",
    "drawn_colors",
    "heldout",
    "llm",
    "group",
    "encoder",
    "generator",
    "error",
    "ratio",
    "given",
    "warning",
    "contended_over_parallel",
    "factor",
    "measured",
    "over_nested",
    "draw",
    "x_nested",
    "nested",
    "fraction",
    "frozen",
    "profile",
    "budget",
    "cpu_quota",
    "limit",
    "gpu",
    "cache",
    "driver",
    "nvrtc",
    "nvrtc_file",
    "found",
    "nccl",
    "mpi",
    "python",
];

/// Looks at a file that a command claims to have written; says what is wrong with it.
pub fn check_file(path: &Path) -> Result<(), String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("output '{name}' can't be read: {error}"))?;
    let text = || std::str::from_utf8(&bytes).map_err(|_| format!("output '{name}' is not UTF-8"));
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    match ending {
        "png" => image::load_from_memory(&bytes).map(drop).map_err(|e| format!("output '{name}': {e}")),
        "html" => ends(text()?, "</html>", path),
        "svg" => ends(text()?, "</svg>", path),
        "json" => check_json(text()?).map_err(|e| format!("output '{name}': {e}")),
        "toml" => text()?.parse::<toml::Table>().map(drop).map_err(|e| format!("output '{name}': {e}")),
        "jsonl" => {
            for line in text()?.lines() {
                check_json(line).map_err(|e| format!("output '{name}': {e}"))?;
            }
            Ok(())
        }
        _ if bytes.is_empty() => Err(format!("output '{name}' is empty")),
        _ => Ok(()),
    }
}

fn ends(text: &str, end: &str, path: &Path) -> Result<(), String> {
    for word in ["NaN", "Infinity", "\"inf"] {
        // Scripts may name them; coordinates may not be them.
        if path.extension().is_some_and(|e| e == "svg") && text.contains(word) {
            return Err(format!("output '{}' holds {word}", path.display()));
        }
    }
    if text.trim_end().ends_with(end) {
        Ok(())
    } else {
        Err(format!("output '{}' has no {end}", path.display()))
    }
}

/// Looks at JSON that a command printed: one value, or one on each line; no number in it is missing.
pub fn check_json(text: &str) -> Result<(), String> {
    let mut any = false;
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        any = true;
        whole(&value.map_err(|error| format!("JSON that can't be read: {error}"))?, "")?;
    }
    if any { Ok(()) } else { Err("no JSON".into()) }
}

/// serde writes NaN and infinities as null.
fn whole(value: &Value, key: &str) -> Result<(), String> {
    match value {
        Value::Null if !NULLABLE.contains(&key) => Err(format!("'{key}' is null, as NaN would be")),
        Value::Array(list) => list.iter().try_for_each(|value| whole(value, key)),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| whole(value, key)),
        _ => Ok(()),
    }
}

/// Looks at a run: its configuration, its steps and its newest checkpoint's folder.
pub fn check_run(run: &Path) -> Result<(), String> {
    check_file(&run.join("config.toml"))?;
    // The steps before those of this command are whoever's wrote them.
    let metrics = run.join("metrics.jsonl");
    let text =
        std::fs::read_to_string(&metrics).map_err(|error| format!("'{}': {error}", metrics.display()))?;
    let last = text.lines().last().map_or(Ok(()), check_json);
    last.map_err(|error| format!("output '{}': {error}", metrics.display()))?;
    let folder = run.join("checkpoints");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("'{}': {error}", folder.display()))?;
    let mut any = false;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("step-").is_none_or(|digits| digits.parse::<u64>().is_err()) {
            return Err(format!("'{name}' was left among the checkpoints"));
        }
        any = true;
    }
    if any { Ok(()) } else { Err(format!("no checkpoint in '{}'", folder.display())) }
}
