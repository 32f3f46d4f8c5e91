//! Mutations that every kind of bytes can have: cut, flipped, overwritten, grown.

use crate::random::Random;

/// Numbers at which lengths and offsets go wrong.
const LENGTHS: [u64; 14] = [
    0,
    1,
    7,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    0x7fff_ffff_ffff_fff8,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// One of the numbers at which lengths go wrong.
pub fn length(random: &mut Random) -> u64 {
    LENGTHS[random.place(&LENGTHS)]
}

/// Changes the bytes in one of the ways of any file, and tells how.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random) -> String {
    let at = random.below(bytes.len());
    match random.below(10) {
        0 => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        1 | 2 => {
            let count = 1 + random.below(4);
            for _ in 0..count {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            format!("{count} bits flipped, from byte {at}")
        }
        // Headers are where most goes wrong.
        3 => overwrite(bytes, at.min(random.below(128)), random),
        4 => overwrite(bytes, at, random),
        5 => {
            let end = bytes.len();
            overwrite(bytes, end.saturating_sub(1 + random.below(64)), random)
        }
        6 => {
            let more = [1, 8, 512, 4096, 70_000][random.below(5)];
            let fill = [0, 0xff, b' ', b'['][random.below(4)];
            bytes.extend(std::iter::repeat_n(fill, more));
            format!("{more} bytes of {fill:#04x} at the end")
        }
        7 => {
            let end = (at + 1 + random.below(200)).min(bytes.len());
            bytes.drain(at.min(end)..end);
            format!("bytes {at}..{end} taken out")
        }
        8 => {
            let end = (at + 1 + random.below(200)).min(bytes.len());
            let copy = bytes[at.min(end)..end].to_vec();
            bytes.splice(at..at, copy);
            format!("bytes {at}..{end} twice")
        }
        _ => {
            let end = (at + 1 + random.below(64)).min(bytes.len());
            let fill = random.byte();
            bytes[at.min(end)..end].fill(fill);
            format!("bytes {at}..{end} set to {fill:#04x}")
        }
    }
}

/// Writes an extreme length at a place, in one of the widths and byte orders of files.
pub fn overwrite(bytes: &mut [u8], at: usize, random: &mut Random) -> String {
    let value = length(random);
    let width = [1, 2, 4, 8][random.below(4)];
    let big = random.one_in(2);
    let encoded = if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let used = if big { &encoded[8 - width..] } else { &encoded[..width] };
    let end = (at + width).min(bytes.len());
    let at = at.min(end);
    bytes[at..end].copy_from_slice(&used[..end - at]);
    format!("{value:#x} over {width} bytes at {at}, {} endian", if big { "big" } else { "little" })
}
