//! Tests of what crosses the files of this module, on data sets written to temporary folders.

mod accounts;
mod containers;
mod folders;
mod forms;
mod json;
mod packing;
mod pictures;
mod prefetch;
mod reading;
mod sets;
mod shards;
mod tables;
mod tokens;

use super::*;
use image::{Rgb, RgbImage};
use std::path::PathBuf;
use std::sync::Arc;

const LAYOUT: Layout = Layout {
    image_size: 8,
    tokens_per_tile: 4,
    max_tiles: 1,
    draw_size: 4,
    tokens_per_microbatch: 64,
    limits: PictureLimits { pixels: 1_000_000, bytes: 1 << 24 },
};

/// A data set in a folder of its own, with the pictures `a.png` (8 x 8), `b.png` (20 x 6) and `sub/c.png`.
struct Set {
    folder: tempfile::TempDir,
}

impl Set {
    fn new(name: &str, contents: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), contents).unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        for (file, width, height) in [("a.png", 8, 8), ("b.png", 20, 6), ("sub/c.png", 3, 5)] {
            gradient(width, height).save(folder.path().join(file)).unwrap();
        }
        Set { folder }
    }

    fn lines(lines: &[&str]) -> Self {
        Set::new("train.jsonl", lines.join("\n"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The name that a record gives a picture of this set.
    fn name_of(&self, picture: &PictureRef) -> PathBuf {
        picture.path().unwrap().strip_prefix(self.folder.path()).unwrap().to_owned()
    }

    fn load(&self) -> Result<Dataset, DataError> {
        self.load_with(&LAYOUT)
    }

    fn load_with(&self, layout: &Layout) -> Result<Dataset, DataError> {
        let options =
            ReadOptions { tokenizer: Tokenizer::bytes(), layout: *layout, images: None, skip: false };
        Dataset::load(self.folder.path(), "train", &options)
    }

    /// What loading says of a set with an error, from the file's name on.
    fn error(&self) -> String {
        let error = self.load().expect_err("the set has an error").to_string();
        error.replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn planner(&self, batch: usize, microbatches: usize, seed: u64) -> Planner {
        Planner::new(Arc::new(self.load().unwrap()), StepShape { batch, microbatches, replicas: 1, seed })
            .unwrap()
    }
}

fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 12) as u8, (y * 40) as u8, 200]))
}

/// Token ids of `text` as bytes, with `B` for `<bos>`, `E` for `<eos>`, `I` for `<image>` and `D` for `<draw>`.
fn ids(text: &str) -> Vec<u32> {
    let specials = Tokenizer::bytes().specials();
    text.chars()
        .map(|c| match c {
            'B' => specials.bos,
            'E' => specials.eos,
            'I' => specials.image,
            'D' => specials.draw,
            other => u32::from(other),
        })
        .collect()
}

/// Targets written as [`ids`], with `.` for no loss.
fn targets(text: &str) -> Vec<i32> {
    text.chars().zip(ids(text)).map(|(c, id)| if c == '.' { IGNORE } else { id as i32 }).collect()
}
