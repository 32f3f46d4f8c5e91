//! What the command writes to is no place for it: a folder, a pipe, a device, a link, a full disk.

use super::places::{BACK, THINGS, put};
use crate::attempt::Attempt;
use crate::commands::{COMMANDS, OUTPUT_FLAGS};
use crate::process::Stdout;
use crate::random::Random;
use anyhow::Result;
use std::ffi::OsString;

/// Puts something where the command writes, or standard output onto a full disk.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    match random.below(8) {
        0 => {
            // `COMMAND --help`, of whose text nothing can be written.
            let command = random.pick(COMMANDS);
            attempt.args = command.split(' ').map(OsString::from).collect();
            attempt.args.push(random.pick(&["--help", "-h"]).into());
            attempt.stdout = Stdout::Full;
            attempt.must_fail("its help went to a full disk");
        }
        1 => {
            attempt.choose(random, |base| base.line.ends_with("--json"));
            attempt.stdout = Stdout::Full;
            attempt.must_fail("its JSON went to a full disk");
        }
        2 => {
            attempt.choose(random, |_| true);
            attempt.stdout = if random.one_in(2) { Stdout::Full } else { Stdout::Closed };
        }
        _ => {
            let writes = |line: &str| OUTPUT_FLAGS.iter().any(|flag| line.contains(&format!("{flag} ")));
            let base = attempt.choose(random, |base| writes(base.line));
            let words = base.words();
            let named: Vec<&str> =
                words.windows(2).filter(|two| OUTPUT_FLAGS.contains(&two[0])).map(|two| two[1]).collect();
            let output = random.pick(&named);
            // In a folder that is not there, or below a file, or in its place.
            match random.below(6) {
                0 => rename(attempt, output, &format!("tiny.toml/{output}")),
                1 => rename(attempt, output, &format!("new/er/{output}")),
                2 => {
                    attempt.notes.push(format!("an older {output}"));
                    std::fs::write(attempt.folder.join(output), "older")?;
                }
                _ => {
                    let things: Vec<&str> = THINGS.iter().copied().filter(|thing| *thing != BACK).collect();
                    put(attempt, output, random.pick(&things))?;
                    attempt.behind.extend(["nowhere".into(), format!("elsewhere/{output}")]);
                }
            }
        }
    }
    Ok(())
}

fn rename(attempt: &mut Attempt, from: &str, to: &str) {
    attempt.notes.push(format!("output {to}"));
    for word in &mut attempt.args {
        if word == from {
            *word = to.into();
        }
    }
}
