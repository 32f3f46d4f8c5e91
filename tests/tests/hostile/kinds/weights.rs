//! Weight files: headers, offsets, types, values.

use crate::attempt::Attempt;
use crate::bytes;
use crate::commands::{Base, NEWEST};
use crate::random::Random;
use crate::state;
use crate::tree::{self, Form, Node};
use anyhow::Result;

/// Changes a file of weights, or of the optimizer's moments.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    let base = attempt.choose(random, Base::loads);
    let names =
        ["model.safetensors", "generator/diffusion_pytorch_model.safetensors", "optimizer.safetensors"];
    let resumes = base.line.contains("--resume");
    let name = names[random.below(if resumes { 3 } else { 2 })];
    let file = format!("{NEWEST}/{name}");
    let (mut values, mut is_changed) = (None, false);
    attempt.edit(&file, |bytes| {
        let before = bytes.clone();
        let what = match random.below(5) {
            0 | 1 => header(bytes, random),
            2 => {
                let (what, value) =
                    [("NaN", f32::NAN), ("inf", f32::INFINITY), ("-inf", f32::NEG_INFINITY)][random.below(3)];
                let some = random.one_in(2);
                values = Some(what);
                fill(bytes, value, some, random)
            }
            3 => {
                let at = random.below(8);
                bytes::overwrite(bytes, at, random)
            }
            _ => bytes::mutate(bytes, random),
        };
        is_changed = before != *bytes;
        what
    })?;
    let signed = random.one_in(2);
    if signed {
        state::sign_again(&attempt.folder.join(NEWEST))?;
        attempt.notes.push("sums and sizes fit".into());
    }
    match values {
        // One value may be of a row that is never looked up, so all of them.
        // A caption needs no generator.
        Some(_) if signed && name.starts_with("generator") && base.line.starts_with("caption") => {}
        Some(what) if attempt.notes[0].contains("every") => {
            attempt.must_fail(format!("{file} holds {what} only"))
        }
        _ if !signed && is_changed => attempt.must_fail(format!("{file} is not as it was saved")),
        _ => {}
    }
    Ok(())
}

/// Changes the header as a document, and writes its length; seldom a wrong one.
fn header(file: &mut Vec<u8>, random: &mut Random) -> String {
    let Some(length) = length(file) else { return "nothing".into() };
    let text = String::from_utf8_lossy(&file[8..8 + length]).into_owned();
    let Some(mut root) = Node::read(&text, Form::Json) else { return "nothing".into() };
    let what = if random.one_in(3) {
        let mut at = random.below(20);
        let value = ["F16", "BF16", "F64", "I64", "BOOL", "F8_E4M3", "f32", ""][random.below(8)];
        root.each_entry(&mut |key, node| {
            if key == "dtype" {
                if at == 0 {
                    *node = Node::Raw(tree::quoted(value));
                }
                at = at.wrapping_sub(1);
            }
        });
        format!("dtype {value}")
    } else {
        tree::mutate(&mut root, random).what
    };
    let header = root.write(Form::Json).into_bytes();
    let mut changed = (header.len() as u64).to_le_bytes().to_vec();
    if random.one_in(6) {
        changed = bytes::length(random).to_le_bytes().to_vec();
    }
    changed.extend(header);
    changed.extend(&file[8 + length..]);
    *file = changed;
    format!("header: {what}")
}

/// Fills values of f32: all of them, or one.
fn fill(file: &mut [u8], value: f32, one: bool, random: &mut Random) -> String {
    let Some(length) = length(file) else { return "nothing".into() };
    let data = &mut file[8 + length..];
    let count = data.len() / 4;
    if one {
        let at = random.below(count);
        data[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
        format!("{value} at {at}")
    } else {
        data.chunks_exact_mut(4).for_each(|four| four.copy_from_slice(&value.to_le_bytes()));
        format!("every value {value}")
    }
}

/// The header's length, where the file is long enough for it.
fn length(file: &[u8]) -> Option<usize> {
    let length = usize::try_from(u64::from_le_bytes(file.get(..8)?.try_into().ok()?)).ok()?;
    (length.checked_add(8)? <= file.len()).then_some(length)
}
