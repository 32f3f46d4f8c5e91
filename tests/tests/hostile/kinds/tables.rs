//! Parquet tables: footers, page headers, pages.

use crate::attempt::Attempt;
use crate::bytes;
use crate::random::Random;
use anyhow::Result;

const FILE: &str = "table/train-00000-of-00001.parquet";

/// Changes the table in one to three places: often in its footer, which is written in Thrift.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    attempt.choose(random, |base| base.needs(FILE));
    let times = random.few();
    attempt.edit(FILE, |table| (0..times).map(|_| change(table, random)).collect::<Vec<_>>().join("; "))?;
    if attempt.folder.join(FILE).metadata()?.len() < 12 {
        attempt.broke(FILE, "is too short for a footer");
    }
    Ok(())
}

fn change(table: &mut Vec<u8>, random: &mut Random) -> String {
    let length = table.len();
    let Some(four) = length.checked_sub(8).and_then(|at| table.get(at..at + 4)) else {
        return bytes::mutate(table, random);
    };
    let footer = u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize;
    let begin = (length - 8).saturating_sub(footer);
    match random.below(8) {
        0 => {
            let value = bytes::length(random) as u32;
            table[length - 8..length - 4].copy_from_slice(&value.to_le_bytes());
            format!("a footer of {value} bytes")
        }
        1 => {
            let near = footer as u32 ^ (1 << random.below(8));
            table[length - 8..length - 4].copy_from_slice(&near.to_le_bytes());
            format!("a footer of {near} bytes in place of {footer}")
        }
        2..=4 => {
            let count = 1 + random.below(3);
            for _ in 0..count {
                let at = begin + random.below(footer.min(length - begin));
                table[at] = if random.one_in(2) { random.byte() } else { table[at] ^ (1 << random.below(8)) };
            }
            format!("{count} bytes of the footer")
        }
        5 => {
            // A number of Thrift is as long as its continuation bits say.
            let at = begin + random.below(footer.min(length - begin));
            let varint: &[u8] = [
                &[0xff, 0xff, 0xff, 0xff, 0x0f][..],
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                &[0xff; 12],
                &[0x80, 0x80, 0x80, 0x80, 0x08],
            ][random.below(4)];
            table.splice(at..at + 1, varint.iter().copied());
            let footer = (footer + varint.len() - 1) as u32;
            let length = table.len();
            table[length - 8..length - 4].copy_from_slice(&footer.to_le_bytes());
            format!("a long number at {at}")
        }
        6 => {
            // Page headers stand before pages, from the beginning of the file.
            let at = 4 + random.below(60);
            if let Some(byte) = table.get_mut(at) {
                *byte = random.byte();
            }
            format!("byte {at} of the first page's header")
        }
        _ => bytes::mutate(table, random),
    }
}
