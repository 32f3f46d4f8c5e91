//! A data set in memory: every sample's tokens and paths, no pixels.

use super::error::DataError;
use super::files::DatasetFiles;
use super::forms::Record;
use super::sample::{Expanded, Layout, Sample};
use super::splits::TRAIN;
use super::tokenizer::{MissedTotal, Tokenizer};
use super::written::Written;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// How records become samples; the same for every split of a run.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// Tokens and pixels of a sample.
    pub layout: Layout,
    /// The folder that pictures are named from; none: that of the file that names them.
    pub images: Option<PathBuf>,
    /// Whether samples that cannot be used are left out; else the first of them is an error.
    pub skip: bool,
}

/// A data set in memory: every sample's tokens and paths, no pixels.
#[derive(Debug)]
pub struct Dataset {
    /// The file it was read from, or the folder or pattern that names several.
    pub file: PathBuf,
    /// All samples, in the order of the file; at least one.
    pub samples: Vec<Sample>,
    /// The tokenizer it was read with.
    pub tokenizer: Tokenizer,
    /// The layout it was read with.
    pub layout: Layout,
}

impl Dataset {
    /// Reads and tokenizes a data set: a file, or a folder with `SPLIT.jsonl` (see [`DatasetFiles::find`]). Samples of
    /// a split that is not [`TRAIN`] keep their texts as written.
    ///
    /// # Errors
    /// The first line that cannot be used, by file and line: bad JSON, marks that do not match the images, a missing
    /// picture, a sample longer than a microbatch; or a file without any sample.
    pub fn load(path: &Path, split: &str, options: &ReadOptions) -> Result<Self, DataError> {
        let ReadOptions { tokenizer, layout, images, .. } = options;
        let files = DatasetFiles::find(path, split)?;
        let records = files.records(images.as_deref()).collect::<Result<Vec<Record>, _>>()?;
        if records.is_empty() {
            return Err(DataError::no_sample(&files.path));
        }
        let keep = split != TRAIN;
        let sample = |record: &Record| {
            let mut sample = Sample::new(record, tokenizer, layout)?;
            sample.written = keep.then(|| Box::new(Written::of(record)));
            Ok(sample)
        };
        let made: Vec<Result<Sample, DataError>> = records.par_iter().map(sample).collect();
        // Gathered in order, so that the error told is that of the first bad line, whichever thread met its own first.
        let samples = made.into_iter().collect::<Result<Vec<Sample>, _>>()?;
        Ok(Dataset { file: files.path, samples, tokenizer: tokenizer.clone(), layout: *layout })
    }

    /// A sentence on text that the tokenizer does not know; none where it knows all.
    pub fn note(&self) -> Option<String> {
        let mut total = MissedTotal::default();
        self.samples.iter().for_each(|sample| total.add(sample.missed, &sample.place));
        total.note(&self.file, self.len())
    }

    /// Number of samples; at least 1.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Never: a file without samples is an error.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Sample `index` written out, one entry per LLM position.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    pub fn expand(&self, index: usize) -> Expanded {
        self.samples[index].expand(&self.tokenizer, &self.layout)
    }
}
