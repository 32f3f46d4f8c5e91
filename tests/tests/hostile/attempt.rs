//! One try: a copy of the prepared folder, a command, and what was done to them.

use crate::commands::{BASES, Base};
use crate::process::Stdout;
use crate::random::Random;
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A command in a folder of its own.
pub struct Attempt {
    /// Where it runs.
    pub folder: PathBuf,
    /// Its words after `bigmac`.
    pub args: Vec<OsString>,
    pub stdout: Stdout,
    /// What was changed, for people.
    pub notes: Vec<String>,
    /// It asks for work that may rightly take long.
    pub long: bool,
    /// Why it must not succeed.
    pub must_fail: Option<String>,
    /// Outputs that are not named, such as what a link at an output's place leads to.
    pub behind: Vec<String>,
    base: Option<&'static Base>,
}

impl Attempt {
    /// A try in a copy of the prepared folder, below `place`.
    ///
    /// # Errors
    /// Where the copy could not be made.
    pub fn new(world: &Path, place: &Path) -> Result<Attempt> {
        // Two folders down, so that `../..` still ends in a folder that is looked over.
        let folder = place.join("house/room");
        copy(world, &folder)?;
        std::fs::write(place.join("house/neighbour.toml"), "[run]\nname = \"kept\"\n")?;
        Ok(Attempt {
            folder,
            args: vec![],
            stdout: Stdout::File,
            notes: vec![],
            long: false,
            must_fail: None,
            behind: vec![],
            base: None,
        })
    }

    /// The part of the folder that is looked over which is the command's own.
    pub fn folder_name(&self) -> &'static str {
        "house/room"
    }

    /// Chooses a command among those that fit.
    pub fn choose(&mut self, random: &mut Random, fits: impl Fn(&Base) -> bool) -> &'static Base {
        let fitting: Vec<&'static Base> = BASES.iter().filter(|base| fits(base)).collect();
        let base = random.pick(&fitting);
        self.args = base.words().into_iter().map(OsString::from).collect();
        self.base = Some(base);
        base
    }

    /// Notes a change after which the command must not succeed.
    pub fn must_fail(&mut self, why: impl Into<String>) {
        self.must_fail.get_or_insert(why.into());
    }

    /// Notes that a file can't be used any more: the command must fail where it needs it.
    pub fn broke(&mut self, file: &str, how: &str) {
        if self.base.is_some_and(|base| base.needs(file)) {
            self.must_fail(format!("'{file}' {how}"));
        }
    }

    /// Changes the bytes of a file; what the function returns is noted.
    ///
    /// # Errors
    /// Where the file can't be read or written.
    pub fn edit(&mut self, file: &str, change: impl FnOnce(&mut Vec<u8>) -> String) -> Result<()> {
        let path = self.folder.join(file);
        let mut bytes = std::fs::read(&path).with_context(|| format!("could not read {file}"))?;
        let how = change(&mut bytes);
        self.notes.push(format!("{file}: {how}"));
        std::fs::write(&path, bytes).with_context(|| format!("could not write {file}"))
    }

    /// The command as a shell takes it.
    pub fn command(&self) -> String {
        let words = self.args.iter().map(|word| {
            let word = word.to_string_lossy();
            let plain =
                !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=,:".contains(c));
            let cut: String = word.chars().take(200).collect();
            if plain { cut } else { format!("'{}'", cut.replace('\'', "'\\''").escape_debug()) }
        });
        let to = match self.stdout {
            Stdout::File => "",
            Stdout::Full => " > /dev/full",
            Stdout::Closed => " | true",
        };
        format!("bigmac {}{to}", words.collect::<Vec<_>>().join(" "))
    }
}

/// Copies a folder of plain files.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
