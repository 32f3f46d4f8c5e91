//! The kinds of mutations, a file each. Adding one is that file and a line in [`KINDS`].

mod documents;
mod flags;
mod outputs;
mod pictures;
mod places;
mod schedules;
mod settings;
mod shards;
mod tables;
mod texts;
mod weights;

use crate::attempt::Attempt;
use crate::random::Random;
use anyhow::Result;
pub use flags::read_help;

/// A kind: its name, and what it does to a try.
pub type Kind = (&'static str, fn(&mut Attempt, &mut Random) -> Result<()>);

/// Every kind; tries take them in turn.
pub const KINDS: &[Kind] = &[
    ("configuration", documents::configuration),
    ("records", documents::records),
    ("checkpoint", documents::checkpoint),
    ("descriptions", documents::descriptions),
    ("tokenizer", documents::tokenizer),
    ("text", texts::mutate),
    ("settings", settings::mutate),
    ("flags", flags::mutate),
    ("weights", weights::mutate),
    ("pictures", pictures::mutate),
    ("shards", shards::mutate),
    ("tables", tables::mutate),
    ("schedules", schedules::mutate),
    ("places", places::mutate),
    ("outputs", outputs::mutate),
];
