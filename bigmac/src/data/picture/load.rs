//! Pictures that are decoded when they are needed.

use super::super::error::{DataError, PictureProblem};
use super::decode::Encoded;
use super::limits::PictureLimits;
use super::pixels::rgb_to_pixels;
use super::reference::PictureRef;
use super::tile::{Square, Tile, cut};
use image::RgbImage;

/// One tile of a picture as the encoder wants it: `[3, size, size]`, values in [-1, 1].
///
/// # Errors
/// As [`super::decode`].
pub fn load_tile(
    picture: &PictureRef,
    tile: Tile,
    size: usize,
    limits: &PictureLimits,
) -> Result<Vec<f32>, DataError> {
    let squares = [Square { tile, size: size as u32 }];
    let cut = load_squares(picture, &squares, limits).map_err(|problem| picture.error(problem))?;
    Ok(cut.first().map(rgb_to_pixels).unwrap_or_default())
}

/// Most bytes of memory that it takes to decode a picture and to cut squares out of it, by its header.
///
/// # Errors
/// When the file is missing, its header cannot be read, or it claims more pixels than `limits`.
pub fn decoding_cost(
    picture: &PictureRef,
    squares: &[Square],
    limits: &PictureLimits,
) -> Result<u64, DataError> {
    let encoded = Encoded::read(picture, limits).map_err(|problem| picture.error(problem))?;
    Ok(encoded.cost(squares))
}

/// Decodes a picture once and cuts squares out of it.
pub(in crate::data) fn load_squares(
    picture: &PictureRef,
    squares: &[Square],
    limits: &PictureLimits,
) -> Result<Vec<RgbImage>, PictureProblem> {
    let encoded = Encoded::read(picture, limits)?;
    limits.check_bytes(encoded.cost(squares))?;
    cut(&encoded.decode(limits)?, squares)
}

/// A picture as the generator draws it: the whole, `[3, size, size]`, values in [-1, 1].
///
/// # Errors
/// As [`super::decode`].
pub fn load_square(picture: &PictureRef, size: usize, limits: &PictureLimits) -> Result<Vec<f32>, DataError> {
    load_tile(picture, Tile::Whole, size, limits)
}
