//! Text that a tokenizer does not know, and what people are told of it.

use super::super::error::Place;
use std::path::Path;

/// Text that a tokenizer does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Tokens that only say that something unknown was there.
    pub unknown: u32,
    /// Characters, white space aside, that no token stands for.
    pub dropped: u32,
}

impl Missed {
    /// Nothing was missed.
    pub fn is_none(self) -> bool {
        self == Missed::default()
    }

    /// Both together.
    pub fn plus(self, other: Missed) -> Missed {
        Missed {
            unknown: self.unknown.saturating_add(other.unknown),
            dropped: self.dropped.saturating_add(other.dropped),
        }
    }
}

/// What is missed in all samples of a data set.
#[derive(Clone, Debug, Default)]
pub(in crate::data) struct MissedTotal {
    /// Unknown tokens.
    pub unknown: usize,
    /// Characters without a token.
    pub dropped: usize,
    samples: usize,
    first: Option<Place>,
}

impl MissedTotal {
    /// Counts a sample.
    pub fn add(&mut self, missed: Missed, place: &Place) {
        if missed.is_none() {
            return;
        }
        self.unknown += missed.unknown as usize;
        self.dropped += missed.dropped as usize;
        self.samples += 1;
        self.first.get_or_insert_with(|| place.clone());
    }

    /// A sentence on the data set of `samples` samples in `file`; none where nothing is missed.
    pub fn note(&self, file: &Path, samples: usize) -> Option<String> {
        let first = self.first.as_ref()?;
        let unknown = match self.unknown {
            0 => None,
            1 => Some("1 token is the unknown one".to_owned()),
            many => Some(format!("{many} tokens are the unknown one")),
        };
        let dropped = match self.dropped {
            0 => None,
            1 => Some("1 character has no token".to_owned()),
            many => Some(format!("{many} characters have no token")),
        };
        let what: Vec<String> = unknown.into_iter().chain(dropped).collect();
        Some(format!(
            "{}: the tokenizer does not know all text in {} of {samples} samples: {}, first at {}:{first}; that text \
             is not learned",
            file.display(),
            self.samples,
            what.join(" and "),
            file.display(),
        ))
    }
}
