//! WebDataset shards: written with the tar crate, and by Python's tarfile.

use super::*;
use crate::data::files::DatasetFiles;
use std::path::Path;

/// A shard of members with these names and contents.
fn shard(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, contents) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *contents).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The encoded picture of one colour.
pub(super) fn png(red: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(2, 2, Rgb([red, 0, 0])).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub(super) fn red(picture: &PictureRef) -> u8 {
    decode(picture, &LAYOUT.limits).unwrap().get_pixel(0, 0).0[0]
}

/// All records of a path, those of the split `train`.
pub(super) fn records(path: &Path) -> Vec<Result<Record, String>> {
    let records = DatasetFiles::find(path, "train").unwrap().records(None);
    let folder = format!("{}/", path.parent().unwrap().display());
    records.map(|record| record.map_err(|error| error.to_string().replace(&folder, ""))).collect()
}

/// The record as text: marks, what is learned in brackets, and the red of each picture.
pub(super) fn told(record: &Record) -> String {
    let mut images = record.images.iter();
    let piece = |segment: &Segment| match segment {
        Segment::Text { text, learned: true } => format!("[{text}]"),
        Segment::Text { text, learned: false } => text.clone(),
        Segment::Image => format!("<{}>", red(images.next().unwrap())),
        Segment::End => ".".into(),
        Segment::Draw => format!("-> {}", red(record.draw.as_ref().unwrap())),
    };
    record.segments.iter().map(piece).collect()
}

fn read(members: &[(&str, &[u8])]) -> Vec<Result<String, String>> {
    let set = Set::new("s.tar", shard(members));
    records(&set.path("s.tar")).into_iter().map(|record| record.map(|record| told(&record))).collect()
}

fn one(members: &[(&str, &[u8])]) -> Result<String, String> {
    let mut all = read(members);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn members_of_a_sample_are_put_together() {
    let (a, b, c) = (&png(1)[..], &png(2)[..], &png(3)[..]);
    for (members, wanted) in [
        (vec![("k.jpg", a), ("k.txt", b"cat")], "<1>[cat]."),
        (vec![("k.txt", b"cat" as &[u8]), ("k.PNG", a)], "<1>[cat]."),
        (vec![("./d.1/k.webp", a), ("./d.1/k.txt", b"cat")], "<1>[cat]."),
        (vec![("k.10.png", c), ("k.2.png", b), ("k.1.jpg", a), ("k.txt", b"cat")], "<1><2><3>[cat]."),
        (vec![("k.0.png", a), ("k.1.png", b), ("k.txt", b"a <image> b <image>")], "[a ]<1>[ b ]<2>."),
        (vec![("k.png", a), ("k.prompt.txt", b"what?"), ("k.txt", b"cat")], "<1>what?[cat]."),
        (vec![("k.png", a), ("k.draw.png", b), ("k.prompt.txt", b"bluer")], "<1>bluer-> 2"),
        (vec![("k.draw.jpeg", b), ("k.txt", b"cat")], "[cat]-> 2"),
        (vec![("k.txt", b"\xef\xbb\xbfcat\n")], "[cat\n]."),
        (vec![("k.png", a), ("k.json", br#"{"text": "cat"}"#)], "<1>[cat]."),
        (vec![("k.png", a), ("k.json", b"\xef\xbb\xbf{\"prompt\": \"what?\"}"), ("k.txt", b"cat")], "<1>what?[cat]."),
        // Names in the record: with the folder, without, or what follows the key.
        (vec![("d/k.0.png", a), ("d/k.1.png", b), ("d/k.json", br#"{"images": ["d/k.1.png", "k.0.png"], "text": "x"}"#)], "<2><1>[x]."),
        (vec![("k.left.png", a), ("k.r.png", b), ("k.json", br#"{"images": ["r.png", "left.png"], "text": "x"}"#)], "<2><1>[x]."),
        (vec![("k.a.png", a), ("k.b.png", b), ("k.json", br#"{"images": ["a.png"], "draw": "b.png"}"#)], "<1>-> 2"),
        (vec![("k.0.png", a), ("k.b.png", b), ("k.json", br#"{"draw": "b.png", "text": "x"}"#)], "<1>[x]-> 2"),
        (vec![("k.png", a), ("k.draw.png", b), ("k.json", br#"{"images": ["k.png"], "text": "x"}"#)], "<1>[x]-> 2"),
        (vec![("k.png", a), ("k.json", br#"{"image": "k.png", "conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}]}"#)], "USER: <1>q ASSISTANT:[ a]."),
        (vec![("k.png", a), ("k.json", br#"{"conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}]}"#)], "USER: <1>q ASSISTANT:[ a]."),
        // As img2dataset writes them.
        (vec![("0.jpg", a), ("0.json", br#"{"caption": "cat", "url": "u", "key": "0", "status": "success", "width": 2}"#), ("0.txt", b"cat")], "<1>[cat]."),
    ] {
        assert_eq!(one(&members).as_deref(), Ok(wanted), "{:?}", members.iter().map(|m| m.0).collect::<Vec<_>>());
    }
}

#[test]
fn what_cannot_be_used_is_named_with_its_sample() {
    let (a, b) = (&png(1)[..], &png(2)[..]);
    for (members, wanted) in [
        (vec![("k.png", a)], "nothing to learn: the sample has pictures only"),
        (
            vec![("k.png", a), ("k.txt", b"x" as &[u8]), ("k.cls", b"3")],
            "'k.cls' is not read; a sample may have KEY.jpg",
        ),
        (vec![("k.npy", a), ("k.txt", b"x")], "'k.npy' is not read"),
        (vec![("k.caption.txt", b"x" as &[u8])], "'k.caption.txt' is not read"),
        (vec![("k.png", a), ("k.jpg", b), ("k.txt", b"x")], "is one of several pictures and has no number"),
        (
            vec![("k.png", a), ("k.1.jpg", b), ("k.txt", b"x")],
            "'k.png' is one of several pictures and has no number",
        ),
        (vec![("k.0.png", a), ("k.00.jpg", b), ("k.txt", b"x")], "has the number of another picture"),
        (
            vec![("k.left.png", a), ("k.txt", b"x")],
            "'k.left.png' is named neither by a number nor in KEY.json",
        ),
        (
            vec![("k.draw.png", a), ("k.draw.jpg", b), ("k.txt", b"x")],
            "'k.draw.png' and 'k.draw.jpg' are both there",
        ),
        (vec![("k.txt", b"x"), ("k.TXT", b"y")], "'k.txt' and 'k.TXT' are both there"),
        (vec![("k.json", br#"{"text": "x"}"#), ("k.txt", b"y")], "both give the text"),
        (vec![("k.json", br#"{"txt": "x"}"#), ("k.png", a)], "'txt' is not a valid key"),
        (vec![("k.json", b"[1]")], "k.json: "),
        (vec![("k.json", b"{")], "k.json: "),
        (vec![("k.txt", b"\xff")], "'k.txt' is not UTF-8 text"),
        (
            vec![("k.png", a), ("k.json", br#"{"images": ["x.png"], "text": "x"}"#)],
            "'x.png' is not among the pictures of the sample (k.png)",
        ),
        (
            vec![("k.0.png", a), ("k.1.png", b), ("k.json", br#"{"images": ["0.png"], "text": "x"}"#)],
            "names pictures, but not 'k.1.png'",
        ),
        (
            vec![
                ("k.json", br#"{"caption": "dog", "url": "u", "key": "0", "status": "success"}"#),
                ("k.txt", b"cat"),
            ],
            "'caption' of its .json differs",
        ),
    ] {
        let error = one(&members).unwrap_err();
        assert!(error.starts_with("s.tar: sample k: ") && error.contains(wanted), "{error}\nwanted {wanted}");
    }
}

#[test]
fn samples_come_in_order_and_an_error_does_not_end_them() {
    let all = read(&[("a.txt", b"1"), ("b.npy", b"2"), ("c.txt", b"3"), ("d.json", b"x"), ("e.txt", b"5")]);
    let told: Vec<&str> = all.iter().map(|r| r.as_deref().unwrap_or("error")).collect();
    assert_eq!(told, ["[1].", "error", "[3].", "error", "[5]."]);
}

#[test]
fn a_sample_in_two_places_is_an_error_as_a_whole() {
    let a = png(1);
    let all = read(&[("a.txt", b"1"), ("b.txt", b"2"), ("a.png", &a), ("c.txt", b"3")]);
    assert_eq!(all.len(), 3);
    assert!(
        all[0].as_ref().unwrap_err().contains("sample a: other samples lie between its files"),
        "{all:?}"
    );
    assert_eq!((all[1].as_deref(), all[2].as_deref()), (Ok("[2]."), Ok("[3].")));
    // The same file name in two folders is two samples.
    assert_eq!(read(&[("x/a.txt", b"1"), ("y/a.txt", b"2")]).len(), 2);
}

#[test]
fn what_is_not_of_a_sample_is_stepped_over_or_refused() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |kind: tar::EntryType, name: &str, contents: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(contents.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        builder.append_data(&mut header, name, contents).unwrap();
    };
    put(tar::EntryType::Directory, "d/", b"", None);
    put(tar::EntryType::Regular, "d/._a.txt", b"mac", None);
    put(tar::EntryType::Regular, "d/.DS_Store", b"mac", None);
    put(tar::EntryType::Regular, "__MACOSX/d/a.txt", b"mac", None);
    put(tar::EntryType::Regular, "__meta__/a.txt", b"notes", None);
    put(tar::EntryType::XGlobalHeader, "pax_global_header", b"13 comment=x\n", None);
    put(tar::EntryType::Regular, "d/a.txt", b"cat", None);
    put(tar::EntryType::Symlink, "d/b.txt", b"", Some("a.txt"));
    let set = Set::new("s.tar", builder.into_inner().unwrap());
    let all = records(&set.path("s.tar"));
    assert_eq!(told(all[0].as_ref().unwrap()), "[cat].");
    let error = all[1].as_ref().unwrap_err();
    assert!(error.contains("holds 'd/b.txt', which is a link") && all.len() == 2, "{all:?}");
    for name in ["README", ".hidden.txt", "d/noending"] {
        let error = one(&[(name, b"x")]).unwrap_err();
        assert!(error.contains(&format!("holds '{name}', which is not a file of a sample")), "{error}");
    }
    let error = read(&[("a.txt", b"1"), ("a.txt", b"2")]).pop().unwrap().unwrap_err();
    assert!(error.contains("holds 'a.txt' twice"), "{error}");
}

#[test]
fn shards_put_behind_one_another_are_read_to_the_end() {
    let mut both = shard(&[("a.txt", b"1")]);
    both.extend(shard(&[("b.txt", b"2")]));
    let set = Set::new("s.tar", &both);
    assert_eq!(records(&set.path("s.tar")).iter().filter(|r| r.is_ok()).count(), 2);
    both.extend(b"no more of a shard");
    let set = Set::new("s.tar", &both);
    assert!(records(&set.path("s.tar")).last().unwrap().is_err());
}

#[test]
fn long_names_of_both_kinds_are_read() {
    for form in ["gnu", "pax"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/files/long-{form}.tar"));
        let all = records(&file);
        assert_eq!(all.len(), 2);
        for (i, record) in all.iter().enumerate() {
            let record = record.as_ref().unwrap();
            assert_eq!(told(record), format!("<{}>[text é {i}].", 16 * i));
            let key = format!("{}é{i}", "a-folder-with-a-long-name/".repeat(5));
            assert_eq!(record.place, Place::Sample(i as u32 + 1, key.as_str().into()));
            assert_eq!(record.images[0].to_string(), format!("{key}.png"));
        }
    }
}

#[test]
fn a_shard_that_is_cut_anywhere_is_named() {
    let (a, b) = (png(1), png(2));
    let whole = shard(&[("a.png", &a), ("a.txt", b"1"), ("b.png", &b), ("b.txt", b"2")]);
    let set = Set::new("s.tar", "");
    // Behind the first block of zeros nothing is lost.
    let complete = whole.len() - 512;
    for len in (0..whole.len()).step_by(64).chain([1, 511, 513, whole.len()]) {
        std::fs::write(set.path("s.tar"), &whole[..len]).unwrap();
        let all = records(&set.path("s.tar"));
        let error = all.last().and_then(|last| last.as_ref().err());
        let whole_blocks = len % 512 == 0;
        match error {
            Some(error) => assert!(
                error.starts_with("s.tar is ") || error.starts_with("s.tar: sample"),
                "{len}: {error}"
            ),
            None => assert!(len >= complete && whole_blocks, "{len} of {} bytes", whole.len()),
        }
        assert!(len < complete || !whole_blocks || error.is_none(), "{len}: {error:?}");
    }
}

#[test]
fn a_picture_of_a_shard_that_changed_is_named() {
    let set = Set::new("s.tar", shard(&[("a.png", &png(1)), ("a.txt", b"1")]));
    let all = records(&set.path("s.tar"));
    std::fs::write(set.path("s.tar"), b"").unwrap();
    let error = decode(&all[0].as_ref().unwrap().images[0], &LAYOUT.limits).unwrap_err().to_string();
    assert!(error.contains("s.tar: sample a: picture a.png: cannot be read"), "{error}");
}

#[test]
fn samples_without_pictures_name_files_outside() {
    let members = [("d/k.json", &br#"{"images": ["c.png"], "text": "x"}"#[..])];
    let set = Set::new("s.tar", shard(&members));
    let files = DatasetFiles::find(&set.path("s.tar"), "train").unwrap();
    for (images, wanted) in [(Some(set.path("sub")), "sub/c.png"), (None, "c.png")] {
        let record = files.records(images.as_deref()).next().unwrap().unwrap();
        assert_eq!(record.images[0].path(), Some(set.path(wanted).as_path()));
    }
}
