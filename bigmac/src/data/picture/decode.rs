//! Decoding: files of every kind to 8-bit RGB, within limits that the header is checked against first.

use super::super::error::{DataError, PictureProblem};
use super::super::guard::caught;
use super::limits::PictureLimits;
use super::reference::PictureRef;
use super::tile::{Square, cutting_bytes};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};
use std::io::Cursor;

/// Bytes of a file in which its header is looked for before the whole of it is read: a JPEG's may come after a
/// thumbnail and a colour profile.
const HEAD: u64 = 256 << 10;

/// What a picture's header says.
#[derive(Clone, Copy, Debug)]
pub(in crate::data) struct Header {
    /// Pixels across, as it is shown.
    pub width: u32,
    /// Pixels down, as it is shown.
    pub height: u32,
    /// Most bytes that decoding allocates, the picture itself included and the file's bytes not.
    pub decoding: u64,
}

/// A picture's file, and what its header says.
#[derive(Debug)]
pub(in crate::data) struct Encoded {
    bytes: Vec<u8>,
    header: Header,
}

impl PictureRef {
    /// Width and height in pixels as it is shown (after EXIF rotation), from the header alone.
    ///
    /// # Errors
    /// When the file is missing, its header cannot be read, or it claims more than `limits`.
    pub fn dimensions(&self, limits: &PictureLimits) -> Result<(u32, u32), DataError> {
        let header = self.header(limits).map_err(|problem| self.error(problem))?;
        Ok((header.width, header.height))
    }

    fn header(&self, limits: &PictureLimits) -> Result<Header, PictureProblem> {
        let head = self.head(HEAD)?;
        // A header that is cut off by the end of the piece may be whole in the file.
        match surviving(|| Header::read(&head, limits)) {
            Err(_) if head.len() as u64 == HEAD => {
                let whole = self.encoded(limits)?;
                surviving(|| Header::read(&whole, limits))
            }
            header => header,
        }
    }

    /// The bytes of the file.
    fn encoded(&self, limits: &PictureLimits) -> Result<Vec<u8>, PictureProblem> {
        limits.check_bytes(self.encoded_len()?.unwrap_or(0))?;
        let bytes = self.bytes()?;
        limits.check_bytes(bytes.len() as u64)?;
        Ok(bytes)
    }
}

impl Header {
    /// Reads the header of a file, or of its first bytes.
    fn read(bytes: &[u8], limits: &PictureLimits) -> Result<Header, PictureProblem> {
        let (format, mut decoder) = open(bytes, limits)?;
        let (width, height) = decoder.dimensions();
        if width == 0 || height == 0 {
            return Err(blank());
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > limits.pixels {
            return Err(PictureProblem(format!(
                "is {width} x {height} pixels, more than data.max_pixels = {}; make the picture smaller, or raise the key",
                limits.pixels
            )));
        }
        let turned = matches!(
            decoder.orientation()?,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        let decoding = decoding_bytes(format, pixels, decoder.color_type(), turned);
        let (width, height) = if turned { (height, width) } else { (width, height) };
        Ok(Header { width, height, decoding })
    }
}

/// Most bytes that [`Encoded::decode`] allocates at a time; a test counts them.
fn decoding_bytes(format: ImageFormat, pixels: u64, color: ColorType, turned: bool) -> u64 {
    // What decoders keep beside the picture: a progressive JPEG's coefficients (16 bits each, of channels that are padded to
    // whole blocks), a WebP's planes, a GIF's canvas and frame.
    let beside = match format {
        ImageFormat::Jpeg => 8,
        ImageFormat::WebP => 8,
        ImageFormat::Gif => 9,
        _ => 0,
    };
    let decoded = u64::from(color.bytes_per_pixel());
    let copies = if turned { 2 * decoded } else { decoded };
    let converted = match color {
        ColorType::Rgb8 => 0,
        color if color.has_alpha() => 4 + 3,
        _ => 3,
    };
    // Tables of the decoders, and rows that stick out of the picture.
    pixels * (beside + copies + converted) + (1 << 20)
}

fn blank() -> PictureProblem {
    PictureProblem("has no pixels".into())
}

fn open<'a>(
    bytes: &'a [u8],
    limits: &PictureLimits,
) -> Result<(ImageFormat, impl ImageDecoder + 'a), PictureProblem> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let Some(format) = reader.format() else {
        return Err(PictureProblem(
            "cannot be decoded: it is not a picture; PNG, JPEG, WebP and GIF are read".into(),
        ));
    };
    // Against files whose header is modest and whose colour profile or text is not.
    let mut decoder_limits = Limits::no_limits();
    decoder_limits.max_alloc = Some(limits.bytes);
    reader.limits(decoder_limits);
    Ok((format, reader.into_decoder()?))
}

/// Decodes a PNG, JPEG, WebP or GIF of any colour type to 8-bit RGB, turned as its EXIF orientation says; transparent
/// pixels are laid over white, and of an animation the first frame is taken.
///
/// # Errors
/// When the file is missing, damaged, cut short, of another kind, or claims more than `limits`; names the record.
pub fn decode(picture: &PictureRef, limits: &PictureLimits) -> Result<RgbImage, DataError> {
    let decoded = Encoded::read(picture, limits).and_then(|encoded| {
        limits.check_bytes(encoded.cost(&[]))?;
        encoded.decode(limits)
    });
    decoded.map_err(|problem| picture.error(problem))
}

impl Encoded {
    /// Reads a picture's file, and checks its header.
    pub fn read(picture: &PictureRef, limits: &PictureLimits) -> Result<Encoded, PictureProblem> {
        let bytes = picture.encoded(limits)?;
        let header = surviving(|| Header::read(&bytes, limits))?;
        Ok(Encoded { bytes, header })
    }

    /// Most bytes of memory that decoding and cutting take, the file's included.
    pub fn cost(&self, squares: &[Square]) -> u64 {
        let Header { width, height, decoding } = self.header;
        let picture = 3 * u64::from(width) * u64::from(height);
        let decoding = self.bytes.len() as u64 + decoding;
        decoding.max(picture + cutting_bytes(width, height, squares))
    }

    /// Decodes the picture.
    pub fn decode(self, limits: &PictureLimits) -> Result<RgbImage, PictureProblem> {
        surviving(|| pixels(&self.bytes, limits))
    }
}

/// Decodes a picture's file.
fn pixels(bytes: &[u8], limits: &PictureLimits) -> Result<RgbImage, PictureProblem> {
    let (format, mut decoder) = open(bytes, limits)?;
    // The other decoders notice a missing end themselves; that of JPEG would fill the rest with grey.
    if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
        let problem = "is cut short: the end of the JPEG is missing; copy or download it again";
        return Err(PictureProblem(problem.into()));
    }
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    if !image.color().has_alpha() {
        return Ok(image.into_rgb8());
    }
    let rgba = image.into_rgba8();
    Ok(RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0.map(u32::from);
        Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8))
    }))
}

/// Runs a decoder. One that panics on a damaged file fails, and no more than that.
fn surviving<T>(decode: impl FnOnce() -> Result<T, PictureProblem>) -> Result<T, PictureProblem> {
    caught(decode).unwrap_or_else(|| {
        Err(PictureProblem("cannot be decoded: the decoder failed; is the file damaged?".into()))
    })
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
