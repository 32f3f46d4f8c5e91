//! Runs over shards and tables, and runs that leave out what cannot be used.

use crate::work::{COLORS, Work, assert_same_files};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::{self, File};
use std::sync::Arc;

/// Eight shards of three captions each, and a table of twelve: pictures are the data set's.
fn pack(work: &Work) {
    let pictures: Vec<Vec<u8>> =
        (0..COLORS.len()).map(|i| fs::read(work.path(&format!("data/{i}.png"))).unwrap()).collect();
    fs::create_dir(work.path("shards")).unwrap();
    for shard in 0..8 {
        let file = File::create(work.path(&format!("shards/{shard:03}.tar"))).unwrap();
        let mut archive = tar::Builder::new(file);
        for sample in 0..3 {
            let color = (3 * shard + sample) % COLORS.len();
            let text = format!("shard {shard} is {}", COLORS[color].0);
            for (part, bytes) in [("png", &pictures[color][..]), ("txt", text.as_bytes())] {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                archive.append_data(&mut header, format!("{sample:06}.{part}"), bytes).unwrap();
            }
        }
        archive.finish().unwrap();
    }
    let schema = "message m { required binary image; required binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(work.path("table.parquet")).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    // Several row groups.
    for group in 0..3 {
        let colors = (4 * group..4 * group + 4).map(|row| row % COLORS.len());
        let images: Vec<ByteArray> = colors.clone().map(|i| pictures[i].clone().into()).collect();
        let texts: Vec<ByteArray> = colors.map(|i| COLORS[i].0.into()).collect();
        let mut rows = writer.next_row_group().unwrap();
        for values in [images, texts] {
            let mut column = rows.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        rows.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn runs_over_shards_and_a_table_go_on_bit_for_bit() {
    let work = Work::new();
    pack(&work);
    for (name, path) in
        [("shards", "shards/{000..007}.tar"), ("folder", "shards"), ("table", "table.parquet")]
    {
        let whole = format!("whole-{name}");
        let settings = "--steps 12 --set output.checkpoint_every=5 --set output.keep=9";
        work.ok(&format!("train tiny.toml --set data.path={path} {settings} --out {whole}"));
        work.ok(&format!("train --resume {whole}/checkpoints/step-00000005 --out again-{name}"));
        let (metrics, again) = (work.metrics(&whole), work.metrics(&format!("again-{name}")));
        assert_eq!(metrics.len(), 12);
        assert_eq!(again, metrics, "{name}");
        let last = |run: &str| work.path(run).join("checkpoints/step-00000012");
        assert_same_files(&last(&whole), &last(&format!("again-{name}")));
    }
    // The same shards, named twice.
    assert_eq!(work.losses("whole-shards"), work.losses("whole-folder"));
}

#[test]
fn what_cannot_be_used_is_left_out_named_and_counted() {
    let work = Work::new();
    let mut lines: Vec<String> = work.read("data/train.jsonl").lines().map(str::to_owned).collect();
    lines[1] = r#"{"txet": "a misspelt key"}"#.into();
    work.write_lines("data/train.jsonl", &lines);
    // A picture that only decoding finds, in the held-out samples too.
    fs::write(work.path("data/0.png"), "no picture").unwrap();
    let train = "train tiny.toml --steps 6";
    work.error(&format!("{train} --out stopped"), &["data/train.jsonl:2: 'txet'", "did you mean 'text'"]);
    lines[1] = r#"{"text": "fine"}"#.into();
    work.write_lines("data/fine.jsonl", &lines);
    let fine = "--set data.path=data/fine.jsonl";
    work.error(&format!("{train} {fine} --out stopped-later"), &["data/fine.jsonl:", "0.png"]);

    let skip = "--set data.on_error=skip --set output.checkpoint_every=3";
    let ended = work.run(&format!("{train} {skip} --out skipped --json"));
    assert!(ended.status.success(), "{}", ended.stderr);
    let named = |what: &str| ended.stderr.matches(&format!("skipped: {what}")).count();
    // Line 1 captions picture 0, line 7 draws it; one of the two is met first, and names it once.
    let first = named("data/train.jsonl:1: picture data/0.png");
    let drawn = named("data/train.jsonl:7: picture data/0.png");
    assert!(first <= 1 && drawn <= 1 && first + drawn >= 1, "{}", ended.stderr);
    assert_eq!(named("data/train.jsonl:2: 'txet'"), 1, "{}", ended.stderr);
    assert_eq!(named("data/heldout.jsonl:1: picture data/0.png"), 1, "{}", ended.stderr);
    assert_eq!(named("data/heldout.jsonl:3: picture data/0.png"), 1, "{}", ended.stderr);
    let result: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(result["skipped"], first + drawn + 3);
    assert_eq!(result["eval"]["samples"], 2);
    let metrics = work.metrics("skipped");
    let samples: u64 = metrics.iter().map(|step| step["samples"].as_u64().unwrap()).sum();
    let skipped: u64 = metrics.iter().filter_map(|step| step["skipped"].as_u64()).sum();
    assert!((1..24).contains(&samples) && skipped >= 1, "{metrics:?}");

    // What is left out is the same when the run goes on.
    work.ok("train --resume skipped/checkpoints/step-00000003 --out again");
    assert_eq!(work.metrics("again"), metrics);
}
