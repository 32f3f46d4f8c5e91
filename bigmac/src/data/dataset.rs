//! A data set in memory: every sample's tokens and paths, no pixels.

use super::error::DataError;
use super::files::DatasetFiles;
use super::forms::Record;
use super::sample::{Expanded, Layout, Sample};
use super::tokenizer::Tokenizer;
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
    /// Why each sample that was left out cannot be used, in the order of the file; empty unless
    /// [`ReadOptions::skip`] was set.
    pub skipped: Vec<DataError>,
    /// The tokenizer it was read with.
    pub tokenizer: Tokenizer,
    /// The layout it was read with.
    pub layout: Layout,
}

impl Dataset {
    /// Reads and tokenizes a data set: a file, or a folder with `SPLIT.jsonl` (see [`DatasetFiles::find`]).
    ///
    /// # Errors
    /// The first line that cannot be used, by file and line: bad JSON, marks that do not match the images, a missing
    /// picture, a sample longer than a microbatch; or a file without any sample. With [`ReadOptions::skip`] such lines
    /// are left out, and it is an error when none is left, or when what is wrong hides the rest of a file.
    pub fn load(path: &Path, split: &str, options: &ReadOptions) -> Result<Self, DataError> {
        let ReadOptions { tokenizer, layout, images, .. } = options;
        let files = DatasetFiles::find(path, split)?;
        let records: Vec<Result<Record, DataError>> = files.records(images.as_deref()).collect();
        if records.is_empty() {
            return Err(DataError::no_sample(&files.path));
        }
        let made: Vec<Result<Sample, DataError>> =
            records.into_par_iter().map(|record| Sample::new(&record?, tokenizer, layout)).collect();
        // Gathered in order, so that the error told is that of the first bad line, whichever thread met its own first.
        let mut samples = Vec::with_capacity(made.len());
        let mut skipped = Vec::new();
        for sample in made {
            match sample {
                Ok(sample) => samples.push(sample),
                // What is wrong with a file hides how many samples it holds: that is not left out.
                Err(error @ DataError::Record { .. }) if options.skip => skipped.push(error),
                Err(error) => return Err(error),
            }
        }
        if samples.is_empty() {
            let count = skipped.len();
            let first = skipped.first().map(ToString::to_string).unwrap_or_default();
            let problem = format!("holds no sample that can be used: {count} are wrong; the first: {first}");
            return Err(DataError::contents(&files.path, problem));
        }
        Ok(Dataset { file: files.path, samples, skipped, tokenizer: tokenizer.clone(), layout: *layout })
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
