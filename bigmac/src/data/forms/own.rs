//! BigMac's own form, and that of Hugging Face's image folders: `text` with its pictures, `draw`, `prompt`.

use super::keys::{TEXTS, check, string};
use super::marks::Pieces;
use super::{Named, RawRecord, Record, pictures};

/// Reads a record of BigMac's own form.
pub(super) fn record(raw: &RawRecord, named: Named<'_>) -> Result<Record, String> {
    let object = &raw.object;
    check(object, &TEXTS)?;
    let prompt = string(object, "prompt")?.unwrap_or("");
    let text = string(object, "text")?.unwrap_or("");
    let images = pictures::listed(raw, named)?;
    let draw = pictures::drawn(raw, named)?;
    let mut pieces = Pieces::default();
    pieces.marked(prompt, false);
    pieces.marked(text, true);
    if draw.is_none() && !pieces.learns() {
        return Err("nothing to learn: no text and no picture to draw; give 'text', 'draw' or both".into());
    }
    if draw.is_some() {
        pieces.draw()
    } else {
        pieces.end()
    }
    let (segments, images) = pieces.assemble(images)?;
    Ok(Record { segments, images, draw, file: raw.file.clone(), place: raw.place.clone() })
}
