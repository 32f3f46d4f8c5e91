//! Parquet tables: written by Hugging Face's `datasets` and by pyarrow (see `bigmac/tests/files/make_tables.py`), and
//! with the parquet crate.

use super::shards::{png, red, told};
use super::*;
use crate::data::files::DatasetFiles;
use parquet::basic::{Compression, Encoding};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::path::Path;

/// The text columns and picture columns of a schema, one vector of (levels, value) triples per leaf.
pub(super) type Entries = Vec<(i16, i16, Vec<u8>)>;

/// Writes row groups of byte columns: for each group the leaves in order, each as (definition level, repetition level,
/// value) with an empty value where it is null.
pub(super) fn table(schema: &str, properties: WriterPropertiesBuilder, groups: &[Vec<Entries>]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties.build())).unwrap();
    for group in groups {
        let mut rows = writer.next_row_group().unwrap();
        for entries in group {
            let mut column = rows.next_column().unwrap().unwrap();
            let ColumnWriter::ByteArrayColumnWriter(typed) = column.untyped() else { panic!("bytes only") };
            let full = typed.get_descriptor().max_def_level();
            let present = entries.iter().filter(|entry| entry.0 == full);
            let values: Vec<ByteArray> = present.map(|entry| ByteArray::from(entry.2.clone())).collect();
            let defs: Vec<i16> = entries.iter().map(|entry| entry.0).collect();
            let reps: Vec<i16> = entries.iter().map(|entry| entry.1).collect();
            typed.write_batch(&values, Some(&defs), Some(&reps)).unwrap();
            column.close().unwrap();
        }
        rows.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

const TEXT: &str = "message m { optional binary text (UTF8); }";

/// A table of one column of text.
fn texts(texts: &[Option<&str>]) -> Vec<u8> {
    table(TEXT, WriterProperties::builder(), &[vec![column(texts)]])
}

fn column(texts: &[Option<&str>]) -> Entries {
    texts.iter().map(|text| (i16::from(text.is_some()), 0, text.unwrap_or("").as_bytes().to_vec())).collect()
}

fn read(bytes: &[u8]) -> Vec<Result<String, String>> {
    let set = Set::new("t.parquet", bytes);
    std::fs::write(set.path("red.png"), png(200)).unwrap();
    all(&set.path("t.parquet"), &set).into_iter().map(|record| record.map(|record| told(&record))).collect()
}

fn all(path: &Path, set: &Set) -> Vec<Result<Record, String>> {
    let records = DatasetFiles::find(path, "train").unwrap().records(None);
    let folder = format!("{}/", set.folder.path().display());
    records.map(|record| record.map_err(|error| error.to_string().replace(&folder, ""))).collect()
}

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

fn fixture(name: &str) -> Vec<String> {
    let records = DatasetFiles::find(&file(name), "train").unwrap().records(None);
    records.map(|record| told(&record.unwrap())).collect()
}

#[test]
fn tables_of_the_hub_are_read() {
    let texts = fixture("hub-text.parquet");
    let wanted: Vec<String> = (0..6)
        .map(|i| if i == 3 { "[text 3].".into() } else { format!("<{}>[text {i}].", 16 * i) })
        .collect();
    assert_eq!(texts, wanted);
    let turns = fixture("hub-messages.parquet");
    let wanted: Vec<String> =
        (0..6).map(|i| format!("USER: <{}>what is {i}? ASSISTANT:[ it is {i}].", 16 * i)).collect();
    assert_eq!(turns, wanted);
}

#[test]
fn every_compression_and_page_version_reads_the_same() {
    let wanted = [
        "say: [text 0].",
        "<0>[text 0].",
        "<16><32>say: [text 0].",
        "say: [text 1].",
        "<48><64><80>say: [text 1].",
        "<96>[text 1].",
        "<112><128>say: [text 2].",
        "say: [text 2].",
        "<144>say: [text 2].",
        "<160><176>[text 3].",
    ];
    for version in [1, 2] {
        for codec in ["none", "snappy", "gzip", "zstd", "lz4", "brotli"] {
            assert_eq!(fixture(&format!("pages-{version}-{codec}.parquet")), wanted, "{version} {codec}");
        }
    }
}

#[test]
fn pictures_are_read_from_many_threads_in_any_order() {
    use rayon::prelude::*;
    let records: Vec<Record> = DatasetFiles::find(&file("pages-1-zstd.parquet"), "train")
        .unwrap()
        .records(None)
        .collect::<Result<_, _>>()
        .unwrap();
    let pictures: Vec<&PictureRef> = records.iter().flat_map(|record| &record.images).collect();
    let reds: Vec<u8> = (0..240).into_par_iter().map(|i| red(pictures[(i * 7) % 12])).collect();
    for (i, found) in reds.into_iter().enumerate() {
        assert_eq!(usize::from(found), 16 * ((i * 7) % 12));
    }
}

#[test]
fn a_picture_is_bytes_or_a_file_or_none() {
    let schema = "message m { optional group image { optional binary bytes; optional binary path (UTF8); }
                  required binary text (UTF8); }";
    let text = |n: usize| -> Entries { (0..n).map(|_| (0, 0, b"x".to_vec())).collect() };
    let (present, null, none) =
        (|value: &[u8]| (2, 0, value.to_vec()), (1, 0, Vec::new()), (0, 0, Vec::new()));
    let group = vec![
        vec![present(&png(1)), null.clone(), none.clone(), null.clone(), present(&png(2))],
        vec![present(b"elsewhere.png"), present(b"red.png"), none, null.clone(), null],
        text(5),
    ];
    let wanted = ["<1>[x].", "<200>[x].", "[x].", "[x].", "<2>[x]."];
    for statistics in [EnabledStatistics::Page, EnabledStatistics::Chunk, EnabledStatistics::None] {
        let properties = WriterProperties::builder().set_statistics_enabled(statistics);
        let told: Vec<String> = read(&table(schema, properties, &[group.clone(), group.clone()]))
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(told, [wanted, wanted].concat());
    }
}

#[test]
fn plain_bytes_and_lists_of_them_are_pictures() {
    for (schema, levels) in [
        ("message m { required binary image; required binary text (UTF8); }", [0, 0]),
        ("message m { optional binary image; required binary text (UTF8); }", [1, 0]),
        // A list as Parquet has them, and as it had them once.
        (
            "message m { optional group images (LIST) { repeated group list { optional binary element; } } required binary text (UTF8); }",
            [3, 1],
        ),
        (
            "message m { required group images (LIST) { repeated group bag { required binary array; } } required binary text (UTF8); }",
            [1, 1],
        ),
        ("message m { repeated binary images; required binary text (UTF8); }", [1, 1]),
        ("message m { optional binary draw; required binary text (UTF8); }", [1, 0]),
    ] {
        let [full, repeated] = levels;
        let mut pictures: Entries = vec![(full, 0, png(1)), (full, 0, png(2))];
        let mut text = column(&[Some("a"), Some("b")]);
        text.iter_mut().for_each(|entry| entry.0 = 0);
        let mut wanted = vec!["<1>[a].", "<2>[b]."];
        if repeated == 1 {
            pictures.insert(1, (full, 1, png(3)));
            wanted[0] = "<1><3>[a].";
        }
        if schema.contains("draw") {
            wanted = vec!["[a]-> 1", "[b]-> 2"];
        }
        let told: Vec<String> = read(&table(schema, WriterProperties::builder(), &[vec![pictures, text]]))
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(told, wanted, "{schema}");
    }
}

#[test]
fn turns_are_structs_or_json() {
    let schema =
        "message m { optional group conversations (LIST) { repeated group list { optional group element {
                  optional binary from (UTF8); optional binary value (UTF8); } } } required binary image; }";
    let turn = |from: [&str; 2]| -> Entries {
        [0, 1, 0, 1]
            .iter()
            .zip([from[0], from[1], from[0], from[1]])
            .map(|(&rep, text)| (4, rep, text.into()))
            .collect()
    };
    let group = vec![turn(["human", "gpt"]), turn(["<image>q", "a"]), vec![(0, 0, png(1)), (0, 0, png(2))]];
    let wanted = ["USER: <1>q ASSISTANT:[ a].", "USER: <2>q ASSISTANT:[ a]."];
    let told: Vec<String> =
        read(&table(schema, WriterProperties::builder(), &[group])).into_iter().map(Result::unwrap).collect();
    assert_eq!(told, wanted);

    let schema = "message m { required binary conversations (UTF8); required binary image; }";
    let turns = r#"[{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}]"#;
    let group =
        vec![vec![(0, 0, turns.into()), (0, 0, b"what?".to_vec())], vec![(0, 0, png(1)), (0, 0, png(2))]];
    let told = read(&table(schema, WriterProperties::builder(), &[group]));
    assert_eq!(told[0].as_deref(), Ok(wanted[0]));
    let error = told[1].as_ref().unwrap_err();
    assert!(
        error.starts_with("t.parquet: row 2: column 'conversations' is text, but not a JSON list"),
        "{error}"
    );
}

#[test]
fn rows_that_cannot_be_used_are_named_and_the_rest_is_read() {
    let told = read(&texts(&[Some("a"), None, Some("c")]));
    assert_eq!((told[0].as_deref(), told[2].as_deref()), (Ok("[a]."), Ok("[c].")));
    let error = told[1].as_ref().unwrap_err();
    assert!(error.starts_with("t.parquet: row 2: nothing to learn"), "{error}");

    let schema = "message m { required binary text; }";
    let group = vec![vec![(0, 0, b"a".to_vec()), (0, 0, b"\xff".to_vec()), (0, 0, b"c".to_vec())]];
    let told = read(&table(schema, WriterProperties::builder(), &[group]));
    assert_eq!((told[0].as_deref(), told[2].as_deref()), (Ok("[a]."), Ok("[c].")));
    let error = told[1].as_ref().unwrap_err();
    assert!(error.starts_with("t.parquet: row 2: column 'text' holds bytes that is not UTF-8"), "{error}");
}

#[test]
fn columns_that_are_not_known_are_named() {
    let two = |name: &str, value: Option<&str>| {
        let schema = format!("message m {{ required binary text (UTF8); optional binary {name} (UTF8); }}");
        let group = vec![vec![(0, 0, b"x".to_vec())], column(&[value])];
        read(&table(&schema, WriterProperties::builder(), &[group]))
    };
    for (name, wanted) in [
        (
            "imgae",
            "of its columns, 'imgae' is not a valid key (did you mean 'image'?); known are text, prompt",
        ),
        ("caption", "of its columns, 'caption' is not read: write it as 'text'"),
        ("audio", "of its columns, 'audio' is not read: "),
    ] {
        let error = two(name, Some("y")).remove(0).unwrap_err();
        assert!(error.starts_with("t.parquet cannot be used: ") && error.contains(wanted), "{error}");
        // A column that is null throughout holds nothing that could be dropped.
        assert_eq!(two(name, None), [Ok("[x].".to_owned())]);
    }
    for name in ["id", "source", "__index_level_0__"] {
        assert_eq!(two(name, Some("7")), [Ok("[x].".to_owned())]);
    }
    for (schema, wanted) in [
        ("message m { required int64 image; }", "column 'image' is a number, expected pictures"),
        (
            "message m { required group image { required binary bytes; required binary colour (UTF8); } }",
            "'image' is a struct of bytes, colour, expected",
        ),
        (
            "message m { required fixed_len_byte_array(4) text; }",
            "'text' is a value of a fixed width, expected text",
        ),
        (
            "message m { required group messages (MAP) { repeated group key_value { required binary key (UTF8); optional binary value (UTF8); } } }",
            "'messages' is a map",
        ),
        ("message m { required int64 id; }", "no column with anything to learn"),
    ] {
        let error = columns_of(schema);
        assert!(error.contains(wanted), "{error}");
    }
}

/// What is said of a table with one row of this schema, whose values do not matter.
fn columns_of(schema: &str) -> String {
    use parquet::data_type::FixedLenByteArray;
    let parsed = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, parsed, Arc::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    while let Some(mut column) = rows.next_column().unwrap() {
        let (defs, reps) = (Some(&[2i16][..]), Some(&[0i16][..]));
        match column.untyped() {
            ColumnWriter::Int64ColumnWriter(w) => w.write_batch(&[1], None, None).unwrap(),
            ColumnWriter::FixedLenByteArrayColumnWriter(w) => {
                w.write_batch(&[FixedLenByteArray::from(vec![0; 4])], None, None).unwrap()
            }
            ColumnWriter::ByteArrayColumnWriter(w) => match w.get_descriptor().max_def_level() {
                0 => w.write_batch(&[ByteArray::from("x")], None, None).unwrap(),
                1 => w.write_batch(&[ByteArray::from("x")], Some(&[1]), reps).unwrap(),
                _ => w.write_batch(&[ByteArray::from("x")], defs, reps).unwrap(),
            },
            _ => panic!("not used here"),
        };
        column.close().unwrap();
    }
    rows.close().unwrap();
    writer.close().unwrap();
    read(&bytes).remove(0).unwrap_err()
}

#[test]
fn two_columns_of_pictures_must_not_both_hold_some() {
    let schema = "message m { optional binary image; optional binary images; required binary text (UTF8); }";
    let none = || (0, 0, Vec::new());
    let group = vec![
        vec![(1, 0, png(1)), none(), (1, 0, png(3))],
        vec![none(), (1, 0, png(2)), (1, 0, png(4))],
        vec![(0, 0, b"x".to_vec()), (0, 0, b"y".to_vec()), (0, 0, b"z".to_vec())],
    ];
    let told = read(&table(schema, WriterProperties::builder(), &[group]));
    assert_eq!((told[0].as_deref(), told[1].as_deref()), (Ok("<1>[x]."), Ok("<2>[y].")));
    assert!(told[2].as_ref().unwrap_err().contains("columns 'image' and 'images' both hold pictures"));
}

#[test]
fn encodings_of_newer_writers_are_read() {
    let text: Vec<String> = (0..1000).map(|i| format!("text number {}", i / 3)).collect();
    let entries = || -> Vec<Entries> { vec![text.iter().map(|t| (1, 0, t.clone().into_bytes())).collect()] };
    let wanted: Vec<String> = text.iter().map(|t| format!("[{t}].")).collect();
    for (encoding, version) in [
        (Encoding::PLAIN, WriterVersion::PARQUET_1_0),
        (Encoding::DELTA_BYTE_ARRAY, WriterVersion::PARQUET_2_0),
        (Encoding::DELTA_LENGTH_BYTE_ARRAY, WriterVersion::PARQUET_2_0),
    ] {
        for dictionary in [false, true] {
            let properties = WriterProperties::builder()
                .set_encoding(encoding)
                .set_dictionary_enabled(dictionary)
                .set_writer_version(version)
                .set_compression(Compression::SNAPPY)
                .set_data_page_row_count_limit(100);
            let told: Vec<String> =
                read(&table(TEXT, properties, &[entries()])).into_iter().map(Result::unwrap).collect();
            assert_eq!(told, wanted);
        }
    }
}

#[test]
fn what_is_no_table_is_named() {
    for bytes in
        [&b""[..], b"PAR1", b"PAR1PAR1", b"{\"text\": \"x\"}", b"PAR1\x00\x00\x00\x00\xff\xff\xff\x7fPAR1"]
    {
        let told = read(bytes);
        let error = told[0].as_ref().unwrap_err();
        assert!(
            error.starts_with("t.parquet cannot be read as a Parquet file (") && told.len() == 1,
            "{error}"
        );
    }
    // A table without rows is one without samples.
    assert!(read(&texts(&[])).is_empty());
}

#[test]
fn a_picture_of_a_table_that_changed_is_named() {
    let schema = "message m { required binary image; required binary text (UTF8); }";
    let group = vec![vec![(0, 0, png(1))], vec![(0, 0, b"x".to_vec())]];
    let set = Set::new("t.parquet", table(schema, WriterProperties::builder(), &[group]));
    let records = all(&set.path("t.parquet"), &set);
    std::fs::write(set.path("t.parquet"), b"").unwrap();
    let error = decode(&records[0].as_ref().unwrap().images[0], &LAYOUT.limits).unwrap_err().to_string();
    assert!(
        error.contains("t.parquet: row 1: picture image: cannot be read (row group 1, row 1: "),
        "{error}"
    );
}

#[test]
fn names_of_pictures_find_the_row_s_own_or_files() {
    let schema = "message m { optional group images (LIST) { repeated group list { optional group element {
                  optional binary bytes; optional binary path (UTF8); } } } required binary messages (UTF8);
                  optional binary draw (UTF8); }";
    let turns = |names: [&str; 2]| {
        let [a, b] = names.map(|name| format!(r#"{{"type": "image", "image": "{name}"}}"#));
        let content = format!(r#"[{a}, {b}, {{"type": "text", "text": "q"}}]"#);
        format!(r#"[{{"role": "user", "content": {content}}}, {{"role": "assistant", "content": "a"}}]"#)
            .into_bytes()
    };
    let pictures = || -> [Entries; 2] {
        let paths = [(4, 0, b"d/1.png".to_vec()), (4, 1, b"d/2.png".to_vec())];
        [vec![(4, 0, png(1)), (4, 1, png(2))], paths.to_vec()]
    };
    let row = |names: [&str; 2], draw: Option<&str>| {
        let [bytes, paths] = pictures();
        let group = vec![bytes, paths, vec![(0, 0, turns(names))], column(&[draw])];
        read(&table(schema, WriterProperties::builder(), &[group])).remove(0)
    };
    assert_eq!(row(["d/2.png", "1.png"], None).as_deref(), Ok("USER: <2><1>q ASSISTANT:[ a]."));
    // A picture to be drawn lies outside, where the table names it.
    assert_eq!(row(["2.png", "1.png"], Some("red.png")).as_deref(), Ok("USER: <2><1>q ASSISTANT:[ a]-> 200"));
    let error = row(["2.png", "3.png"], None).unwrap_err();
    assert!(error.contains("'3.png' is not among the pictures of the sample (d/1.png, d/2.png)"), "{error}");
    let error = row(["2.png", "2.png"], None).unwrap_err();
    assert!(error.contains("names pictures, but not 'd/1.png'"), "{error}");
}

#[test]
fn files_outside_are_named_from_data_images() {
    let schema = "message m { required group image { optional binary bytes; required binary path (UTF8); }
                  required binary text (UTF8); }";
    let group = vec![vec![(0, 0, Vec::new())], vec![(0, 0, b"c.png".to_vec())], vec![(0, 0, b"x".to_vec())]];
    let set = Set::new("t.parquet", table(schema, WriterProperties::builder(), &[group]));
    let files = DatasetFiles::find(&set.path("t.parquet"), "train").unwrap();
    let record = files.records(Some(&set.path("sub"))).next().unwrap().unwrap();
    assert_eq!(record.images[0].path(), Some(set.path("sub/c.png").as_path()));
    let record = files.records(None).next().unwrap().unwrap();
    assert_eq!(record.images[0].path(), Some(set.path("c.png").as_path()));
}
