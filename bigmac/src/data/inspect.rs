//! Looking a data set over: what is in it, how long its samples are, and every error, not just the first.

use super::dataset::ReadOptions;
use super::error::{DataError, Place};
use super::files::DatasetFiles;
use super::forms::{DRAW_MARK, IMAGE_MARK, Record, Segment};
use super::grid::GridCell;
use super::picture::{PictureLimits, PictureRef, decode};
use super::sample::Sample;
use super::splits::{HELDOUT, TRAIN, heldout_path};
use super::tokenizer::MissedTotal;
use crate::config::Data;
use rayon::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Bars of a length histogram.
const BARS: usize = 12;

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct InspectOptions {
    /// Whether every picture is decoded, which finds damaged ones.
    pub decode_pictures: bool,
    /// How many samples to show.
    pub shown: usize,
}

/// What a data set holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inspection {
    /// The file.
    pub file: PathBuf,
    /// Samples that can be used.
    pub samples: usize,
    /// Images that are read.
    pub images: usize,
    /// Tiles of those images, each one encoder item.
    pub tiles: usize,
    /// Pictures to be drawn.
    pub draws: usize,
    /// Tokens of all samples, picture tokens included.
    pub tokens: usize,
    /// Tokens that carry loss.
    pub target_tokens: usize,
    /// Tokens of the shortest sample.
    pub shortest: usize,
    /// Tokens of the longest sample.
    pub longest: usize,
    /// Tokens that only say that the tokenizer does not know a piece of text.
    pub unknown_tokens: usize,
    /// Characters, white space aside, that no token stands for.
    pub dropped_characters: usize,
    /// Samples by length; bars of equal width from the shortest to the longest.
    pub histogram: Vec<Bar>,
    /// The first samples.
    pub first: Vec<Shown>,
    /// What can be used, but not as it is written.
    pub warnings: Vec<String>,
    /// Everything that is wrong, with file and line.
    pub errors: Vec<String>,
    /// What a run would stop at first; none where it would not, which with `data.on_error = "skip"` may be in spite of
    /// errors.
    #[serde(skip)]
    pub refusal: Option<String>,
}

/// What the splits of a data set hold that a run would read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SplitInspections {
    /// What is trained on.
    #[serde(flatten)]
    pub train: Inspection,
    /// Unseen samples; none where the data set comes without, or was not asked for them.
    pub heldout: Option<Inspection>,
}

impl SplitInspections {
    /// Looks over what is trained on at `train`, and the unseen samples that `data` names beside it.
    pub fn read(
        data: &Data,
        train: &Path,
        reading: &ReadOptions,
        options: InspectOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Self {
        let look = |path: &Path, split| Inspection::of(path, split, reading, options, progress);
        let heldout = match heldout_path(data, train) {
            Ok(path) => path.map(|path| look(&path, HELDOUT)),
            Err(error) => {
                let named = Path::new(&data.heldout);
                let path = if named.as_os_str().is_empty() { train } else { named };
                Some(Inspection::unusable(path, &error))
            }
        };
        SplitInspections { train: look(train, TRAIN), heldout }
    }

    /// The inspections that were made.
    pub fn all(&self) -> impl Iterator<Item = &Inspection> {
        std::iter::once(&self.train).chain(&self.heldout)
    }
}

/// One bar of a length histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// Least tokens of a sample in it.
    pub from: usize,
    /// Most tokens of a sample in it.
    pub to: usize,
    /// Samples in it.
    pub samples: usize,
}

/// A sample as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Line of the file, from 1; in a file without lines, which of its samples.
    pub line: u32,
    /// The same for people.
    #[serde(skip)]
    pub place: Place,
    /// Tokens, picture tokens included.
    pub tokens: usize,
    /// Tokens that carry loss.
    pub target_tokens: usize,
    /// The text with its marks; what carries loss stands in `[` `]`.
    pub text: String,
    /// Its pictures, the one to be drawn last.
    pub pictures: Vec<String>,
    #[serde(skip)]
    references: Vec<PictureRef>,
}

impl Inspection {
    /// As [`inspect`]; a split that cannot be read at all has that as its only error.
    pub fn of(
        path: &Path,
        split: &str,
        reading: &ReadOptions,
        options: InspectOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Self {
        inspect(path, split, reading, options, progress)
            .unwrap_or_else(|error| Inspection::unusable(path, &error))
    }

    fn unusable(path: &Path, error: &DataError) -> Self {
        let sentence = error.to_string();
        let refusal = Some(sentence.clone());
        Inspection { file: path.to_owned(), errors: vec![sentence], refusal, ..Inspection::default() }
    }

    /// The first samples' pictures with their texts, for [`super::draw_grid`].
    ///
    /// # Errors
    /// When a picture cannot be decoded.
    pub fn grid_cells(&self, limits: &PictureLimits) -> Result<Vec<GridCell>, DataError> {
        let pictures = self.first.iter().flat_map(|shown| shown.references.iter().map(move |p| (shown, p)));
        pictures
            .map(|(shown, picture)| {
                Ok(GridCell { image: decode(picture, limits)?, caption: shown.text.clone() })
            })
            .collect()
    }
}

/// How far an inspection is.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Lines to look at.
    Total(usize),
    /// Lines done since the last call.
    Done(usize),
}

/// Reads a whole data set and tells what is in it. `progress` is called from any thread.
///
/// # Errors
/// When the file cannot be found or read, or has no line; errors of single lines are listed in the result.
pub fn inspect(
    path: &Path,
    split: &str,
    reading: &ReadOptions,
    options: InspectOptions,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Inspection, DataError> {
    let ReadOptions { tokenizer, layout, images, .. } = reading;
    let files = DatasetFiles::find(path, split)?;
    let records: Vec<Result<Record, DataError>> = files.records(images.as_deref()).collect();
    if records.is_empty() {
        return Err(DataError::no_sample(&files.path));
    }
    progress(Progress::Total(records.len()));
    let checked: Vec<Result<(Record, Sample), DataError>> = records
        .into_par_iter()
        .map(|record| {
            progress(Progress::Done(1));
            let record = record?;
            let sample = Sample::new(&record, tokenizer, layout)?;
            if options.decode_pictures {
                sample.check_pictures(layout)?;
            }
            Ok((record, sample))
        })
        .collect();

    let mut found = Inspection { file: files.path, shortest: usize::MAX, ..Inspection::default() };
    let mut lengths = Vec::with_capacity(checked.len());
    let mut missed = MissedTotal::default();
    for entry in checked {
        match entry {
            Err(error) => {
                let sentence = error.to_string();
                // What is wrong with a file as a whole is never left out.
                if found.refusal.is_none() && !(reading.skip && matches!(error, DataError::Record { .. })) {
                    found.refusal = Some(sentence.clone());
                }
                found.errors.push(sentence);
            }
            Ok((record, sample)) => {
                lengths.push(sample.len());
                missed.add(sample.missed, &sample.place);
                found.add(&record, &sample, options.shown);
            }
        }
    }
    if let (0, None, Some(first)) = (found.samples, &found.refusal, found.errors.first()) {
        let none = DataError::none_left(&found.file, found.errors.len(), first);
        found.refusal = Some(none.to_string());
    }
    found.shortest = found.shortest.min(found.longest);
    found.unknown_tokens = missed.unknown;
    found.dropped_characters = missed.dropped;
    found.warnings.extend(missed.note(&found.file, found.samples));
    found.histogram = histogram(&lengths, found.shortest, found.longest);
    Ok(found)
}

impl Inspection {
    fn add(&mut self, record: &Record, sample: &Sample, shown: usize) {
        self.samples += 1;
        self.images += record.images.len();
        self.tiles += sample.images.iter().map(|image| image.tiling.tile_count()).sum::<usize>();
        self.draws += usize::from(record.draw.is_some());
        self.tokens += sample.len();
        self.target_tokens += sample.target_tokens as usize;
        self.shortest = self.shortest.min(sample.len());
        self.longest = self.longest.max(sample.len());
        if self.first.len() < shown {
            let references: Vec<PictureRef> = record.images.iter().chain(&record.draw).cloned().collect();
            self.first.push(Shown {
                line: record.place.number(),
                place: record.place.clone(),
                tokens: sample.len(),
                target_tokens: sample.target_tokens as usize,
                text: text_of(record),
                pictures: references.iter().map(PictureRef::to_string).collect(),
                references,
            });
        }
    }
}

/// The record's text with its marks; what carries loss in brackets.
fn text_of(record: &Record) -> String {
    let piece = |segment: &Segment| match segment {
        Segment::Text { text, learned: true } => format!("[{text}]"),
        Segment::Text { text, learned: false } => text.clone(),
        Segment::Image => IMAGE_MARK.to_owned(),
        Segment::End => "[<eos>]".to_owned(),
        Segment::Draw => format!("[{DRAW_MARK}]"),
    };
    // Neighbours that both carry loss share their brackets.
    record.segments.iter().map(piece).collect::<String>().replace("][", "")
}

fn histogram(lengths: &[usize], shortest: usize, longest: usize) -> Vec<Bar> {
    if lengths.is_empty() {
        return Vec::new();
    }
    let width = (longest - shortest + 1).div_ceil(BARS);
    let bars = (longest - shortest) / width + 1;
    let mut counts = vec![0; bars];
    lengths.iter().for_each(|length| counts[(length - shortest) / width] += 1);
    let bar = |(i, samples)| {
        let from = shortest + i * width;
        Bar { from, to: (from + width - 1).min(longest), samples }
    };
    counts.into_iter().enumerate().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Layout, Tokenizer};
    use super::*;
    use image::RgbImage;

    #[test]
    fn bars_hold_every_sample_once() {
        let lengths = [5, 5, 6, 40, 41, 17];
        let bars = histogram(&lengths, 5, 41);
        assert!(bars.len() <= BARS);
        assert_eq!(bars.iter().map(|b| b.samples).sum::<usize>(), lengths.len());
        assert_eq!((bars[0].from, bars[bars.len() - 1].to), (5, 41));
        assert!(bars.windows(2).all(|pair| pair[0].to + 1 == pair[1].from));
        assert_eq!(histogram(&[7, 7], 7, 7), [Bar { from: 7, to: 7, samples: 2 }]);
    }

    #[test]
    fn every_error_is_listed_and_the_rest_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        RgbImage::new(4, 4).save(folder.path().join("a.png")).unwrap();
        std::fs::write(folder.path().join("b.png"), b"no picture").unwrap();
        let lines = [
            r#"{"prompt": "Say: ", "text": "hello"}"#,
            r#"{"text": "x", "images": ["b.png"]}"#,
            r#"{"text": "y", "images": ["a.png"]}"#,
            r#"{"txt": "y"}"#,
            r#"{"prompt": "y", "draw": "a.png"}"#,
            r#"{"text": "z", "images": ["c.png"]}"#,
        ];
        std::fs::write(folder.path().join("train.jsonl"), lines.join("\n")).unwrap();
        let layout = Layout {
            image_size: 8,
            tokens_per_tile: 4,
            max_tiles: 1,
            draw_size: 8,
            tokens_per_microbatch: 64,
            limits: PictureLimits::default(),
        };
        let reading = ReadOptions { tokenizer: Tokenizer::bytes(), layout, images: None, skip: false };
        let look = |decode_pictures| {
            let options = InspectOptions { decode_pictures, shown: 1 };
            inspect(folder.path(), "train", &reading, options, &|_| {}).unwrap()
        };
        let found = look(true);
        assert_eq!((found.samples, found.images, found.tiles, found.draws), (3, 1, 1, 1));
        // <bos>Say: hello<eos> 12, <bos> 4 picture tokens y <eos> 7, <bos>y<draw> 3.
        assert_eq!(
            (found.tokens, found.target_tokens, found.shortest, found.longest),
            (22, 6 + 2 + 1, 3, 12)
        );
        assert_eq!(found.first[0].text, "Say: [hello<eos>]");
        let lines: Vec<&str> =
            found.errors.iter().filter_map(|e| e.split("train.jsonl:").nth(1)?.get(..1)).collect();
        assert_eq!(lines, ["2", "4", "6"]);
        assert_eq!(look(false).errors.len(), 2);
    }
}
