//! Folders of shards: tar files and Parquet files, with splits named as the Hugging Face Hub names them.

use super::super::error::DataError;
use super::unseen::is_unseen;
use super::{DESCRIPTION, DatasetFiles};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Split names, each with what files of it are called. A split `heldout` is looked for under these, in this order; all
/// but the last are never trained on.
const SPLITS: [(&str, &[&str]); 4] = [
    ("heldout", &["heldout", "held-out", "held_out"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
    ("train", &["train", "training"]),
];

/// JSON files that describe shards and hold no samples.
const DESCRIPTIONS: [&str; 7] = [
    DESCRIPTION,
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "sizes.json",
    "config.json",
];

/// Endings of compressed shards, which cannot be read at any place in them.
const COMPRESSED: [&str; 6] = [".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".tar.lz4"];

/// Whether a file is a tar archive that is compressed as a whole.
pub(super) fn is_compressed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    COMPRESSED.iter().any(|ending| name.ends_with(ending))
}

/// Finds the shards of `split` in a folder whose sorted names are `names`; `None` when there are none of it.
///
/// # Errors
/// For `train`, when it is not clear what to train on: other kinds of files beside the shards, a file without a split's
/// name beside files that have one, a shard that is missing by the others' numbers; or when all shards are held out.
pub(super) fn find(folder: &Path, split: &str, names: &[String]) -> Result<Option<DatasetFiles>, DataError> {
    let here: Vec<String> = names.iter().filter(|name| is_shard(name)).cloned().collect();
    let shards = if here.is_empty() { below(folder, names)? } else { here };
    if shards.is_empty() {
        let packed = names.iter().find(|name| is_compressed(name));
        return match packed.filter(|_| split == "train" && !names.iter().any(|name| holds_json(name))) {
            Some(name) => Err(unpack(&folder.join(name))),
            None => Ok(None),
        };
    }
    let chosen = if split == "train" { training(folder, &shards, names)? } else { held_out(split, &shards) };
    if chosen.is_empty() {
        return Ok(None);
    }
    one_kind(folder, &chosen)?;
    complete(folder, &chosen)?;
    let files = chosen.iter().map(|name| Arc::from(folder.join(name))).collect();
    Ok(Some(DatasetFiles { path: folder.to_path_buf(), files }))
}

/// The error for a compressed shard.
pub(super) fn unpack(file: &Path) -> DataError {
    let problem = "is compressed as a whole; unpack it to a plain .tar (gunzip, unzstd or the like): pictures are read from \
                   any place of a shard, in any order";
    DataError::contents(file, problem)
}

/// Shards one folder further down, by their path from `folder`: in `data/`, or in folders named for splits.
fn below(folder: &Path, names: &[String]) -> Result<Vec<String>, DataError> {
    let mut shards = Vec::new();
    for name in names.iter().filter(|name| *name == "data" || split_of(name).is_some()) {
        let inner: PathBuf = folder.join(name);
        if !inner.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&inner).map_err(DataError::read(&inner))? {
            let file = entry.map_err(DataError::read(&inner))?.file_name().to_string_lossy().into_owned();
            if is_shard(&file) {
                shards.push(format!("{name}/{file}"));
            }
        }
    }
    shards.sort();
    Ok(shards)
}

/// All that is to be trained on.
fn training(folder: &Path, shards: &[String], names: &[String]) -> Result<Vec<String>, DataError> {
    if let Some(other) = names.iter().find(|name| holds_json(name) && !is_unseen(name)) {
        return Err(mixed(folder, &[other.clone(), shards[0].clone()]));
    }
    let (named, unnamed): (Vec<&String>, Vec<&String>) =
        shards.iter().partition(|shard| split_of_path(shard).is_some());
    if named.is_empty() {
        return Ok(shards.to_vec());
    }
    if let Some(shard) = unnamed.first() {
        return Err(DataError::contents(
            folder,
            format!(
                "holds '{}', named for a split, and '{shard}', which is not: it is not clear whether to train on that; begin \
                 its name with 'train-', or give the files as a pattern such as 'train-{{000..007}}.tar'",
                named[0]
            ),
        ));
    }
    let train: Vec<String> =
        shards.iter().filter(|shard| split_of_path(shard) == Some("train")).cloned().collect();
    if train.is_empty() {
        let problem = format!(
            "holds held-out samples only ('{}'): files to train on begin with 'train', such as 'train-{}'",
            named[0],
            named[0].rsplit('/').next().unwrap_or_default()
        );
        return Err(DataError::contents(folder, problem));
    }
    Ok(train)
}

/// What is to be evaluated on, when `split` is not `train`: files named for it; for `heldout` also for validation or
/// test, whichever comes first.
fn held_out(split: &str, shards: &[String]) -> Vec<String> {
    let of = |wanted: &str| -> Vec<String> {
        shards.iter().filter(|shard| split_of_path(shard) == Some(wanted)).cloned().collect()
    };
    if split != "heldout" {
        return of(split);
    }
    let held_out = SPLITS.iter().map(|(name, _)| *name).filter(|name| *name != "train");
    held_out.map(of).find(|found| !found.is_empty()).unwrap_or_default()
}

/// The split that a shard is named for: by its file name, else by its folder's.
fn split_of_path(shard: &str) -> Option<&'static str> {
    match shard.rsplit_once('/') {
        Some((folder, file)) => split_of(file).or_else(|| split_of(folder)),
        None => split_of(shard),
    }
}

/// The split that a name begins with; not a word that merely begins so, such as `testimonials`.
fn split_of(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let begins = |word: &str| {
        name.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphabetic()))
    };
    SPLITS.iter().find(|(_, words)| words.iter().any(|word| begins(word))).map(|(split, _)| *split)
}

fn one_kind(folder: &Path, shards: &[String]) -> Result<(), DataError> {
    let kind = |shard: &String| shard.rsplit('.').next().map(str::to_ascii_lowercase);
    match shards.iter().find(|shard| kind(shard) != kind(&shards[0])) {
        Some(other) => Err(mixed(folder, &[shards[0].clone(), other.clone()])),
        None => Ok(()),
    }
}

fn mixed(folder: &Path, found: &[String; 2]) -> DataError {
    let problem = format!(
        "holds files of several kinds, such as '{}' and '{}': it is not clear which of them are the samples; give a file, or a \
         pattern such as '{}/{{000..007}}.tar'",
        found[0],
        found[1],
        folder.display()
    );
    DataError::contents(folder, problem)
}

/// Refuses a set of `NAME-00000-of-00003` files that lacks one, as an interrupted download leaves it.
fn complete(folder: &Path, shards: &[String]) -> Result<(), DataError> {
    let mut sets: BTreeMap<(&str, &str), BTreeSet<usize>> = BTreeMap::new();
    for shard in shards {
        if let Some((name, number, of)) = numbered(shard) {
            sets.entry((name, of)).or_default().insert(number);
        }
    }
    for ((name, of), numbers) in sets {
        let total = of.parse::<usize>().unwrap_or(0);
        let Some(first) = (0..total).find(|number| !numbers.contains(number)) else { continue };
        let missing = total.saturating_sub(numbers.len());
        let width = of.len();
        let problem = format!(
            "lacks {missing} of {total} files, the first of them '{name}-{first:0width$}-of-{of}'; download them too, or give the \
             files that there are as a pattern"
        );
        return Err(DataError::contents(folder, problem));
    }
    Ok(())
}

/// `NAME-NUMBER-of-TOTAL`, with what may follow, cut up.
fn numbered(shard: &str) -> Option<(&str, usize, &str)> {
    let (head, tail) = shard.rsplit_once("-of-")?;
    let (name, number) = head.rsplit_once('-')?;
    let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
    let of = &tail[..end];
    // Five digits on the Hub; a bound keeps an odd name from asking for a long count.
    (!of.is_empty() && of.len() <= 6).then_some(())?;
    Some((name, number.parse().ok()?, of))
}

fn is_shard(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    (name.ends_with(".tar") || name.ends_with(".parquet")) && !name.starts_with('.')
}

/// Whether a file may hold samples as JSON; what only describes shards does not.
fn holds_json(name: &str) -> bool {
    let describes = DESCRIPTIONS.contains(&name) || name.ends_with("_stats.json");
    name.ends_with(".jsonl") || (name.ends_with(".json") && !describes)
}
