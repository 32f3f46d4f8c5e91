//! Data sets of several files: patterns, and folders of shards with splits as the Hub names them.

use super::*;
use crate::data::files::DatasetFiles;

/// A folder with these files; the contents are `{"text": name}` for JSON and nothing otherwise.
fn folder(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = if name.contains(".json") { format!("{{\"text\": \"{name}\"}}\n") } else { String::new() };
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// The names of the files that a path means, or what is wrong.
fn found(folder: &tempfile::TempDir, path: &str, split: &str) -> Result<String, String> {
    let root = format!("{}/", folder.path().display());
    let files = DatasetFiles::find(&folder.path().join(path), split)
        .map_err(|error| error.to_string().replace(&root, ""))?;
    let again = DatasetFiles::find(&files.path, split).unwrap();
    assert_eq!(again, files, "what is found is found again");
    let names = files.files.iter().map(|file| file.display().to_string().replace(&root, ""));
    Ok(names.collect::<Vec<_>>().join(" "))
}

#[test]
fn patterns_name_files_of_every_kind() {
    let folder =
        folder(&["s/000.tar", "s/001.tar", "s/002.tar", "a/t.jsonl", "b/t.jsonl", "x1.parquet", "{1,2}.tar"]);
    for (path, wanted) in [
        ("s/{000..002}.tar", "s/000.tar s/001.tar s/002.tar"),
        ("s/{002..001}.tar", "s/002.tar s/001.tar"),
        ("{a,b}/t.jsonl", "a/t.jsonl b/t.jsonl"),
        ("{s/{000,002}.tar,x1.parquet}", "s/000.tar s/002.tar x1.parquet"),
        // A file of that very name is meant before what it would stand for.
        ("{1,2}.tar", "{1,2}.tar"),
    ] {
        assert_eq!(found(&folder, path, "train").as_deref(), Ok(wanted), "{path}");
    }
    let error = found(&folder, "s/{001..007}.tar", "train").unwrap_err();
    assert!(
        error.starts_with("s/003.tar does not exist; 5 of the 7 files of 's/{001..007}.tar' are missing"),
        "{error}"
    );
    let error = found(&folder, "s/*.tar", "train").unwrap_err();
    assert!(error.contains("'*' is not expanded"), "{error}");
}

#[test]
fn several_files_are_read_in_order() {
    let folder = folder(&["0.jsonl", "1.jsonl", "2.jsonl"]);
    let options = ReadOptions { tokenizer: Tokenizer::bytes(), layout: LAYOUT, images: None, skip: false };
    let set = Dataset::load(&folder.path().join("{2..0}.jsonl"), "train", &options).unwrap();
    let texts: Vec<&[u32]> = set.samples.iter().map(|sample| &sample.tokens[1..2]).collect();
    assert_eq!(texts, [&ids("2")[..], &ids("1"), &ids("0")]);
}

#[test]
fn folders_of_shards_have_the_splits_of_the_hub() {
    for (files, split, wanted) in [
        ("0.tar 1.tar", "train", Ok("0.tar 1.tar")),
        (
            "train-00000-of-00002.parquet train-00001-of-00002.parquet test-00000-of-00001.parquet",
            "train",
            Ok("train-00000-of-00002.parquet train-00001-of-00002.parquet"),
        ),
        ("data/train-0.parquet data/validation-0.parquet README.md", "train", Ok("data/train-0.parquet")),
        (
            "data/train-0.parquet data/validation-0.parquet data/test-0.parquet",
            "heldout",
            Ok("data/validation-0.parquet"),
        ),
        ("train-0.tar test-0.tar heldout-0.tar val-0.tar", "heldout", Ok("heldout-0.tar")),
        ("train/0.parquet train/1.parquet test/0.parquet", "train", Ok("train/0.parquet train/1.parquet")),
        ("train/0.parquet test/0.parquet", "heldout", Ok("test/0.parquet")),
        ("train.parquet dataset_info.json", "train", Ok("train.parquet")),
        ("testimonials.tar trainspotting.tar", "train", Ok("testimonials.tar trainspotting.tar")),
        ("0.tar 0_stats.json", "train", Ok("0.tar")),
        // JSON goes on as before.
        ("train.jsonl", "train", Ok("train.jsonl")),
        ("0.tar", "heldout", Err("has no heldout.jsonl")),
        ("train-0.tar", "heldout", Err("has no heldout.jsonl")),
        ("0.tar 0.parquet", "heldout", Err("has no heldout.jsonl")),
        ("test-0.tar", "train", Err("holds held-out samples only ('test-0.tar')")),
        ("train-0.tar extra.tar", "train", Err("'extra.tar', which is not")),
        ("0.tar 0.parquet", "train", Err("holds files of several kinds, such as '0.parquet' and '0.tar'")),
        (
            "0.tar train.jsonl",
            "train",
            Err("holds files of several kinds, such as 'train.jsonl' and '0.tar'"),
        ),
        (
            "train-00000-of-00003.parquet train-00002-of-00003.parquet",
            "train",
            Err("lacks 1 of 3 files, the first of them 'train-00001-of-00003'"),
        ),
        ("train-00000-of-00002-0a1b.parquet", "train", Err("lacks 1 of 2 files")),
        ("0.tar.gz", "train", Err("is compressed as a whole")),
    ] {
        let names: Vec<&str> = files.split(' ').collect();
        let folder = folder(&names);
        match (found(&folder, "", split), wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{files}, {split}"),
            (Err(error), Err(wanted)) => assert!(error.contains(wanted), "{files}, {split}: {error}"),
            (found, _) => panic!("{files}, {split}: {found:?}"),
        }
    }
}

#[test]
fn compressed_shards_are_refused_wherever_they_are_named() {
    let folder = folder(&["a.tgz"]);
    let files = DatasetFiles::find(&folder.path().join("a.tgz"), "train").unwrap();
    let error = files.records(None).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("is compressed as a whole; unpack it to a plain .tar"), "{error}");
}
