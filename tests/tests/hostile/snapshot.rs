//! What lies in a folder, so that nothing changes that a command had no business with.

use anyhow::Result;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is at a path.
#[derive(PartialEq)]
enum Thing {
    Bytes(Vec<u8>),
    Folder,
    Link(PathBuf),
    /// A device or pipe, by its number: one that was replaced has another.
    Special(u64),
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
                } else {
                    Thing::Bytes(std::fs::read(&path)?)
                };
                things.insert(path.strip_prefix(folder)?.to_owned(), thing);
            }
        }
        Ok(Snapshot(things))
    }

    /// Paths that are not as they were: new, changed or gone, each with that word.
    pub fn changed<'a>(&'a self, before: &'a Snapshot) -> Vec<(&'a Path, &'static str)> {
        let mut changed = Vec::new();
        for (path, thing) in &self.0 {
            match before.0.get(path) {
                None => changed.push((path.as_path(), "new")),
                Some(earlier) if earlier != thing => changed.push((path.as_path(), "changed")),
                Some(_) => {}
            }
        }
        let gone = before.0.keys().filter(|path| !self.0.contains_key(*path));
        changed.extend(gone.map(|path| (path.as_path(), "gone")));
        changed
    }

    /// Whether something is at a path.
    pub fn has(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}
