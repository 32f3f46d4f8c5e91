//! `state.json` made to fit the files beside it, so that what is in them is looked at and not only their sums.

use crate::tree::{Form, Node, quoted};
use anyhow::Result;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Writes sizes and sums of a checkpoint's files into its `state.json`, whichever of the two it holds.
///
/// # Errors
/// Where `state.json` can't be read or written.
pub fn sign_again(checkpoint: &Path) -> Result<()> {
    let path = checkpoint.join("state.json");
    let Some(mut root) = Node::read(&std::fs::read_to_string(&path)?, Form::Json) else { return Ok(()) };
    root.each_entry(&mut |key, value| {
        let Ok(bytes) = std::fs::read(checkpoint.join(key)) else { return };
        if key.is_empty() {
            return;
        }
        let size = bytes.len().to_string();
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        renew(value, &size, &quoted(&sum));
        value.each_entry(&mut |_, value| renew(value, &size, &quoted(&sum)));
    });
    std::fs::write(path, root.write(Form::Json))?;
    Ok(())
}

fn renew(value: &mut Node, size: &str, sum: &str) {
    if let Node::Raw(text) = value {
        if text.parse::<u64>().is_ok() {
            *text = size.to_owned();
        } else if text.len() == sum.len() && text.trim_matches('"').chars().all(|c| c.is_ascii_hexdigit()) {
            *text = sum.to_owned();
        }
    }
}
