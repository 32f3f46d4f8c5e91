//! Pictures that commands write: the format is the one that the file's name asks for.

use super::exit::BadInput;
use bigmac_runtime::fs::check_output;
use image::ImageFormat;
use std::path::Path;

/// The format for the file that a flag names, once such a file can be written: to be asked before the work is done.
pub(super) fn picture_format(flag: &str, path: &Path) -> anyhow::Result<ImageFormat> {
    let known = ImageFormat::from_path(path).ok();
    let format =
        known.filter(|format| [ImageFormat::Png, ImageFormat::Jpeg].contains(format)).ok_or_else(|| {
            let path = path.display();
            BadInput(format!("{flag} '{path}': expected a name that ends in .png, .jpg or .jpeg"))
        })?;
    check_output(path)?;
    Ok(format)
}
