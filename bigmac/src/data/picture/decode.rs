//! Decoding: files of every kind to 8-bit RGB, within limits that the header is checked against.

use super::super::error::{DataError, PictureProblem};
use super::PictureRef;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgb, RgbImage};
use std::io::Cursor;

impl PictureRef {
    /// Width and height in pixels as it is shown (after EXIF rotation), from the header alone.
    ///
    /// # Errors
    /// When the file is missing or its header cannot be read.
    pub fn dimensions(&self) -> Result<(u32, u32), DataError> {
        let mut decoder = open(self).map_err(|e| self.error(e))?;
        let turned = matches!(
            decoder.orientation().map_err(|e| self.error(e.into()))?,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        let (width, height) = decoder.dimensions();
        if width == 0 || height == 0 {
            return Err(self.error(blank()));
        }
        Ok(if turned { (height, width) } else { (width, height) })
    }
}

fn blank() -> PictureProblem {
    PictureProblem("has no pixels".into())
}

fn open(picture: &PictureRef) -> Result<impl ImageDecoder, PictureProblem> {
    Ok(ImageReader::new(Cursor::new(picture.bytes()?)).with_guessed_format()?.into_decoder()?)
}

/// Decodes a PNG or JPEG of any colour type to 8-bit RGB, turned as its EXIF orientation says; transparent pixels are
/// laid over white.
///
/// # Errors
/// When the file is missing, damaged, cut short or of another kind; names the line of the data set.
pub fn decode(picture: &PictureRef) -> Result<RgbImage, DataError> {
    decode_bytes(&picture.bytes().map_err(|error| picture.error(error.into()))?)
        .map_err(|problem| picture.error(problem))
}

fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, PictureProblem> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    // The PNG decoder notices a missing end itself; the JPEG decoder would fill the rest with grey.
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg_has_end(bytes) {
        let problem = "is cut short: the end of the JPEG is missing; copy or download it again";
        return Err(PictureProblem(problem.into()));
    }
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    if image.width() == 0 || image.height() == 0 {
        return Err(blank());
    }
    if !image.color().has_alpha() {
        return Ok(image.into_rgb8());
    }
    let rgba = image.into_rgba8();
    Ok(RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0.map(u32::from);
        Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8))
    }))
}

/// Whether a JPEG goes on to its end-of-image marker (ITU-T T.81, B.1). Segments are stepped over by their lengths, as
/// an EXIF thumbnail in one of them has such a marker of its own.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    let mut at = 2;
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        match (first, marker) {
            (0xFF, END_OF_IMAGE) => return true,
            // Entropy-coded data, stuffed bytes, fill bytes, restart markers, TEM: no length follows.
            (0xFF, 0xFF) => at += 1,
            (0xFF, 0x00 | 0x01 | 0xD0..=0xD8) => at += 2,
            (0xFF, _) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
            _ => at += 1,
        }
    }
    false
}
