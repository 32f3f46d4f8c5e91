//! Names of files that are kept for evaluation, and never trained on.

/// The split that is learned from. What is named for another is never taken for it.
pub(super) const TRAIN: &str = "train";
/// Words in a file's name that say it is kept for evaluation.
const UNSEEN: [&str; 10] =
    ["heldout", "held", "holdout", "validation", "valid", "val", "test", "testing", "eval", "dev"];

/// Whether a file's name says that it is kept for evaluation: `heldout.jsonl`, `captions_val2014.json`.
pub(super) fn is_unseen(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_lowercase();
    let mut words = stem.split(|c: char| !c.is_alphabetic()).peekable();
    !stem.contains(TRAIN) && words.any(|word| UNSEEN.contains(&word))
}
