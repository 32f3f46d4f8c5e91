//! The flags of every command, as its help lists them.

use crate::attempt::Attempt;
use crate::commands::{BASES, COMMANDS, OUTPUT_FLAGS};
use crate::process;
use crate::random::Random;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;
use std::sync::OnceLock;

/// A flag, and whether it takes a value.
pub(super) type Flag = (String, bool);

/// Flags by command.
static FLAGS: OnceLock<BTreeMap<&'static str, Vec<Flag>>> = OnceLock::new();

/// Flags whose value says how much work there is.
const WORK: &[&str] = &["--steps", "--rounds", "--samples", "--heldout", "--max-tokens", "--set", "--paper"];

const VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "3",
    "5",
    "16",
    "0.5",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e9",
    "1e308",
    "1e-320",
    "nan",
    "inf",
    "-inf",
    "",
    " ",
    ",",
    ",,",
    "=",
    "a=b",
    "F=1,B=1,W=1",
    "F=0,B=0,W=0",
    "F=1e308,B=1e308,W=1e308",
    "F=-1,B=1,W=1",
    "F=nan,B=1,W=1",
    "F=1",
    "F=1,F=2,B=1,W=1",
    "encoder=1mb",
    "encoder=0mb,llm=1B",
    "llm=18446744073709551615GiB",
    "encoder=1",
    "llm=nanmb",
    "encoder=300MiB",
    "1,1",
    "1,1,1,1",
    "0,0",
    "1e308,1",
    "-1,1",
    "1,18446744073709551615",
    "7,0",
    "3,1e9",
    "1,nan",
    "nested",
    "nested,nested",
    "phased,recompute",
    "nested-fill",
    "bubble-fill",
    "disaggregated",
    "monolithic",
    "monolithic-balanced",
    "llm",
    "1f1b",
    "gpipe",
    "interleaved",
    "zb-h1",
    "zb-h2",
    "zb-v",
    "dualpipe-v",
    "encoder",
    "encoder,llm,generator",
    "h100",
    "llama-1b",
    "mmdit-1b",
    "qwen3-30b-a3b-vit",
    "tiny.toml",
    "workload.toml",
    "profile.toml",
    "model.toml",
    "device.toml",
    "step.txt",
    "llm.csv",
    "set",
    "run",
    "run/checkpoints",
    "run/checkpoints/step-00000001",
    "nowhere",
    "pictures/a.png",
    "tokenizer.json",
    ".",
    "..",
    "new/deep/out.png",
    "out.html",
    "out.svg",
    "out.json",
    "out.csv",
    "out.txt",
    "out",
    "out.png",
    "\u{1F600}",
    "a\nb",
    "\u{1b}[31mred",
    "train",
    "heldout",
    "test",
    "train.lr=1",
    "x.y=z",
    "data.path=set",
    "cpu",
    "cuda",
    "cuda:0",
    "replay",
    "auto",
    "--",
    "-",
    "-x",
];

/// Reads the flags of every command from its help, once.
///
/// # Errors
/// Where the help can't be had.
pub fn read_help() -> Result<()> {
    let binary = process::binary()?;
    let mut flags = BTreeMap::new();
    for command in COMMANDS {
        let output = Command::new(&binary).args(command.split(' ')).arg("--help").output()?;
        let help = String::from_utf8(output.stdout)?;
        let lines = help.lines().map(str::trim).filter_map(|line| line.split_once("--"));
        let lines = lines.filter(|(before, _)| before.is_empty() || *before == "-h, ");
        let found: Vec<Flag> = lines
            .map(|(_, rest)| {
                let name: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
                (format!("--{name}"), rest[name.len()..].starts_with(" <"))
            })
            .collect();
        anyhow::ensure!(!found.is_empty(), "the help of `bigmac {command}` lists no flags");
        flags.insert(*command, found);
    }
    let _ = FLAGS.set(flags);
    Ok(())
}

/// Changes the flags of a command in one to three ways.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    let all = FLAGS.get().context("the help has not been read")?;
    let command = random.pick(COMMANDS);
    let own =
        |line: &str| line.strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    // `doctor` measures for a second: it is tried less.
    if BASES.iter().any(|base| own(base.line)) {
        attempt.choose(random, |base| own(base.line));
    } else {
        attempt.args = command.split(' ').map(OsString::from).collect();
        attempt.long = true;
        if !random.one_in(10) {
            attempt.args.push("--help".into());
        }
    }
    for _ in 0..random.few() {
        change(attempt, &all[command], random);
    }
    // A command without its files and sizes falls back to the default configuration, which is ten minutes' work.
    attempt.long |= command == "train" || command == "profile" || command == "compare" || command == "plan";
    Ok(())
}

fn change(attempt: &mut Attempt, flags: &[Flag], random: &mut Random) {
    let at = random.place(flags);
    let (flag, takes) = &flags[at];
    let how = random.below(10);
    match how {
        0..=4 => {
            attempt.args.push(flag.into());
            if *takes {
                attempt.args.push(value(flag, random));
            }
        }
        5 if *takes => {
            let mut word = OsString::from(format!("{flag}="));
            word.push(value(flag, random));
            attempt.args.push(word);
        }
        6 | 7 => {
            // Another value in the place of one that is there, or of a positional argument.
            let at = 1 + random.below(attempt.args.len().saturating_sub(1));
            if let Some(word) = attempt.args.get(at).map(|word| word.to_string_lossy().into_owned())
                && !word.starts_with("--")
                && !["shapes", "inspect"].contains(&word.as_str())
            {
                let flag = attempt.args[at - 1].to_string_lossy().into_owned();
                attempt.args[at] = value(&flag, random);
            }
        }
        8 => {
            let at = 1 + random.below(attempt.args.len().saturating_sub(1));
            if at < attempt.args.len() {
                attempt.args.remove(at);
            }
        }
        _ => attempt.args.push(value("", random)),
    }
    if WORK.contains(&flag.as_str()) || how >= 6 {
        attempt.long = true;
    }
    attempt.notes.push(format!("flag {flag}"));
}

/// A value, seldom of strange bytes. Outputs stay within the folder, since tests may run as root.
fn value(flag: &str, random: &mut Random) -> OsString {
    if !OUTPUT_FLAGS.contains(&flag) {
        match random.below(40) {
            0 => return "x".repeat(100_000).into(),
            1 => return OsString::from_vec(b"a\xff\xfe".to_vec()),
            2 => return "a".repeat(300).into(),
            _ => {}
        }
    }
    random.pick(VALUES).into()
}
