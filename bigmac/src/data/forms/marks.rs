//! Marks: where pictures go in texts, and how marks and pictures are put together.

use super::super::picture::PictureRef;
use super::{IMAGE_MARK, Segment};

/// A stretch of a record, before it is known which pictures its marks take.
#[derive(Debug)]
enum Piece {
    Text {
        text: String,
        learned: bool,
    },
    /// Takes the next of the record's images.
    Mark,
    /// A picture that is named in place.
    Picture(PictureRef),
    /// Where the record's images go if no mark takes them.
    Unmarked,
    End,
    Draw,
}

/// A record as it is put together.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    /// The first answer that holds an `<image>`, by its turn (from 1). That is text there, but may have been meant
    /// otherwise.
    mark_in_answer: Option<usize>,
}

/// A stretch of a text.
enum Cut<'a> {
    Text(&'a str),
    Mark,
}

impl Pieces {
    /// Adds text as it stands. Neighbours of the same kind become one, as a tokenizer may join characters across.
    pub fn text(&mut self, more: &str, learns: bool) {
        match self.pieces.last_mut() {
            _ if more.is_empty() => {}
            Some(Piece::Text { text, learned }) if *learned == learns => text.push_str(more),
            _ => self.pieces.push(Piece::Text { text: more.to_owned(), learned: learns }),
        }
    }

    /// Adds text whose `<image>` marks take pictures; `\<image>` writes the text `<image>`.
    pub fn marked(&mut self, text: &str, learned: bool) {
        cut(text, |piece| match piece {
            Cut::Text(text) => self.text(text, learned),
            Cut::Mark => self.mark(),
        });
    }

    /// Adds text in which `<image>` is text, be it written so or `\<image>`. Returns whether one stands without a
    /// backslash.
    pub fn unmarked(&mut self, text: &str, learned: bool) -> bool {
        let mut bare = false;
        cut(text, |piece| match piece {
            Cut::Text(text) => self.text(text, learned),
            Cut::Mark => {
                bare = true;
                self.text(IMAGE_MARK, learned);
            }
        });
        bare
    }

    /// Adds the answer of a turn (from 1).
    pub fn answer(&mut self, text: &str, turn: usize) {
        if self.unmarked(text, true) {
            self.mark_in_answer.get_or_insert(turn);
        }
    }

    pub fn mark(&mut self) {
        self.pieces.push(Piece::Mark);
    }

    pub fn picture(&mut self, picture: PictureRef) {
        self.pieces.push(Piece::Picture(picture));
    }

    /// Says that images which no mark takes go here; without this, they come first.
    pub fn images_go_here(&mut self) {
        self.pieces.push(Piece::Unmarked);
    }

    pub fn end(&mut self) {
        self.pieces.push(Piece::End);
    }

    pub fn draw(&mut self) {
        self.pieces.push(Piece::Draw);
    }

    /// Whether there is text to learn.
    pub fn learns(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Text { learned: true, .. }))
    }

    /// Gives marks their pictures: the segments, and all images in their order.
    pub fn assemble(self, images: Vec<PictureRef>) -> Result<(Vec<Segment>, Vec<PictureRef>), String> {
        let marks = self.pieces.iter().filter(|piece| matches!(piece, Piece::Mark)).count();
        self.check(marks, images.len())?;
        let mut segments = Vec::with_capacity(self.pieces.len() + images.len());
        let mut placed = Vec::with_capacity(images.len());
        let mut images = images.into_iter();
        let here = self.pieces.iter().any(|piece| matches!(piece, Piece::Unmarked));
        if marks == 0 && !here {
            segments.resize(images.len(), Segment::Image);
            placed.extend(images.by_ref());
        }
        for piece in self.pieces {
            match piece {
                Piece::Text { text, learned } => match segments.last_mut() {
                    // A place for images that took none may lie between two texts.
                    Some(Segment::Text { text: before, learned: l }) if *l == learned => {
                        before.push_str(&text)
                    }
                    _ => segments.push(Segment::Text { text, learned }),
                },
                Piece::Mark => {
                    placed.extend(images.next());
                    segments.push(Segment::Image);
                }
                Piece::Picture(picture) => {
                    placed.push(picture);
                    segments.push(Segment::Image);
                }
                // Where there are marks they take all of the images, also those that come later.
                Piece::Unmarked if marks > 0 => {}
                Piece::Unmarked => {
                    segments.extend(std::iter::repeat_n(Segment::Image, images.len()));
                    placed.extend(images.by_ref());
                }
                Piece::End => segments.push(Segment::End),
                Piece::Draw => segments.push(Segment::Draw),
            }
        }
        Ok((segments, placed))
    }

    /// Whether marks and images match: one mark for each, or none at all.
    fn check(&self, marks: usize, images: usize) -> Result<(), String> {
        if marks == images {
            return Ok(());
        }
        let answer = self.mark_in_answer;
        if marks > 0 {
            let note = answer.map(|turn| format!(" (the one in answer {turn} is text)")).unwrap_or_default();
            return Err(format!(
                "{marks} {IMAGE_MARK} marks{note}, but {images} images; write one mark per image, or none to have the \
                 images come first"
            ));
        }
        let named = self.pieces.iter().filter(|piece| matches!(piece, Piece::Picture(_))).count();
        if named > 0 {
            return Err(format!(
                "{images} images that no mark takes, beside {named} that parts of the content name; name each in one \
                 place only"
            ));
        }
        // An output of text and a picture to be drawn is written so in other projects' files.
        match answer {
            None => Ok(()),
            Some(turn) => Err(format!(
                "{IMAGE_MARK} in answer {turn}; images go into human turns: put a mark there for each of the {images} \
                 images, or give a picture that is to be drawn as 'draw'; \\{IMAGE_MARK} writes the text"
            )),
        }
    }
}

/// Cuts a text at its marks. Of backslashes right before a mark the last is taken away, and the mark is text.
fn cut<'a>(text: &'a str, mut each: impl FnMut(Cut<'a>)) {
    let mut rest = text;
    while let Some(at) = rest.find(IMAGE_MARK) {
        let (before, after) = rest.split_at(at);
        match before.strip_suffix('\\') {
            Some(before) => {
                each(Cut::Text(before));
                each(Cut::Text(&after[..IMAGE_MARK.len()]));
            }
            None => {
                each(Cut::Text(before));
                each(Cut::Mark);
            }
        }
        rest = &after[IMAGE_MARK.len()..];
    }
    each(Cut::Text(rest));
}
