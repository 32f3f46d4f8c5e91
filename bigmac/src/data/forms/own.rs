//! BigMac's own form: `text`, `images`, `draw`, `prompt`.

use super::super::picture::PictureRef;
use super::{IMAGE_MARK, RawRecord, Record, Segment, nothing_to_learn, string, strings, with_images};
use bigmac_schedule::names;

const KEYS: [&str; 5] = ["text", "images", "draw", "prompt", "id"];

/// Reads a line of BigMac's own form.
pub(super) fn record(
    raw: &RawRecord,
    named: &dyn Fn(&str) -> Result<PictureRef, String>,
) -> Result<Record, String> {
    let object = &raw.object;
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let hint = names::hint(names::nearest(key, KEYS));
        return Err(format!("'{key}' is not a valid key{hint}; known are text, images, draw, prompt and id"));
    }
    let prompt = string(object, "prompt")?.unwrap_or("");
    let text = string(object, "text")?.unwrap_or("");
    let images: Vec<PictureRef> =
        strings(object, "images")?.into_iter().map(named).collect::<Result<_, _>>()?;
    let draw = string(object, "draw")?.map(named).transpose()?;
    if draw.is_none() && text.replace(IMAGE_MARK, "").is_empty() {
        return Err(nothing_to_learn());
    }
    let mut segments = with_images(&[(prompt, false), (text, true)], images.len())?;
    segments.push(if draw.is_some() { Segment::Draw } else { Segment::End });
    Ok(Record { segments, images, draw, file: raw.file.clone(), place: raw.place.clone() })
}
