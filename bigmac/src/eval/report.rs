//! Files that show an evaluation: captions as text, captions and drawings as picture grids.

use super::{Caption, Drawing};
use crate::data::{GridCell, PictureLimits, decode, draw_grid, pixels_to_rgb, write_png};
use crate::train::TrainError;
use bigmac_runtime::fs::write_atomically;
use std::path::Path;

const COLUMNS: usize = 4;
/// Cells of a grid: more cannot be taken in at a glance.
const SHOWN: usize = 24;

/// Writes `NAME.txt` with every caption and `NAME.png` with the first pictures and what the model says of them; nothing
/// where there are none.
///
/// # Errors
/// [`TrainError::Data`] or [`TrainError::Runtime`] when a file cannot be read or written.
pub fn write_captions(
    folder: &Path,
    name: &str,
    captions: &[Caption],
    limits: &PictureLimits,
) -> Result<(), TrainError> {
    if captions.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    let mut cells = Vec::new();
    for caption in captions {
        let mark = if caption.right { "right" } else { "wrong" };
        text.push_str(&format!("{mark}\n  wanted: {}\n  given:  {}\n", caption.wanted, caption.given));
        if let Some(picture) = caption.picture.as_ref().filter(|_| cells.len() < SHOWN) {
            let caption =
                if caption.right { caption.given.clone() } else { format!("WRONG: {}", caption.given) };
            cells.push(GridCell { image: decode(picture, limits)?, caption });
        }
    }
    write_atomically(&folder.join(format!("{name}.txt")), |w| w.write_all(text.as_bytes()))?;
    Ok(write_png(&folder.join(format!("{name}.png")), &draw_grid(&cells, COLUMNS))?)
}

/// Writes `NAME.png` with the first drawings and their descriptions; nothing where there are none.
///
/// # Errors
/// [`TrainError::Data`] or [`TrainError::Runtime`] when the file cannot be written.
pub fn write_drawings(
    folder: &Path,
    name: &str,
    drawings: &[Drawing],
    side: usize,
) -> Result<(), TrainError> {
    if drawings.is_empty() {
        return Ok(());
    }
    let mut cells = Vec::new();
    for drawing in drawings.iter().take(SHOWN) {
        let wrong = drawing.verdict.is_some_and(|v| !v.exact);
        let caption = if wrong { format!("WRONG: {}", drawing.text) } else { drawing.text.clone() };
        cells.push(GridCell { image: pixels_to_rgb(&drawing.pixels, side, side)?, caption });
    }
    Ok(write_png(&folder.join(format!("{name}.png")), &draw_grid(&cells, COLUMNS))?)
}
