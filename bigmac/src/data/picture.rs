//! Pictures: decoding, resizing, tiles, and pixels in [-1, 1].

use super::error::{DataError, PictureProblem};
use image::imageops::{self, FilterType};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgb, RgbImage};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

/// A picture on disk, and the line of the data set that names it (for errors).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureRef {
    path: Arc<Path>,
    origin: Option<(Arc<Path>, u32)>,
}

impl PictureRef {
    /// A picture that no data set names, such as one given on the command line.
    pub fn new(path: &Path) -> Self {
        PictureRef { path: path.into(), origin: None }
    }

    /// A picture named by `line` (from 1) of `file`.
    pub fn named_by(path: &Path, file: &Arc<Path>, line: u32) -> Self {
        PictureRef { path: path.into(), origin: Some((Arc::clone(file), line)) }
    }

    /// Where the picture lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Width and height in pixels as it is shown (after EXIF rotation), from the header alone.
    ///
    /// # Errors
    /// When the file is missing or its header cannot be read.
    pub fn dimensions(&self) -> Result<(u32, u32), DataError> {
        let mut decoder = open(&self.path).map_err(|e| self.error(e))?;
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

    /// Checks that the file is there, without opening it.
    ///
    /// # Errors
    /// When it is missing or is not a file.
    pub fn check(&self) -> Result<(), DataError> {
        match std::fs::metadata(&self.path) {
            Ok(meta) if meta.is_file() => Ok(()),
            Ok(_) => Err(self.error(std::io::Error::other("not a file").into())),
            Err(error) => Err(self.error(error.into())),
        }
    }

    fn error(&self, problem: PictureProblem) -> DataError {
        let path = self.path.to_path_buf();
        match &self.origin {
            Some((file, line)) => {
                DataError::line(file, *line, format!("picture {}: {problem}", path.display()))
            }
            None => DataError::Picture { path, problem },
        }
    }
}

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

fn blank() -> PictureProblem {
    PictureProblem("has no pixels".into())
}

fn open(path: &Path) -> Result<impl ImageDecoder, PictureProblem> {
    Ok(ImageReader::open(path)?.with_guessed_format()?.into_decoder()?)
}

/// Decodes a PNG or JPEG of any colour type to 8-bit RGB, turned as its EXIF orientation says; transparent pixels are
/// laid over white.
///
/// # Errors
/// When the file is missing, damaged, cut short or of another kind; names the line of the data set.
pub fn decode(picture: &PictureRef) -> Result<RgbImage, DataError> {
    decode_file(&picture.path).map_err(|problem| picture.error(problem))
}

fn decode_file(path: &Path) -> Result<RgbImage, PictureProblem> {
    let bytes = std::fs::read(path)?;
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format()?;
    // The PNG decoder notices a missing end itself; the JPEG decoder would fill the rest with grey.
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg_has_end(&bytes) {
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
    let fail = DataError::write(path);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    image
        .write_with_encoder(image::codecs::png::PngEncoder::new(std::io::BufWriter::new(file.as_file_mut())))
        .map_err(|e| fail(std::io::Error::other(e)))?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}
