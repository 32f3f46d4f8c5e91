//! Random data sets in shards and tables: every character, picture byte and target token is accounted for. Damaged files
//! are an error or right, and never a panic.

use super::tables::{Entries, table};
use super::*;
use crate::data::files::DatasetFiles;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use proptest::prelude::*;

/// What a record says.
#[derive(Clone, Debug)]
struct Said {
    prompt: String,
    text: String,
    images: Vec<Vec<u8>>,
    draw: Option<Vec<u8>>,
    /// How many of the marks stand in the prompt; none at all where the pictures come first.
    marks: Option<usize>,
    /// In a table: whether a record without pictures has an empty list, or none.
    empty: bool,
    /// In a table: whether pictures have a path beside their bytes.
    path: bool,
}

fn text() -> impl Strategy<Value = String> {
    let pieces = [
        "<ima",
        "ge>",
        "<draw>",
        "\"",
        "\n",
        "  ",
        "\u{e9}",
        "\u{1f600}",
        "\u{2028}",
        "\0",
        "abc",
        "{}",
        "\r\n",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..6).prop_map(|pieces| {
        // Pieces that happen to make a mark are another text.
        pieces.concat().replace(IMAGE_MARK, "mark")
    })
}

fn said() -> impl Strategy<Value = Said> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..60);
    let images = proptest::collection::vec(bytes(), 0..4);
    let flags = (any::<bool>(), any::<bool>(), proptest::option::of(0..4usize));
    (text(), text(), images, proptest::option::of(bytes()), flags).prop_map(
        |(prompt, text, images, draw, (empty, path, marks))| {
            let text = if draw.is_none() && text.is_empty() { "x".to_owned() } else { text };
            let marks = marks.map(|marks| marks.min(images.len()));
            Said { prompt, text, images, draw, marks, empty, path }
        },
    )
}

impl Said {
    /// Prompt and text with their marks: at the end of each.
    fn written(&self) -> (String, String) {
        let (first, rest) = self.marks.map_or((0, 0), |marks| (marks, self.images.len() - marks));
        (self.prompt.clone() + &IMAGE_MARK.repeat(first), self.text.clone() + &IMAGE_MARK.repeat(rest))
    }

    /// What is to be read of it: the text of each kind, with `|` for each picture.
    fn wanted(&self) -> (String, Vec<Vec<u8>>, Option<Vec<u8>>) {
        let first = if self.marks.is_none() { self.images.len() } else { 0 };
        let (prompt, text) = self.written();
        let told = format!("{}({prompt})[{text}]", "|".repeat(first)).replace(IMAGE_MARK, "|");
        (told, self.images.clone(), self.draw.clone())
    }
}

/// What was read, as [`Said::wanted`].
fn found(record: &Record) -> (String, Vec<Vec<u8>>, Option<Vec<u8>>) {
    let (mut prompt, mut text, mut pictures) = (String::new(), String::new(), String::new());
    for segment in &record.segments {
        match segment {
            Segment::Text { text: piece, learned } => {
                let into = if *learned { &mut text } else { &mut prompt };
                into.push_str(&pictures);
                into.push_str(piece);
                pictures.clear();
            }
            Segment::Image => pictures.push('|'),
            Segment::End | Segment::Draw => {}
        }
    }
    (
        format!("{prompt}{text}{pictures}"),
        bytes(&record.images),
        record.draw.as_ref().map(|p| p.bytes().unwrap()),
    )
}

fn bytes(pictures: &[PictureRef]) -> Vec<Vec<u8>> {
    pictures.iter().map(|picture| picture.bytes().unwrap()).collect()
}

fn check(set: &Set, name: &str, said: &[Said]) -> Result<(), TestCaseError> {
    let records = DatasetFiles::find(&set.path(name), "train").unwrap().records(None);
    let records: Vec<Record> = records.map(|record| record.unwrap()).collect();
    prop_assert_eq!(records.len(), said.len());
    let layout = Layout { tokens_per_microbatch: 1 << 20, ..LAYOUT };
    for (record, said) in records.iter().zip(said) {
        let (told, images, draw) = said.wanted();
        let (read, found_images, found_draw) = found(record);
        prop_assert_eq!(read, told.replace(['(', ')', '[', ']'], ""));
        prop_assert_eq!((found_images, found_draw), (images, draw));
        let sample = Sample::new(record, &Tokenizer::bytes(), &layout).unwrap();
        prop_assert_eq!(sample.target_tokens as usize, said.text.len() + 1);
    }
    Ok(())
}

fn shard(said: &[Said]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |name: String, contents: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        builder.append_data(&mut header, name, contents).unwrap();
    };
    for (i, said) in said.iter().enumerate() {
        for (n, image) in said.images.iter().enumerate() {
            put(format!("d/{i}.{n}.jpg"), image);
        }
        let (prompt, text) = said.written();
        if said.path {
            let object = serde_json::json!({"prompt": prompt, "text": text});
            put(format!("d/{i}.json"), object.to_string().as_bytes());
        } else {
            put(format!("d/{i}.txt"), text.as_bytes());
            put(format!("d/{i}.prompt.txt"), prompt.as_bytes());
        }
        if let Some(draw) = &said.draw {
            put(format!("d/{i}.draw.png"), draw);
        }
    }
    builder.into_inner().unwrap()
}

const SCHEMA: &str = "message m {
    optional group images (LIST) { repeated group list { optional group element {
        optional binary bytes; optional binary path (UTF8); } } }
    optional group draw { optional binary bytes; optional binary path (UTF8); }
    optional binary prompt (UTF8);
    required binary text (UTF8); }";

/// One row group.
fn columns(said: &[Said]) -> Vec<Entries> {
    let mut leaves: Vec<Entries> = vec![Vec::new(); 6];
    for said in said {
        if said.images.is_empty() {
            let level = i16::from(said.empty);
            leaves[0].push((level, 0, Vec::new()));
            leaves[1].push((level, 0, Vec::new()));
        }
        for (n, image) in said.images.iter().enumerate() {
            let rep = i16::from(n > 0);
            leaves[0].push((4, rep, image.clone()));
            leaves[1].push((if said.path { 4 } else { 3 }, rep, format!("{n}.jpg").into_bytes()));
        }
        let level = if said.draw.is_some() { 2 } else { i16::from(said.empty) };
        leaves[2].push((level, 0, said.draw.clone().unwrap_or_default()));
        leaves[3].push((if said.path && level > 0 { 2 } else { level.min(1) }, 0, Vec::new()));
        let (prompt, text) = said.written();
        leaves[4].push((i16::from(!prompt.is_empty()), 0, prompt.into_bytes()));
        leaves[5].push((0, 0, text.into_bytes()));
    }
    leaves
}

fn properties() -> impl Strategy<Value = parquet::file::properties::WriterPropertiesBuilder> {
    let statistics = [EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page];
    (any::<bool>(), any::<bool>(), any::<bool>(), 1..5usize, proptest::sample::select(statistics.to_vec()))
        .prop_map(|(dictionary, new, no_index, rows, statistics)| {
            WriterProperties::builder()
                .set_dictionary_enabled(dictionary)
                .set_writer_version(if new { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 })
                .set_offset_index_disabled(no_index)
                .set_data_page_row_count_limit(rows)
                .set_write_batch_size(rows)
                .set_compression(if dictionary { Compression::SNAPPY } else { Compression::UNCOMPRESSED })
                .set_statistics_enabled(statistics)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everything_in_a_shard_is_accounted_for(said in proptest::collection::vec(said(), 1..8)) {
        check(&Set::new("s.tar", shard(&said)), "s.tar", &said)?;
    }

    #[test]
    fn everything_in_a_table_is_accounted_for(
        said in proptest::collection::vec(said(), 1..20),
        group in 1..20usize,
        properties in properties(),
    ) {
        let groups: Vec<Vec<Entries>> = said.chunks(group).map(columns).collect();
        check(&Set::new("t.parquet", table(SCHEMA, properties, &groups)), "t.parquet", &said)?;
    }

    #[test]
    fn damaged_files_are_an_error_or_read(
        said in proptest::collection::vec(said(), 1..6),
        properties in properties(),
        is_table in any::<bool>(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let (name, mut contents) = if is_table {
            ("t.parquet", table(SCHEMA, properties, &[columns(&said), columns(&said)]))
        } else {
            ("s.tar", shard(&said))
        };
        for (at, byte) in flips {
            let at = at.index(contents.len());
            contents[at] ^= byte;
        }
        if let Some(cut) = cut {
            contents.truncate(cut.index(contents.len()));
        }
        let set = Set::new(name, contents);
        // The panic that is caught inside is told on stderr, which tests do not show.
        for record in DatasetFiles::find(&set.path(name), "train").unwrap().records(None).take(1000).flatten() {
            for picture in record.images.iter().chain(&record.draw) {
                let _ = picture.bytes();
            }
        }
    }
}

#[test]
fn a_table_that_is_cut_anywhere_is_an_error() {
    let said = Said {
        prompt: "p".into(),
        text: "text".into(),
        images: vec![vec![7; 100]],
        draw: None,
        marks: None,
        empty: true,
        path: true,
    };
    let whole = table(SCHEMA, WriterProperties::builder(), &[columns(&[said.clone(), said])]);
    let set = Set::new("t.parquet", "");
    for len in (0..whole.len()).step_by(64).chain([1, whole.len() - 1]) {
        std::fs::write(set.path("t.parquet"), &whole[..len]).unwrap();
        let records: Vec<_> =
            DatasetFiles::find(&set.path("t.parquet"), "train").unwrap().records(None).collect();
        let error = records[0].as_ref().unwrap_err().to_string();
        assert!(records.len() == 1 && error.contains("cannot be read as a Parquet file"), "{len}: {error}");
    }
}
