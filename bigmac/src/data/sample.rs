//! Samples: the token ids of a record, what of them carries loss, and where its pictures go.

use super::error::{DataError, Place};
use super::forms::{DRAW_MARK, IMAGE_MARK, Record, Segment};
use super::picture::{PictureLimits, PictureRef, Tile, Tiling};
use super::tokenizer::Tokenizer;
use std::ops::Range;

/// Target of a position without loss (as in PyTorch's `cross_entropy`).
pub const IGNORE: i32 = -100;

/// How samples become tokens and pixels; the same for a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Side of the square the encoder sees, in pixels.
    pub image_size: usize,
    /// LLM positions one such square takes (after the projector).
    pub tokens_per_tile: usize,
    /// Most cells a large image is cut into; 1 = images are just resized.
    pub max_tiles: usize,
    /// Side of the square the generator draws, in pixels.
    pub draw_size: usize,
    /// Tokens a microbatch may hold, hence the longest sample.
    pub tokens_per_microbatch: usize,
    /// What a picture may take to decode.
    pub limits: PictureLimits,
}

/// An image of a sample and how it is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TiledPicture {
    /// The picture.
    pub picture: PictureRef,
    /// Its tiles.
    pub tiling: Tiling,
}

/// A record as tokens. It keeps one `<image>` token per image; [`Sample::expand`] writes them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Token ids with one `<image>` per image.
    pub tokens: Box<[u32]>,
    /// Ranges of `tokens` that are to be predicted.
    pub learned: Box<[Range<u32>]>,
    /// The images in order.
    pub images: Box<[TiledPicture]>,
    /// The picture to be drawn.
    pub draw: Option<PictureRef>,
    /// Positions that carry a token loss.
    pub target_tokens: u32,
    /// Where the data set's file holds it.
    pub place: Place,
    len: u32,
}

/// Where a tile's embeddings go in an expanded sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedImage {
    /// The picture.
    pub picture: PictureRef,
    /// Which square of it.
    pub tile: Tile,
    /// Positions of its `<image>` tokens.
    pub rows: Range<usize>,
}

/// A sample written out, one entry per LLM position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The token after each position where that carries loss, else [`IGNORE`].
    pub targets: Vec<i32>,
    /// One entry per tile, in order.
    pub images: Vec<PlacedImage>,
    /// Position of the `<draw>` mark; the generator is conditioned on the hidden states of `0..draw_at`.
    pub draw_at: Option<usize>,
}

impl Sample {
    /// Tokenizes a record. With `layout.max_tiles` > 1 it reads the images' headers, else it only checks that they are
    /// there.
    ///
    /// # Errors
    /// When a picture is missing, the tokenizer refuses the text, or the sample is longer than a microbatch; names the
    /// record's file and line.
    pub fn new(record: &Record, tokenizer: &Tokenizer, layout: &Layout) -> Result<Self, DataError> {
        let at_line = |problem| DataError::at(&record.file, record.place.clone(), problem);
        let (tokens, learned) = tokenize(record, tokenizer).map_err(at_line)?;
        let images =
            record.images.iter().map(|picture| tiled(picture, layout)).collect::<Result<Box<[_]>, _>>()?;
        if let Some(picture) = &record.draw {
            picture.check()?;
        }
        let tiles: usize = images.iter().map(|image| image.tiling.tile_count()).sum();
        let picture_tokens = tiles * layout.tokens_per_tile;
        let len = tokens.len() - images.len() + picture_tokens;
        if len > layout.tokens_per_microbatch {
            let limit = layout.tokens_per_microbatch;
            return Err(at_line(format!(
                "{len} tokens ({picture_tokens} of them for pictures), but a microbatch holds {limit}; shorten the text, or \
                 raise tokens_per_microbatch"
            )));
        }
        let target_tokens = learned.iter().map(|range| range.end - range.start).sum();
        let (tokens, learned) = (tokens.into(), learned.into());
        let draw = record.draw.clone();
        Ok(Sample {
            tokens,
            learned,
            images,
            draw,
            len: len as u32,
            target_tokens,
            place: record.place.clone(),
        })
    }

    /// LLM positions, picture tokens included.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Never: a sample has at least `<bos>`.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the sample out, each `<image>` token as often as its tiles take positions.
    pub fn expand(&self, tokenizer: &Tokenizer, layout: &Layout) -> Expanded {
        let specials = tokenizer.specials();
        let mut out = Expanded {
            tokens: Vec::with_capacity(self.len()),
            targets: Vec::with_capacity(self.len()),
            ..Expanded::default()
        };
        let mut images = self.images.iter();
        let mut learned = self.learned.iter().peekable();
        for (i, &token) in self.tokens.iter().enumerate() {
            while learned.peek().is_some_and(|range| range.end as usize <= i) {
                learned.next();
            }
            if token == specials.image {
                for (tile, picture) in
                    images.next().into_iter().flat_map(|i| i.tiling.tiles().map(|t| (t, &i.picture)))
                {
                    let rows = out.tokens.len()..out.tokens.len() + layout.tokens_per_tile;
                    out.tokens.resize(rows.end, token);
                    out.targets.resize(rows.end, IGNORE);
                    out.images.push(PlacedImage { picture: picture.clone(), tile, rows });
                }
                continue;
            }
            if learned.peek().is_some_and(|range| range.contains(&(i as u32)))
                && let Some(before) = out.targets.last_mut()
            {
                *before = token as i32;
            }
            if token == specials.draw {
                out.draw_at = Some(out.tokens.len());
            }
            out.tokens.push(token);
            out.targets.push(IGNORE);
        }
        out
    }
}

fn tiled(picture: &PictureRef, layout: &Layout) -> Result<TiledPicture, DataError> {
    let tiling = if layout.max_tiles > 1 {
        let (width, height) = picture.dimensions()?;
        Tiling::choose(width, height, layout.image_size as u32, layout.max_tiles as u32)
    } else {
        picture.check()?;
        Tiling::WHOLE
    };
    Ok(TiledPicture { picture: picture.clone(), tiling })
}

fn tokenize(record: &Record, tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<Range<u32>>), String> {
    let specials = tokenizer.specials();
    let mut tokens = vec![specials.bos];
    let mut learned: Vec<Range<u32>> = Vec::new();
    for segment in &record.segments {
        let start = tokens.len() as u32;
        let learns = match segment {
            Segment::Text { text, learned } => {
                let ids = tokenizer
                    .encode(text)
                    .map_err(|error| format!("the tokenizer refused the text: {error}"))?;
                for (id, mark) in [(specials.image, IMAGE_MARK), (specials.draw, DRAW_MARK)] {
                    if ids.contains(&id) {
                        return Err(format!(
                            "{mark} in the text {text:?}; take it out: only <image> marks a picture, and 'draw' asks for one"
                        ));
                    }
                }
                tokens.extend(ids);
                *learned
            }
            Segment::Image => {
                tokens.push(specials.image);
                false
            }
            Segment::End => {
                tokens.push(specials.eos);
                true
            }
            Segment::Draw => {
                tokens.push(specials.draw);
                true
            }
        };
        let range = start..tokens.len() as u32;
        match learned.last_mut() {
            _ if !learns || range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => learned.push(range),
        }
    }
    Ok((tokens, learned))
}
