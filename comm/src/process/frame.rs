//! Frames: what crosses between processes. A frame is a header and, for a tensor with values, its bytes:
//!
//! `u32` length of the rest of the header, `u8` kind, then by kind
//! - message: `u64` group, `u64` tag, body
//! - part of a collective: `u64` group, `u64` call, `u8` round, text, body
//! - failed: `u64` rank, text
//! - good-bye: nothing
//!
//! A text is a `u32` and so many bytes of UTF-8. A body is a `u8`: nothing; a wish (`u64` color, `i64` key); a shape;
//! a shape whose values follow the header. A shape is a `u8` dtype, a `u8` number of dimensions and as many `u64`.
//! Numbers and values are little-endian.

use crate::error::Result;
use crate::group::Hold;
use crate::mailbox::{Content, Letter, Part};
use crate::tag::Tag;
use bigmac_runtime::{DType, Dims, Error, Spec, Tensor};

/// The most bytes of a header, its length included: far above what calls need, and small enough to be received in one
/// piece.
pub const MAX_HEADER: usize = 4096;
/// The most bytes of a reason that travels; the rest is cut off.
const MAX_REASON: usize = 3000;

const MESSAGE: u8 = 0;
const PART: u8 = 1;
const FAILED: u8 = 2;
const GOODBYE: u8 = 3;

const NOTHING: u8 = 0;
const WISH: u8 = 1;
const SHAPE: u8 = 2;
const VALUES: u8 = 3;

/// What is to be sent. Its fields are dropped in this order: whoever sees that the hold is gone may rely on the payload
/// being gone.
#[derive(Debug)]
pub struct Frame {
    /// The header, beginning with its length.
    pub header: Vec<u8>,
    /// A contiguous tensor on the CPU, whose bytes follow.
    payload: Option<Tensor>,
    /// Tells the sender that the frame has left.
    _hold: Option<Hold>,
}

impl Frame {
    /// A frame for that letter.
    ///
    /// # Errors
    /// [`Error::Argument`] for a tensor of so many dimensions that the header would be too long; those of reading the
    /// tensor.
    pub fn letter(letter: Letter, hold: Option<&Hold>) -> Result<Frame> {
        let mut header = Writer::new();
        let payload = match letter {
            Letter::Message { group, tag, tensor } => {
                header.u8(MESSAGE).u64(group).u64(tag.0);
                header.content(Content::Tensor(tensor))?
            }
            Letter::Part { group, call, round, part: Part { call: text, content } } => {
                header.u8(PART).u64(group).u64(call).u8(round).text(&text);
                header.content(content)?
            }
        };
        if header.0.len() > MAX_HEADER {
            let message = format!("expected a header of at most {MAX_HEADER} bytes, got {}", header.0.len());
            return Err(Error::argument("send", message + "; use tensors of fewer dimensions").into());
        }
        Ok(Frame { header: header.end(), payload, _hold: hold.cloned() })
    }

    /// A frame that says that rank `rank` failed.
    pub fn failed(rank: usize, reason: &str) -> Frame {
        let mut header = Writer::new();
        let end = (0..=reason.len().min(MAX_REASON)).rev().find(|end| reason.is_char_boundary(*end));
        header.u8(FAILED).u64(rank as u64).text(&reason[..end.unwrap_or(0)]);
        Frame { header: header.end(), payload: None, _hold: None }
    }

    /// A frame that says that its sender makes no more calls.
    pub fn goodbye() -> Frame {
        let mut header = Writer::new();
        header.u8(GOODBYE);
        Frame { header: header.end(), payload: None, _hold: None }
    }

    /// The bytes that follow the header.
    pub fn payload(&self) -> &[u8] {
        // What a frame holds was checked when it was made.
        self.payload.as_ref().and_then(|tensor| tensor.as_bytes().ok()).unwrap_or_default()
    }
}

/// A header that is being written.
struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Self {
        Writer(vec![0; 4])
    }

    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    /// Writes the body, and returns the tensor whose values follow.
    fn content(&mut self, content: Content) -> Result<Option<Tensor>> {
        match content {
            Content::Nothing => {
                self.u8(NOTHING);
            }
            Content::Wish { color, key } => {
                self.u8(WISH).u64(color).u64(key as u64);
            }
            Content::Tensor(tensor) => {
                let tensor = tensor?;
                self.u8(if tensor.is_shape_only() { SHAPE } else { VALUES }).spec(&tensor.spec());
                if !tensor.is_shape_only() {
                    tensor.as_bytes()?;
                    return Ok(Some(tensor));
                }
            }
        }
        Ok(None)
    }

    fn spec(&mut self, spec: &Spec) -> &mut Self {
        // The place in `ALL` is the number of a dtype; a position always exists, and fits.
        let dtype = DType::ALL.iter().position(|dtype| *dtype == spec.dtype).unwrap_or_default();
        self.u8(dtype as u8).u8(spec.shape.len().min(255) as u8);
        spec.shape.iter().fold(self, |writer, &extent| writer.u64(extent as u64))
    }

    fn end(mut self) -> Vec<u8> {
        let length = self.0.len() as u32 - 4;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0
    }
}

/// What a header says.
#[derive(Debug, PartialEq)]
pub enum Notice {
    /// A message or a part of a collective.
    Letter { address: Address, body: Body },
    /// A rank failed.
    Failed { rank: usize, reason: String },
    /// The sender makes no more calls.
    Goodbye,
}

/// Where a letter belongs.
#[derive(Debug, PartialEq)]
pub enum Address {
    Message { group: u64, tag: Tag },
    Part { group: u64, call: u64, round: u8, text: String },
}

impl Address {
    /// The letter with that content.
    pub fn letter(self, content: Content) -> Option<Letter> {
        Some(match (self, content) {
            (Address::Message { group, tag }, Content::Tensor(tensor)) => {
                Letter::Message { group, tag, tensor }
            }
            (Address::Message { .. }, _) => return None,
            (Address::Part { group, call, round, text }, content) => {
                Letter::Part { group, call, round, part: Part { call: text.into(), content } }
            }
        })
    }
}

/// What a letter contains.
#[derive(Debug, PartialEq)]
pub enum Body {
    Nothing,
    Wish {
        color: u64,
        key: i64,
    },
    /// A tensor without values.
    Shape(Spec),
    /// A tensor whose values follow.
    Values(Spec),
}

/// A frame that no rank of this program sends.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("it sent a frame that cannot be read: {0}")]
pub struct Malformed(pub &'static str);

/// The length of a header without its first four bytes, which are `start`.
pub fn header_length(start: [u8; 4]) -> Result<usize, Malformed> {
    let length = u32::from_le_bytes(start) as usize;
    if length + 4 > MAX_HEADER { Err(Malformed("its header is too long")) } else { Ok(length) }
}

impl Notice {
    /// Reads a header without its first four bytes.
    pub fn read(header: &[u8]) -> Result<Notice, Malformed> {
        let mut reader = Reader(header);
        let notice = match reader.u8()? {
            MESSAGE => {
                let address = Address::Message { group: reader.u64()?, tag: Tag(reader.u64()?) };
                let body = reader.body()?;
                if !matches!(body, Body::Shape(_) | Body::Values(_)) {
                    return Err(Malformed("a message without a tensor"));
                }
                Notice::Letter { address, body }
            }
            PART => {
                let (group, call, round) = (reader.u64()?, reader.u64()?, reader.u8()?);
                let address = Address::Part { group, call, round, text: reader.text()? };
                Notice::Letter { address, body: reader.body()? }
            }
            FAILED => Notice::Failed { rank: reader.extent()?, reason: reader.text()? },
            GOODBYE => Notice::Goodbye,
            _ => return Err(Malformed("its kind is unknown")),
        };
        if reader.0.is_empty() { Ok(notice) } else { Err(Malformed("its header has bytes left over")) }
    }

    /// How many bytes follow the header.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Notice::Letter { body: Body::Values(spec), .. } => spec.bytes(),
            _ => 0,
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed("its header is cut off"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take::<1>()?[0])
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes)
    }

    fn extent(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u64()?).map_err(|_| Malformed("a number is too large"))
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = u32::from_le_bytes(self.take()?) as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed("its header is cut off"))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Malformed("a text is not UTF-8"))
    }

    fn spec(&mut self) -> Result<Spec, Malformed> {
        let dtype = *DType::ALL.get(usize::from(self.u8()?)).ok_or(Malformed("its dtype is unknown"))?;
        let dimensions = self.u8()?;
        let shape = (0..dimensions).map(|_| self.extent()).collect::<Result<Dims, _>>()?;
        // Zeros do not excuse the rest: strides are products of the others.
        let bytes = shape.iter().try_fold(dtype.size(), |bytes, &extent| bytes.checked_mul(extent.max(1)));
        bytes.filter(|bytes| isize::try_from(*bytes).is_ok()).ok_or(Malformed("its tensor is too large"))?;
        Ok(Spec { shape, dtype })
    }

    fn body(&mut self) -> Result<Body, Malformed> {
        Ok(match self.u8()? {
            NOTHING => Body::Nothing,
            WISH => Body::Wish { color: self.u64()?, key: self.u64()? as i64 },
            SHAPE => Body::Shape(self.spec()?),
            VALUES => Body::Values(self.spec()?),
            _ => return Err(Malformed("its content is unknown")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigmac_runtime::Context;
    use proptest::prelude::*;

    fn read(frame: &Frame) -> Notice {
        let (start, rest) = frame.header.split_first_chunk().unwrap();
        assert_eq!(header_length(*start).unwrap(), rest.len());
        Notice::read(rest).unwrap()
    }

    fn specs() -> impl Strategy<Value = Spec> {
        (0..DType::ALL.len(), proptest::collection::vec(0..4_usize, 0..6))
            .prop_map(|(dtype, shape)| Spec::new(&shape, DType::ALL[dtype]))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(spec in specs(), group: u64, tag: u64, call: u64, round: u8, text: String, planned: bool) {
            let ctx = Context::cpu(0, 1).unwrap();
            let tensor = || if planned { Tensor::shape_only(&spec) } else { Tensor::zeros(&ctx, &spec.shape, spec.dtype).unwrap() };
            let body = || if planned { Body::Shape(spec.clone()) } else { Body::Values(spec.clone()) };
            let frame = Frame::letter(Letter::Message { group, tag: Tag(tag), tensor: Ok(tensor()) }, None).unwrap();
            prop_assert_eq!(frame.payload().len(), if planned { 0 } else { spec.bytes() });
            let notice = read(&frame);
            prop_assert_eq!(notice.payload_bytes(), frame.payload().len());
            let address = Address::Message { group, tag: Tag(tag) };
            prop_assert_eq!(notice, Notice::Letter { address, body: body() });
            for (content, body) in [
                (Content::Tensor(Ok(tensor())), body()),
                (Content::Nothing, Body::Nothing),
                (Content::Wish { color: tag, key: call as i64 }, Body::Wish { color: tag, key: call as i64 }),
            ] {
                let part = Part { call: text.as_str().into(), content };
                let frame = Frame::letter(Letter::Part { group, call, round, part }, None).unwrap();
                let address = Address::Part { group, call, round, text: text.clone() };
                prop_assert_eq!(read(&frame), Notice::Letter { address, body });
            }
        }

        /// Any bytes are read or refused: no panic, no size that overflows.
        #[test]
        fn other_bytes_are_refused(kind in 0..5_u8, mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Ok(notice) = Notice::read(&bytes) {
                prop_assert!(isize::try_from(notice.payload_bytes()).is_ok());
            }
        }
    }

    #[test]
    fn headers_that_are_cut_off_or_too_long_are_refused() {
        let frame = Frame::failed(3, "out of coffee");
        assert_eq!(read(&frame), Notice::Failed { rank: 3, reason: "out of coffee".into() });
        assert_eq!(read(&Frame::goodbye()), Notice::Goodbye);
        for end in 4..frame.header.len() {
            assert!(Notice::read(&frame.header[4..end]).is_err(), "{end}");
        }
        let longer = [&frame.header[4..], b"x"].concat();
        assert_eq!(Notice::read(&longer), Err(Malformed("its header has bytes left over")));
        assert!(header_length(u32::MAX.to_le_bytes()).is_err());
        assert!(header_length((MAX_HEADER as u32 - 4).to_le_bytes()).is_ok());
        let long = "é".repeat(MAX_HEADER);
        let Notice::Failed { reason, .. } = read(&Frame::failed(0, &long)) else { panic!() };
        assert!(reason.len() <= MAX_REASON && long.starts_with(&reason));
        let ctx = Context::cpu(0, 1).unwrap();
        let tensor = Tensor::zeros(&ctx, &[1; 200], DType::F32).unwrap();
        let part = Part { call: "x".repeat(3000).into(), content: Content::Tensor(Ok(tensor)) };
        let error = Frame::letter(Letter::Part { group: 0, call: 0, round: 0, part }, None).unwrap_err();
        assert!(error.to_string().contains("fewer dimensions"), "{error}");
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        for shape in [&[1_u64 << 62, 4][..], &[1 << 40, 1 << 40, 0], &[1 << 61]] {
            let mut header = Writer::new();
            header.u8(MESSAGE).u64(0).u64(0).u8(VALUES).u8(1).u8(shape.len() as u8);
            shape.iter().fold(&mut header, |header, &extent| header.u64(extent));
            assert_eq!(Notice::read(&header.end()[4..]), Err(Malformed("its tensor is too large")));
        }
    }
}
