//! Tar shards: sizes, names, kinds and links in member headers, with checksums that fit.

use crate::attempt::Attempt;
use crate::bytes;
use crate::random::Random;
use anyhow::Result;

const FILE: &str = "shards/train-00000.tar";
const BLOCK: usize = 512;
/// Fields of a header: name, place and width.
const FIELDS: [(&str, usize, usize); 7] = [
    ("name", 0, 100),
    ("mode", 100, 8),
    ("size", 124, 12),
    ("kind", 156, 1),
    ("link", 157, 100),
    ("magic", 257, 8),
    ("prefix", 345, 155),
];
const SIZES: &[&[u8]] = &[
    b"00000000000",
    b"77777777777",
    b"00000000001",
    b"-0000000001",
    b"99999999999",
    b"",
    b"           ",
    b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\0\0\0\0\0\0\0\xff\xff\xff\xff",
    b"0000000x000",
    b"00020000000",
];
const NAMES: &[&[u8]] = &[
    b"",
    b".",
    b"..",
    b"/",
    b"../../../etc/x.png",
    b"/abs.png",
    b"0.png",
    b"0.txt",
    b"0.draw.png",
    b"0.json",
    b"0.cls",
    b"x",
    b".png",
    b"0.",
    b"\xff\xfe.png",
    b"a\nb.png",
    b"\x1b[31m.png",
    b"0.99999999999999999999.png",
    b"0.1.png",
    b"0.prompt.txt",
    b"__meta__",
    b"._0.png",
    b"0.PNG",
    b"0.txt/",
    b"a/../0.png",
];
const KINDS: &[u8] = b"01234567gxLKSVD\0\xffAX";

/// Changes the shard in one to three places.
pub fn mutate(attempt: &mut Attempt, random: &mut Random) -> Result<()> {
    attempt.choose(random, |base| base.needs(FILE));
    let times = random.few();
    attempt.edit(FILE, |tar| {
        let done: Vec<String> = (0..times)
            .map(|_| if random.one_in(5) { bytes::mutate(tar, random) } else { header(tar, random) })
            .collect();
        done.join("; ")
    })?;
    if attempt.folder.join(FILE).metadata()?.len() < BLOCK as u64 {
        attempt.broke(FILE, "has no member");
    }
    Ok(())
}

fn header(tar: &mut Vec<u8>, random: &mut Random) -> String {
    // Members begin where the magic of a header is.
    let starts: Vec<usize> =
        (0..tar.len() / BLOCK).map(|i| i * BLOCK).filter(|at| &tar[at + 257..at + 262] == b"ustar").collect();
    let Some(&start) = starts.get(random.place(&starts)) else { return bytes::mutate(tar, random) };
    let what = match random.below(6) {
        0 => {
            let copy = tar[start..start + BLOCK].to_vec();
            tar.splice(start..start, copy);
            "header twice".to_owned()
        }
        1 => {
            tar.splice(start..start, vec![0; BLOCK * (1 + random.below(3))]);
            return format!("blocks of zeros before {start}");
        }
        2 => {
            // A PAX or GNU header before the member, which may say another name or size.
            let text: &[u8] = [
                &b"19 path=other.png\n"[..],
                b"22 size=999999999999\n",
                b"99999999999999999999 path=x\n",
                b"0 path=x\n",
                b"12 size=-1\n",
                b"30 GNU.sparse.size=4294967296\n",
                b"11 path=\xff\n",
                b"x",
            ][random.below(8)];
            let kind = b"xgLK"[random.below(4)];
            let mut block = tar[start..start + BLOCK].to_vec();
            block[156] = kind;
            field(&mut block, 124, 12, format!("{:011o}", text.len()).as_bytes());
            sum(&mut block);
            block.extend(text);
            block.resize(2 * BLOCK, 0);
            tar.splice(start..start, block);
            return format!("extended header {:?} before {start}", char::from(kind));
        }
        _ => {
            let (name, at, width) = FIELDS[random.place(&FIELDS)];
            let value: Vec<u8> = match name {
                "size" => SIZES[random.place(SIZES)].to_vec(),
                "kind" => vec![KINDS[random.place(KINDS)]],
                "name" | "link" | "prefix" if !random.one_in(4) => NAMES[random.place(NAMES)].to_vec(),
                _ => (0..random.below(width)).map(|_| random.byte()).collect(),
            };
            field(&mut tar[start..], at, width, &value);
            format!("{name} of the member at {start}: {:?}", String::from_utf8_lossy(&value))
        }
    };
    if !random.one_in(8) {
        sum(&mut tar[start..start + BLOCK]);
    }
    what
}

fn field(header: &mut [u8], at: usize, width: usize, value: &[u8]) {
    header[at..at + width].fill(0);
    let used = value.len().min(width);
    header[at..at + used].copy_from_slice(&value[..used]);
}

/// Makes a header's checksum fit.
fn sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let total: u32 = header[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    field(header, 148, 8, format!("{total:06o}\0 ").as_bytes());
}
