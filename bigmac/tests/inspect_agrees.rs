//! `bigmac data inspect` and `bigmac train` agree on damaged data sets: what one refuses the other refuses, with the
//! same sentence.

use bigmac::config::Config;
use bigmac::data::{DataError, Dataset, InspectOptions, Place, SplitInspections, pack, training_path};
use bigmac::train::{Inputs, Session, TrainError};
use bigmac_runtime::rng::{Philox, Purpose};
use image::{Rgb, RgbImage};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Damaged sets; `BIGMAC_DAMAGED_SETS` asks for another number, as 2000 before a release.
const SETS: u32 = 200;
const DAMAGE: Purpose = Purpose::new("damaged data sets");

/// A number from 0 to below `end`; 0 where there is none.
fn below(numbers: &mut Philox, end: usize) -> usize {
    numbers.below(end.max(1) as u32) as usize
}

/// A set of captions, drawings, answers and conversations, with unseen ones; as lines, or as LLaVA's array.
fn write_set(folder: &Path, array: bool) {
    fs::create_dir(folder.join("sub")).unwrap();
    for (i, name) in ["a.png", "b.jpg", "sub/c.png", "d.png"].into_iter().enumerate() {
        let side = 6 + 5 * i as u32;
        let picture =
            RgbImage::from_fn(side, side, |x, y| Rgb([(x * 20) as u8, (y * 11) as u8, 70 * i as u8]));
        picture.save(folder.join(name)).unwrap();
    }
    let turns = r#"[{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A picture."}]"#;
    let conversation = |name| format!(r#"{{"image": "{name}", "conversations": {turns}}}"#);
    let lines = [
        r#"{"text": "<image>a red kite", "images": ["a.png"]}"#.to_owned(),
        r#"{"images": ["b.jpg", "sub/c.png"], "prompt": "<image> or <image>?", "text": "the second"}"#
            .to_owned(),
        r#"{"prompt": "a beach", "draw": "d.png"}"#.to_owned(),
        conversation("sub/c.png"),
        r#"{"text": "words alone, caf\u00e9 \"quoted\""}"#.to_owned(),
        r#"{"images": ["a.png"], "prompt": "the same in blue", "draw": "b.jpg"}"#.to_owned(),
    ];
    if array {
        let all: Vec<String> = ["a.png", "b.jpg", "sub/c.png", "d.png"].map(conversation).into();
        fs::write(folder.join("train.json"), format!("[\n{}\n]\n", all.join(",\n"))).unwrap();
    } else {
        fs::write(folder.join("train.jsonl"), lines.join("\n") + "\n").unwrap();
    }
    fs::write(folder.join("heldout.jsonl"), lines[..4].join("\n")).unwrap();
}

/// The files of a set, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let names = ["a.png", "b.jpg", "sub/c.png", "d.png", "train.jsonl", "train.json", "heldout.jsonl"];
    names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
}

/// Does one kind of damage to one file.
fn damage(folder: &Path, numbers: &mut Philox) {
    let mut found = files(folder);
    // Texts are hit as often as all pictures together.
    let texts: Vec<PathBuf> = found.iter().filter(|path| is_text(path)).cloned().collect();
    found.extend(texts);
    if found.is_empty() {
        return;
    }
    let path = &found[below(numbers, found.len())];
    let mut bytes = fs::read(path).unwrap();
    let at = below(numbers, bytes.len());
    let kind = below(numbers, if is_text(path) { 12 } else { 6 });
    let replaced = |from: &str, to: &str| -> Vec<u8> {
        String::from_utf8_lossy(&bytes).replacen(from, to, 1).into_bytes()
    };
    match kind {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << below(numbers, 8),
        1 => bytes.truncate(at),
        2 if !bytes.is_empty() => drop(bytes.drain(at..(at + 1 + below(numbers, 9)).min(bytes.len()))),
        3 => {
            fs::remove_file(path).unwrap();
            return;
        }
        4 => {
            fs::rename(path, path.with_extension("moved")).unwrap();
            return;
        }
        5 => bytes.insert(at, below(numbers, 256) as u8),
        6 => {
            let key =
                ["images", "image", "draw", "prompt", "text", "conversations", "from"][below(numbers, 7)];
            bytes = replaced(&format!("\"{key}\""), &format!("\"{}\"", &key[1..]));
        }
        7 => bytes = replaced("<image>", ""),
        8 => bytes = replaced("a red kite", &"a red kite ".repeat(300)),
        9 => bytes = [b"\xef\xbb\xbf", &bytes[..]].concat(),
        10 => bytes = replaced("\"a.png\"", ["3", "null", "\"sub\"", "\"../none.png\""][below(numbers, 4)]),
        _ => bytes = replaced("a", "<image>"),
    }
    fs::write(path, bytes).unwrap();
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl" || extension == "json")
}

fn config(folder: &Path) -> Config {
    let mut config = Config::default();
    config.data.path = folder.to_string_lossy().into_owned();
    config
}

/// What `inspect` lists.
fn listed(config: &Config) -> BTreeSet<String> {
    let Inputs { reading, .. } = Inputs::of(config).unwrap();
    let train = training_path(&config.data, &|_| ()).unwrap();
    let options = InspectOptions { decode_pictures: true, shown: 1 };
    let found = SplitInspections::read(&config.data, &train, &reading, options, &|_| ());
    found.all().flat_map(|inspection| inspection.errors.clone()).collect()
}

/// The first error that a run meets when it opens its data and goes through all of it.
fn trained(config: &Config) -> Result<(), DataError> {
    let session = match Session::open(config, &|_| ()) {
        Ok(session) => session,
        Err(TrainError::Data(error)) => return Err(error),
        Err(other) => panic!("an error that is not the data's: {other}"),
    };
    let whole = |dataset: &Dataset| {
        (0..dataset.len()).try_for_each(|sample| {
            // As a step does it.
            session.prefetcher.step(&pack(dataset, &[sample], 1)?).ready()
        })
    };
    whole(session.planner.dataset())?;
    session.heldout.as_deref().map_or(Ok(()), whole)
}

/// Takes out what stops a run, so that it gets further, and lines keep their numbers: a line becomes blank, and a file
/// without samples gets one. False where the error is not of that kind.
fn take_out(error: &DataError) -> bool {
    let is_lines = |file: &Path| file.extension().is_some_and(|extension| extension == "jsonl");
    match error {
        DataError::Record { file, place: Place::Line(line), .. } if is_lines(file) => {
            let bytes = fs::read(file).unwrap();
            let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
            lines[*line as usize - 1] = b"";
            fs::write(file, lines.join(&b'\n')).unwrap();
            true
        }
        DataError::Contents { path, problem } if is_lines(path) && problem.starts_with("holds no sample") => {
            let bytes = fs::read(path).unwrap();
            fs::write(path, [&bytes[..], b"\n{\"text\": \"fine\"}\n"].concat()).unwrap();
            true
        }
        _ => false,
    }
}

#[test]
fn what_one_refuses_the_other_refuses_with_the_same_sentence() {
    let sets = std::env::var("BIGMAC_DAMAGED_SETS").ok().map_or(SETS, |number| number.parse().unwrap());
    let mut refused = 0;
    for set in 0..sets {
        let numbers = &mut Philox::new(11, DAMAGE, 0, set);
        let folder = tempfile::tempdir().unwrap();
        write_set(folder.path(), set % 4 == 3);
        for _ in 0..1 + below(numbers, 3) {
            damage(folder.path(), numbers);
        }
        let config = config(folder.path());
        let listed = listed(&config);
        let (mut met, mut emptied) = (BTreeSet::new(), BTreeSet::new());
        // Line by line what stops the run is taken out, until it goes through.
        let whole = loop {
            let Err(error) = trained(&config) else { break true };
            let sentence = error.to_string();
            // A file whose last line was taken out here had samples, if bad ones, when it was inspected.
            let ours = matches!(&error, DataError::Contents { path, .. } if emptied.contains(path));
            assert!(
                ours || listed.contains(&sentence),
                "set {set}: train says\n{sentence}\ninspect lists\n{listed:#?}"
            );
            if !ours {
                met.insert(sentence);
            }
            if !take_out(&error) {
                break false;
            }
            if let DataError::Record { file, .. } = error {
                emptied.insert(file);
            }
        };
        refused += usize::from(!met.is_empty());
        assert_eq!(met.is_empty(), listed.is_empty(), "set {set}: inspect lists {listed:#?}");
        assert!(!whole || met == listed, "set {set}: train met\n{met:#?}\ninspect lists\n{listed:#?}");
    }
    let sets = sets as usize;
    assert!(
        refused > sets / 2 && refused < sets,
        "{refused} of {sets} damaged sets are refused: too few to tell"
    );
}
