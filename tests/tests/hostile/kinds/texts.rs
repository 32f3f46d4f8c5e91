//! Text files as bytes: encodings, line ends, cut and flipped bytes.

use crate::attempt::Attempt;
use crate::bytes;
use crate::random::Random;
use anyhow::Result;

const ENDINGS: &[&str] = &["toml", "json", "jsonl", "txt", "csv"];

/// Changes one text file that the command reads.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    let is_text = |file: &str| ENDINGS.iter().any(|ending| file.ends_with(&format!(".{ending}")));
    let base = attempt.choose(random, |base| base.files().iter().any(|file| is_text(file)));
    let files: Vec<&str> = base.files().into_iter().filter(|file| is_text(file)).collect();
    let file = random.pick(&files);
    let mut broken = None;
    attempt.edit(file, |text| match random.below(9) {
        0 => {
            text.splice(0..0, *b"\xef\xbb\xbf");
            "a byte order mark".into()
        }
        1 => {
            let lines = String::from_utf8_lossy(text).replace('\n', "\r\n");
            *text = lines.into_bytes();
            "lines of Windows".into()
        }
        2 => {
            let wide: Vec<u16> = String::from_utf8_lossy(text).encode_utf16().collect();
            *text = [0xfeff].into_iter().chain(wide).flat_map(u16::to_le_bytes).collect();
            broken = Some("is UTF-16");
            "UTF-16".into()
        }
        3 => {
            let at = random.below(text.len());
            text.insert(at, [0xff, 0xc3, 0x80, 0xed][random.below(4)]);
            broken = Some("is not UTF-8");
            format!("not UTF-8 at {at}")
        }
        4 => {
            text.clear();
            // A configuration holds what differs from the defaults.
            broken = (file != "tiny.toml").then_some("is empty");
            "empty".into()
        }
        5 => {
            let (count, byte) = (text.len(), [b' ', b'\n', 0, b'['][random.below(4)]);
            *text = vec![byte; count];
            broken = (file != "tiny.toml" || !byte.is_ascii_whitespace()).then_some("is blank");
            "one byte all over".into()
        }
        _ => bytes::mutate(text, random),
    })?;
    if let Some(how) = broken {
        attempt.broke(file, how);
    }
    // A configuration that lost a few bytes may ask for 10,000 steps of 2.
    attempt.long = file.ends_with(".toml");
    Ok(())
}
