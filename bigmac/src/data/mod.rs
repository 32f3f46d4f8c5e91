//! Data sets: reading, writing, tokenizing, packing. Everything here is plain numbers and paths, no tensors.
//!
//! A line of a data set becomes a [`Record`] (what it says), a record becomes a [`Sample`] (tokens, what carries
//! loss, which pictures), and a [`StepPlan`] packs the samples of one step into microbatches. Planning reads the
//! index only; pictures are decoded by whoever runs the item ([`load_image_item`], [`load_draw_item`]).

mod dataset;
mod error;
mod files;
mod font;
mod footer;
mod forms;
mod grid;
mod guard;
mod inspect;
mod order;
mod pack;
mod picture;
mod prefetch;
mod sample;
pub mod shapes;
mod splits;
mod table;
#[cfg(test)]
mod tests;
mod tokenizer;
mod written;

pub use dataset::{Dataset, ReadOptions};
pub use error::{DataError, PictureProblem, Place};
pub use files::{DatasetFiles, find_dataset_file};
pub use forms::{DRAW_MARK, IMAGE_MARK, Record, Segment};
pub use grid::{GridCell, draw_grid};
pub use inspect::{Bar, InspectOptions, Inspection, Progress, Shown, SplitInspections, inspect};
pub use order::EpochOrder;
pub use pack::{
    DrawItem, ImageItem, PackedMicrobatch, Planner, StepPlan, StepShape, load_draw_item, load_image_item,
    pack,
};
pub use picture::{
    PictureLimits, PictureRef, Square, Tile, Tiling, decode, decoding_cost, load_square, load_tile,
    pixels_to_rgb, rgb_to_pixels, write_picture, write_png,
};
pub use prefetch::{Prefetcher, StepItem, StepPictures};
pub use sample::{Expanded, IGNORE, Layout, PlacedImage, Sample, TiledPicture};
pub use splits::{HELDOUT, SHAPES_FOLDER, TRAIN, heldout_path, training_path};
pub use tokenizer::{Encoded, Missed, Specials, Tokenizer};
pub use written::Written;
