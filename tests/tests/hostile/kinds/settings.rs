//! `--set` with every key of the configuration.

use crate::attempt::Attempt;
use crate::random::Random;
use crate::tree::{EXTREMES, NUMBERS};
use anyhow::{Context as _, Result};

/// Keys with which any number is right, and the work may be long.
const WORK: &[&str] =
    &["train.steps", "data.shapes", "output.samples", "output.final_samples", "sample_steps"];

/// Values that need no JSON.
const PLAIN: &[&str] = &[
    "nan",
    "inf",
    "-inf",
    "",
    "tiny.toml",
    "set",
    "run",
    "pictures",
    "pictures/a.png",
    "nowhere",
    "..",
    "0MiB",
    "1KiB",
    "18446744073709551615",
    "99999999999999999999GiB",
    "encoder=0mb",
    "encoder=1mb,encoder=2mb",
    "llm=-1mb",
    "encoder=1e308mb",
    "llm=1",
    "zb-h1",
    "zb-h2",
    "zb-v",
    "dualpipe-v",
    "interleaved",
    "gpipe",
    "disaggregated",
    "monolithic-balanced",
    "nested-fill",
    "bubble-fill",
    "recompute",
    "replay",
    "cuda",
    "cuda:4294967296",
    "bf16",
    "f16",
    "skip",
    "[1, 2, 3]",
    "[-2, 4, 4]",
    "[2147483648, 2147483648, 6]",
    "[6, 0, 0]",
    "[]",
    "[[2], 2]",
    "\u{1F600}",
    "a\nb = 1",
    "'",
    "\"\"\"",
    "true",
    "false",
    "2",
    "3",
    "5",
    "8",
    "16",
    "48",
    "set/{train,heldout}.jsonl",
    "set/{0..99999999}.jsonl",
    "set/{000000000..4294967296}.jsonl",
    "{",
    "{a,b}{c,d}{e,f}",
    "set/{train..heldout}",
    "shards/*.tar",
    "table",
];

/// Changes one to three settings.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    // The resolved configuration of the prepared run names every key.
    let text = std::fs::read_to_string(attempt.folder.join("run/config.toml"))?;
    let table: toml::Table = text.parse().context("the run's config.toml can't be read")?;
    let mut keys = Vec::new();
    list(&table, "", &mut keys);
    attempt.choose(random, |base| base.needs("tiny.toml"));
    for _ in 0..random.few() {
        let at = random.place(&keys);
        let (key, numeric) = &keys[at];
        let key = if random.one_in(20) { format!("{key}x") } else { key.clone() };
        let value = match random.below(8) {
            0..=4 if *numeric => random.pick(&EXTREMES[..NUMBERS]).to_owned(),
            0..=3 => random.pick(PLAIN).to_owned(),
            4 => "x".repeat([300, 100_000][random.below(2)]),
            _ => random.pick(EXTREMES).to_owned(),
        };
        attempt.long |= WORK.iter().any(|work| key.ends_with(work));
        if *numeric && ["nan", "inf", "-inf"].contains(&value.as_str()) {
            attempt.must_fail(format!("{key} is {value}"));
        }
        attempt.notes.push(format!("--set {key}"));
        attempt.args.extend(["--set".into(), format!("{key}={value}").into()]);
    }
    // Of several values for a key the last one counts.
    if attempt.notes.len() > 1 {
        attempt.must_fail = None;
    }
    Ok(())
}

/// Every key with whether it is a number.
fn list(table: &toml::Table, before: &str, keys: &mut Vec<(String, bool)>) {
    for (key, value) in table {
        let name = format!("{before}{key}");
        match value {
            toml::Value::Table(inner) => list(inner, &format!("{name}."), keys),
            other => keys.push((name, other.is_integer() || other.is_float())),
        }
    }
}
