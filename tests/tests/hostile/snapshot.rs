//! What lies in a folder, so that nothing changes that a command had no business with.

use anyhow::Result;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What happened to a link, device or pipe that is now something else. No command may do that.
pub const REPLACED: &str = "replaced";

/// Files beyond this, in bytes, are full of holes, and no output; it is enough that they are the same ones.
const LARGE: u64 = 64 << 20;

/// What is at a path.
#[derive(PartialEq)]
enum Thing {
    Bytes(Vec<u8>),
    Folder,
    Link(PathBuf),
    /// A device or pipe, by its number: one that was replaced has another.
    Special(u64),
    /// A file beyond [`LARGE`], by its number.
    Large(u64),
}

/// Everything below a folder, by path relative to it.
pub struct Snapshot(BTreeMap<PathBuf, Thing>);

impl Snapshot {
    /// Reads a folder. Links are not followed.
    ///
    /// # Errors
    /// Where something can't be read.
    pub fn of(folder: &Path) -> Result<Snapshot> {
        let mut things = BTreeMap::new();
        let mut open = vec![folder.to_owned()];
        while let Some(here) = open.pop() {
            for entry in std::fs::read_dir(&here)? {
                let path = entry?.path();
                let meta = std::fs::symlink_metadata(&path)?;
                let kind = meta.file_type();
                let thing = if kind.is_symlink() {
                    Thing::Link(std::fs::read_link(&path)?)
                } else if kind.is_dir() {
                    open.push(path.clone());
                    Thing::Folder
                } else if kind.is_fifo()
                    || kind.is_char_device()
                    || kind.is_block_device()
                    || kind.is_socket()
                {
                    Thing::Special(meta.ino())
                } else if meta.len() > LARGE {
                    Thing::Large(meta.ino())
                } else {
                    Thing::Bytes(std::fs::read(&path)?)
                };
                things.insert(path.strip_prefix(folder)?.to_owned(), thing);
            }
        }
        Ok(Snapshot(things))
    }

    /// Paths that are not as they were: new, changed, gone or replaced, each with that word.
    pub fn changed<'a>(&'a self, before: &'a Snapshot) -> Vec<(&'a Path, &'static str)> {
        let mut changed = Vec::new();
        for (path, thing) in &self.0 {
            match before.0.get(path) {
                None => changed.push((path.as_path(), "new")),
                Some(earlier) if earlier == thing => {}
                Some(Thing::Link(_) | Thing::Special(_)) => changed.push((path.as_path(), REPLACED)),
                Some(_) => changed.push((path.as_path(), "changed")),
            }
        }
        for (path, earlier) in before.0.iter().filter(|(path, _)| !self.0.contains_key(*path)) {
            let special = matches!(earlier, Thing::Link(_) | Thing::Special(_));
            changed.push((path.as_path(), if special { REPLACED } else { "gone" }));
        }
        changed
    }

    /// Whether something is at a path.
    pub fn has(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}
