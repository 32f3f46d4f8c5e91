//! Several pictures in one, each with a caption below: what a run has drawn, at a glance.

use super::font;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([60, 60, 67]);
/// Width of a picture in the grid, in pixels: a small picture is enlarged to it or just below, a large one shrunk.
const CELL: u32 = 192;
const MARGIN: u32 = 16;
const LINE_HEIGHT: u32 = font::HEIGHT + 5;

/// One picture of a grid.
#[derive(Clone, Debug)]
pub struct GridCell {
    /// The picture.
    pub image: RgbImage,
    /// Text below it, broken between words; only printable ASCII is shown as it is.
    pub caption: String,
}

/// Draws pictures with their captions on white, `columns` in a row (at least 1). Small pictures are enlarged by a whole
/// factor, so that each of their pixels stays a sharp square. Without cells it is a blank margin.
pub fn draw_grid(cells: &[GridCell], columns: usize) -> RgbImage {
    let columns = columns.clamp(1, cells.len().max(1));
    let captions: Vec<Vec<String>> =
        cells.iter().map(|cell| wrap(&cell.caption, CELL / font::ADVANCE)).collect();
    let pictures: Vec<RgbImage> = cells.iter().map(|cell| enlarge(&cell.image)).collect();
    // A row is as high as its highest picture and longest caption.
    let rows: Vec<(u32, u32)> = (0..cells.len())
        .step_by(columns)
        .map(|first| {
            let row = first..(first + columns).min(cells.len());
            let picture = pictures[row.clone()].iter().map(RgbImage::height).max().unwrap_or(0);
            let lines = captions[row].iter().map(Vec::len).max().unwrap_or(0) as u32;
            (picture, picture + if lines == 0 { 0 } else { 6 + lines * LINE_HEIGHT })
        })
        .collect();
    let width = MARGIN + columns as u32 * (CELL + MARGIN);
    let height = MARGIN + rows.iter().map(|(_, height)| height + MARGIN).sum::<u32>();
    let mut grid = RgbImage::from_pixel(width, height, PAPER);
    let mut top = MARGIN;
    for (r, (picture_height, row_height)) in rows.into_iter().enumerate() {
        for c in 0..columns.min(cells.len() - r * columns) {
            let i = r * columns + c;
            let left = MARGIN + c as u32 * (CELL + MARGIN);
            let inset = (CELL - pictures[i].width()) / 2;
            imageops::replace(&mut grid, &pictures[i], (left + inset).into(), top.into());
            for (l, line) in captions[i].iter().enumerate() {
                write_line(&mut grid, line, left + inset, top + picture_height + 6 + l as u32 * LINE_HEIGHT);
            }
        }
        top += row_height + MARGIN;
    }
    grid
}

fn enlarge(image: &RgbImage) -> RgbImage {
    let (width, height) = (image.width().max(1), image.height().max(1));
    if width.max(height) <= CELL {
        let factor = CELL / width.max(height);
        return imageops::resize(image, width * factor, height * factor, FilterType::Nearest);
    }
    let longest = width.max(height);
    let shrunk = |side: u32| (u64::from(side) * u64::from(CELL) / u64::from(longest)).max(1) as u32;
    imageops::resize(image, shrunk(width), shrunk(height), FilterType::CatmullRom)
}

/// Breaks a text between words into lines of at most `width` letters; a longer word is cut.
fn wrap(text: &str, width: u32) -> Vec<String> {
    let width = width.max(1) as usize;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(width) {
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + piece.len() <= width => {
                    line.push(' ');
                    line.extend(piece);
                }
                _ => lines.push(piece.iter().collect()),
            }
        }
    }
    lines
}

fn write_line(image: &mut RgbImage, line: &str, left: u32, top: u32) {
    for (i, letter) in line.chars().enumerate() {
        for (column, bits) in font::glyph(letter).into_iter().enumerate() {
            for row in (0..font::HEIGHT).filter(|row| bits >> row & 1 == 1) {
                let x = left + i as u32 * font::ADVANCE + column as u32;
                if let Some(pixel) = image.get_pixel_mut_checked(x, top + row) {
                    *pixel = INK;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_break_between_words_and_long_words_are_cut() {
        assert_eq!(wrap("small red circle", 9), ["small red", "circle"]);
        assert_eq!(wrap("abcdefgh i", 3), ["abc", "def", "gh", "i"]);
        assert!(wrap("  ", 5).is_empty());
    }

    #[test]
    fn letters_are_those_of_the_table() {
        assert_eq!(font::glyph('A'), [0x7C, 0x12, 0x11, 0x12, 0x7C]);
        assert_eq!(font::glyph('~'), [0x02, 0x01, 0x02, 0x04, 0x02]);
        assert_eq!(font::glyph('\u{e9}'), font::glyph('?'));
        assert_eq!(font::glyph('\n'), font::glyph('?'));
    }

    #[test]
    fn pictures_of_any_size_stand_in_their_cells() {
        let cell = |w, h, caption: &str| GridCell {
            image: RgbImage::from_pixel(w, h, Rgb([9, 9, 9])),
            caption: caption.into(),
        };
        let grid = draw_grid(&[cell(32, 32, "one"), cell(1000, 10, ""), cell(7, 90, "two words")], 2);
        assert_eq!(grid.width(), MARGIN + 2 * (CELL + MARGIN));
        // First row: 192 high and one line of text; second row: 90 * 2 high and one line.
        assert_eq!(
            grid.height(),
            MARGIN + (192 + 6 + LINE_HEIGHT + MARGIN) + (180 + 6 + LINE_HEIGHT + MARGIN)
        );
        assert_eq!(grid.get_pixel(MARGIN, MARGIN).0, [9, 9, 9]);
        assert_eq!(grid.get_pixel(MARGIN + 191, MARGIN + 191).0, [9, 9, 9]);
        assert_eq!(*grid.get_pixel(MARGIN + 192, MARGIN), PAPER);
        assert!(grid.pixels().any(|p| *p == INK));
        assert_eq!(draw_grid(&[], 3).dimensions(), (2 * MARGIN + CELL, MARGIN));
    }
}
