//! Pixels in [-1, 1], and the files that they are written to.

use super::super::error::DataError;
use bigmac_runtime::fs::write_atomically;
use image::{ImageFormat, Rgb, RgbImage};
use std::io::{self, Cursor};
use std::path::Path;

/// 8-bit RGB to `[3, height, width]` in [-1, 1] (0 -> -1, 255 -> 1).
pub fn rgb_to_pixels(image: &RgbImage) -> Vec<f32> {
    let plane = (image.width() * image.height()) as usize;
    let mut pixels = vec![0.0; 3 * plane];
    for (i, rgb) in image.pixels().enumerate() {
        for channel in 0..3 {
            pixels[channel * plane + i] = f32::from(rgb.0[channel]) / 127.5 - 1.0;
        }
    }
    pixels
}

/// `[3, height, width]` in [-1, 1] to 8-bit RGB, rounded; values outside are cut, NaN becomes black.
///
/// # Errors
/// When `pixels` does not hold 3 * `height` * `width` values.
pub fn pixels_to_rgb(pixels: &[f32], width: usize, height: usize) -> Result<RgbImage, DataError> {
    let plane = width * height;
    if pixels.len() != 3 * plane || plane == 0 {
        return Err(DataError::pixel_count(pixels.len(), width, height));
    }
    Ok(RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let at = y as usize * width + x as usize;
        Rgb([0, 1, 2].map(|channel| ((pixels[channel * plane + at] + 1.0) * 127.5).round() as u8))
    }))
}

/// Writes an RGB picture as PNG, aside and then renamed, so that no reader sees half of it.
///
/// # Errors
/// When the file cannot be written.
pub fn write_png(path: &Path, image: &RgbImage) -> Result<(), DataError> {
    write_picture(path, image, ImageFormat::Png)
}

/// The same in another format.
///
/// # Errors
/// As [`write_png`]; for a format without an encoder.
pub fn write_picture(path: &Path, image: &RgbImage, format: ImageFormat) -> Result<(), DataError> {
    let mut bytes = Vec::new();
    image
        .write_to(&mut Cursor::new(&mut bytes), format)
        .map_err(|error| DataError::Write { path: path.to_path_buf(), source: io::Error::other(error) })?;
    Ok(write_atomically(path, |file| file.write_all(&bytes))?)
}
