//! How a picture becomes the squares that encoder and generator see.

use super::super::error::DataError;
use super::PictureRef;
use super::decode::decode;
use super::pixels::rgb_to_pixels;
use image::RgbImage;
use image::imageops::{self, FilterType};

/// How a picture is cut: a grid of square cells, 1 x 1 for a picture that is taken whole.
///
/// As LLaVA-NeXT does it (`anyres`): the picture keeps its aspect, is padded with black to the grid, and a thumbnail
/// of the whole (stretched to the square) comes before the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Cells across.
    pub columns: u32,
    /// Cells down.
    pub rows: u32,
}

/// One square that the encoder sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// One tile of a picture as the encoder wants it: `[3, size, size]`, values in [-1, 1].
pub fn load_tile(picture: &PictureRef, tile: Tile, size: usize) -> Result<Vec<f32>, DataError> {
    let image = decode(picture)?;
    let size = size as u32;
    Ok(match tile {
        Tile::Whole => rgb_to_pixels(&stretch(&image, size, size)),
        Tile::Cell { tiling, column, row } => {
            let (canvas_w, canvas_h) = (tiling.columns * size, tiling.rows * size);
            let (w, h) = fit(image.width(), image.height(), canvas_w, canvas_h);
            let mut canvas = RgbImage::new(canvas_w, canvas_h);
            let (left, top) = ((canvas_w - w) / 2, (canvas_h - h) / 2);
            imageops::replace(&mut canvas, &stretch(&image, w, h), left.into(), top.into());
            rgb_to_pixels(&imageops::crop_imm(&canvas, column * size, row * size, size, size).to_image())
        }
    })
}

/// A picture as the generator draws it: the whole, `[3, size, size]`, values in [-1, 1].
pub fn load_square(picture: &PictureRef, size: usize) -> Result<Vec<f32>, DataError> {
    load_tile(picture, Tile::Whole, size)
}

/// Catmull-Rom is the bicubic filter (a = -0.5, widened when shrinking) that SigLIP's own preprocessing uses.
fn stretch(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    if image.dimensions() == (width, height) {
        return image.clone();
    }
    imageops::resize(image, width, height, FilterType::CatmullRom)
}
