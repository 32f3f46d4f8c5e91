//! How a picture becomes the squares that encoder and generator see.

use super::super::error::PictureProblem;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use image::imageops;

/// How a picture is cut: a grid of square cells, 1 x 1 for a picture that is taken whole.
///
/// As LLaVA-NeXT does it (`anyres`): the picture keeps its aspect, is padded with black to the grid, and a thumbnail
/// of the whole (stretched to the square) comes before the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiling {
    /// Cells across.
    pub columns: u32,
    /// Cells down.
    pub rows: u32,
}

/// One square that the encoder sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// The whole picture, stretched to the square.
    Whole,
    /// One cell of the grid.
    Cell {
        /// The grid.
        tiling: Tiling,
        /// From the left, from 0.
        column: u32,
        /// From the top, from 0.
        row: u32,
    },
}

impl Tiling {
    /// The whole picture as one square.
    pub const WHOLE: Tiling = Tiling { columns: 1, rows: 1 };

    /// The grid of at most `max_tiles` cells of `cell` pixels that keeps most of a picture's pixels, and among those
    /// the one with the least padding (`select_best_resolution` of LLaVA-NeXT).
    pub fn choose(width: u32, height: u32, cell: u32, max_tiles: u32) -> Tiling {
        let (w, h) = (u64::from(width), u64::from(height));
        let mut best = (Tiling::WHOLE, 0, u64::MAX);
        for rows in 1..=max_tiles.max(1) {
            for columns in 1..=max_tiles.max(1) / rows {
                let (fit_w, fit_h) = fit(width, height, columns * cell, rows * cell);
                let kept = (u64::from(fit_w) * u64::from(fit_h)).min(w * h);
                let wasted = u64::from(columns * cell) * u64::from(rows * cell) - kept;
                if kept > best.1 || (kept == best.1 && wasted < best.2) {
                    best = (Tiling { columns, rows }, kept, wasted);
                }
            }
        }
        best.0
    }

    /// Squares the encoder sees: 1 for a whole picture, else the cells and a thumbnail.
    pub fn tile_count(self) -> usize {
        if self == Tiling::WHOLE { 1 } else { 1 + self.columns as usize * self.rows as usize }
    }

    /// The squares in order: the whole, then the cells row by row.
    pub fn tiles(self) -> impl Iterator<Item = Tile> {
        let cells = self.tile_count() as u32 - 1;
        std::iter::once(Tile::Whole).chain((0..cells).map(move |i| Tile::Cell {
            tiling: self,
            column: i % self.columns,
            row: i / self.columns,
        }))
    }
}

/// The largest size of the picture's aspect within `max_w` x `max_h`.
fn fit(width: u32, height: u32, max_w: u32, max_h: u32) -> (u32, u32) {
    let (w, h, max_wide, max_high) =
        (u64::from(width), u64::from(height), u64::from(max_w), u64::from(max_h));
    if max_wide * h <= max_high * w {
        (max_w, ((h * max_wide + w / 2) / w).clamp(1, max_high) as u32)
    } else {
        (((w * max_high + h / 2) / h).clamp(1, max_wide) as u32, max_h)
    }
}

/// A square that is asked of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Square {
    /// Which part of the picture.
    pub tile: Tile,
    /// Its side in pixels.
    pub size: u32,
}

impl Square {
    /// Bytes of its pixels.
    pub(in crate::data) fn bytes(self) -> u64 {
        3 * u64::from(self.size) * u64::from(self.size)
    }

    /// The whole picture's size where this square is cut from it: the canvas, and the picture on it.
    fn canvas(self, width: u32, height: u32) -> ((u32, u32), (u32, u32)) {
        match self.tile {
            Tile::Whole => ((self.size, self.size), (self.size, self.size)),
            Tile::Cell { tiling: Tiling { columns, rows }, .. } => {
                let (across, down) = (columns * self.size, rows * self.size);
                ((across, down), fit(width, height, across, down))
            }
        }
    }
}

/// Cuts squares out of a picture, each resized; squares of one grid are cut from one canvas.
///
/// # Errors
/// When the picture cannot be resized.
pub(in crate::data) fn cut(image: &RgbImage, squares: &[Square]) -> Result<Vec<RgbImage>, PictureProblem> {
    let mut drawn: Option<(Tiling, u32, RgbImage)> = None;
    let one = |square: &Square| {
        let ((across, down), (w, h)) = square.canvas(image.width(), image.height());
        let Tile::Cell { tiling, column, row } = square.tile else { return stretch(image, w, h) };
        let size = square.size;
        let canvas = match drawn.take() {
            Some((of, side, canvas)) if (of, side) == (tiling, size) => canvas,
            _ => {
                let mut canvas = RgbImage::new(across, down);
                let (left, top) = ((across - w) / 2, (down - h) / 2);
                imageops::replace(&mut canvas, &stretch(image, w, h)?, left.into(), top.into());
                canvas
            }
        };
        let cell = imageops::crop_imm(&canvas, column * size, row * size, size, size).to_image();
        drawn = Some((tiling, size, canvas));
        Ok(cell)
    };
    squares.iter().map(one).collect()
}

/// Most bytes that [`cut`] allocates for a picture of `width` x `height`, the squares included.
pub(in crate::data) fn cutting_bytes(width: u32, height: u32, squares: &[Square]) -> u64 {
    // Weights of the filter, for every column and row of the picture.
    let weights = 64 * (u64::from(width) + u64::from(height));
    let mut resizing = 0;
    let mut canvas = 0;
    for square in squares {
        let ((across, down), (w, h)) = square.canvas(width, height);
        let (w, h) = (u64::from(w), u64::from(h));
        // It is resized across, then down, or the other way round, whichever is quicker.
        let between = (w * u64::from(height)).max(u64::from(width) * h);
        resizing = resizing.max(3 * between + 3 * w * h + weights);
        canvas = canvas.max(3 * u64::from(across) * u64::from(down));
    }
    resizing + canvas + squares.iter().map(|square| square.bytes()).sum::<u64>()
}

/// Catmull-Rom is the bicubic filter (a = -0.5, widened when shrinking) that SigLIP's own preprocessing uses.
fn stretch(image: &RgbImage, width: u32, height: u32) -> Result<RgbImage, PictureProblem> {
    if image.dimensions() == (width, height) {
        return Ok(image.clone());
    }
    let filter = ResizeAlg::Convolution(FilterType::CatmullRom);
    let source = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x3);
    let mut resized = Image::new(width, height, PixelType::U8x3);
    let done = source.map_err(|error| error.to_string()).and_then(|source| {
        let options = ResizeOptions::new().resize_alg(filter);
        Resizer::new().resize(&source, &mut resized, &options).map_err(|error| error.to_string())
    });
    let pixels = done.map(|()| RgbImage::from_raw(width, height, resized.into_vec()).unwrap_or_default());
    pixels.map_err(|error| PictureProblem(format!("cannot be resized to {width} x {height} ({error})")))
}
