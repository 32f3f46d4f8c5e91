//! Small data sets in temporary folders, and plans whose microbatches hold exactly what a test wants.

use anyhow::{Context as _, Result};
use bigmac::config::Config;
use bigmac::data::{StepPlan, pack, write_png};
use bigmac::train::Session;
use image::{Rgb, RgbImage};
use std::path::PathBuf;
use tempfile::TempDir;

/// A data set on disk that is deleted when it goes out of scope, and the session that reads it.
#[derive(Debug)]
pub struct SmallSet {
    /// Everything a run starts with.
    pub session: Session,
    folder: TempDir,
}

/// Side lengths of the pictures `0.png`, `1.png`, ... of a set: none has the size that a module works at.
const PICTURES: [(u32, u32); 4] = [(20, 14), (9, 9), (33, 16), (16, 40)];

impl SmallSet {
    /// Writes `lines` (JSON, pictures named `0.png` to `3.png`) and four pictures, and opens a session over them with
    /// `config`, whose `data.path` is replaced.
    ///
    /// # Errors
    /// Those of files, and of data or a configuration that cannot be used.
    pub fn new(lines: &[&str], config: &Config) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("train.jsonl"), lines.join("\n"))?;
        for (number, (width, height)) in PICTURES.into_iter().enumerate() {
            let channel =
                |x: u32, y: u32, c: u32| ((x * 31 + y * 17 + c * 59 + number as u32 * 83) % 256) as u8;
            let picture = RgbImage::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|c| channel(x, y, c))));
            write_png(&folder.path().join(format!("{number}.png")), &picture)?;
        }
        let mut config = config.clone();
        config.data.path = folder.path().to_str().context("the temporary folder's name is no text")?.into();
        let session = Session::open(&config, &|_| ())?;
        Ok(SmallSet { session, folder })
    }

    /// Where a picture lies.
    pub fn picture(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("{number}.png"))
    }

    /// A step of the given microbatches, each a list of lines (from 0).
    ///
    /// # Errors
    /// For a line that is not there, or an empty microbatch.
    pub fn plan(&self, microbatches: &[&[usize]]) -> Result<StepPlan> {
        let mut plan = StepPlan::default();
        let mut samples = 0;
        for records in microbatches {
            let part = pack(self.session.planner.dataset(), records, 1)?;
            plan.target_tokens += part.target_tokens;
            plan.drawn_samples += part.drawn_samples;
            plan.drawn_elements += part.drawn_elements;
            for mut load in part.microbatches {
                // Samples are numbered in the whole step, since their number keys their noise.
                load.samples.iter_mut().for_each(|s| *s += samples);
                load.images.iter_mut().for_each(|i| i.sample += samples);
                load.draws.iter_mut().for_each(|d| d.sample += samples);
                plan.microbatches.push(load);
            }
            samples += records.len() as u32;
        }
        Ok(plan)
    }
}
