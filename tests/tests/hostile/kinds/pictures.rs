//! Pictures: sizes and types in their headers, chunks, bytes.

use crate::attempt::Attempt;
use crate::bytes;
use crate::commands::PICTURES;
use crate::random::Random;
use anyhow::Result;

/// Sides at which sizes go wrong.
const SIDES: [u32; 10] = [0, 1, 2, 0x7fff, 0xffff, 0x10000, 100_000, 0x7fff_ffff, 0x8000_0000, u32::MAX];

/// Changes one to three pictures that the command reads.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    attempt.choose(random, |base| base.files().contains(&PICTURES[0]));
    for _ in 0..random.few() {
        let file = random.pick(PICTURES);
        let mut broken = false;
        attempt.edit(file, |picture| {
            let what = match random.below(4) {
                0 => bytes::mutate(picture, random),
                1 if file.ends_with("png") => png_chunk(picture, random),
                _ => header(picture, random),
            };
            broken = picture.len() < 10;
            what
        })?;
        if broken {
            attempt.broke(file, "is cut to nothing");
        }
    }
    Ok(())
}

/// Changes the sizes or types in a picture's header.
fn header(picture: &mut Vec<u8>, random: &mut Random) -> String {
    let side = SIDES[random.place(&SIDES)];
    let other = SIDES[random.place(&SIDES)];
    if picture.starts_with(b"\x89PNG") {
        if picture.len() < 33 {
            return "nothing".into();
        }
        let what = if random.one_in(2) {
            picture[16..20].copy_from_slice(&side.to_be_bytes());
            picture[20..24].copy_from_slice(&other.to_be_bytes());
            format!("PNG of {side} x {other}")
        } else {
            let at = 24 + random.below(5);
            picture[at] = random.byte() % 17;
            format!("PNG header byte {at} is {}", picture[at])
        };
        let sum = crc(&picture[12..29]);
        picture[29..33].copy_from_slice(&sum.to_be_bytes());
        what
    } else if picture.starts_with(b"GIF") {
        // The screen's size, or that of the first frame, which follows the palettes.
        let frame = picture.iter().position(|byte| *byte == 0x2c).map_or(6, |at| at + 5);
        let at = if random.one_in(2) { 6 } else { frame };
        put(picture, at, &(side as u16).to_le_bytes());
        put(picture, at + 2, &(other as u16).to_le_bytes());
        format!("GIF of {} x {} at {at}", side as u16, other as u16)
    } else if picture.starts_with(b"RIFF") {
        let at = [4, 16, 21, 24, 27][random.below(5)];
        put(picture, at, &side.to_le_bytes());
        format!("WebP {side:#x} at {at}")
    } else {
        // JPEG: the frame's header is marker, length, precision, height, width, components.
        let marker =
            picture.windows(2).position(|two| two[0] == 0xff && [0xc0, 0xc1, 0xc2].contains(&two[1]));
        let Some(at) = marker else { return bytes::mutate(picture, random) };
        if random.one_in(2) {
            put(picture, at + 5, &(side as u16).to_be_bytes());
            put(picture, at + 7, &(other as u16).to_be_bytes());
            format!("JPEG of {} x {}", other as u16, side as u16)
        } else {
            let offset = at + 1 + random.below(16);
            let value = random.byte();
            put(picture, offset, &[value]);
            format!("JPEG frame byte {offset} is {value}")
        }
    }
}

/// Changes a chunk of a PNG, and its checksum most of the time: its length, its name, its data; or puts in another.
fn png_chunk(picture: &mut Vec<u8>, random: &mut Random) -> String {
    let mut starts = vec![];
    let mut at = 8;
    while let Some(four) = picture.get(at..at + 4) {
        let length = u32::from_be_bytes([four[0], four[1], four[2], four[3]]) as usize;
        if at.saturating_add(length).saturating_add(12) > picture.len() {
            break;
        }
        starts.push((at, length));
        at += length + 12;
    }
    let Some(&(start, length)) = starts.get(random.place(&starts)) else { return "nothing".into() };
    let what = match random.below(4) {
        0 => {
            let value = SIDES[random.place(&SIDES)];
            put(picture, start, &value.to_be_bytes());
            return format!("PNG chunk at {start} of {value} bytes");
        }
        1 => {
            put(
                picture,
                start + 4,
                random.pick(&["IDAT", "PLTE", "tRNS", "acTL", "IEND", "iCCP", "eXIf"]).as_bytes(),
            );
            "another name"
        }
        2 => {
            let name = random.pick(&["zTXt", "iCCP", "eXIf", "tRNS", "acTL", "fcTL", "gAMA"]);
            let mut chunk = name.as_bytes().to_vec();
            chunk.extend((0..random.below(40)).map(|_| random.byte()));
            let sum = crc(&chunk);
            let mut whole = (chunk.len() as u32 - 4).to_be_bytes().to_vec();
            whole.extend(chunk);
            whole.extend(sum.to_be_bytes());
            picture.splice(start..start, whole);
            return format!("PNG chunk {name} at {start}");
        }
        _ => {
            let at = start + 8 + random.below(length);
            let value = random.byte();
            put(picture, at, &[value]);
            "other data"
        }
    };
    let sum = crc(&picture[start + 4..start + 8 + length]);
    put(picture, start + 8 + length, &sum.to_be_bytes());
    format!("PNG chunk at {start}: {what}")
}

/// Writes bytes where there are any to write over.
fn put(picture: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in picture.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

/// The checksum of PNG chunks (CRC-32 of ISO 3309).
fn crc(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
        }
    }
    !sum
}
