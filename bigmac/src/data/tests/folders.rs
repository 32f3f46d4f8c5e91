//! Which files of a folder are the data set, and where pictures are named from.

use super::*;

/// A folder of files with these names, a text in each.
fn folder(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, r#"{"text": "t"}"#).unwrap();
    }
    folder
}

#[test]
fn a_split_lies_where_people_put_it() {
    for (names, split, wanted) in [
        (&["train.jsonl", "heldout.jsonl"][..], "train", Some("train.jsonl")),
        (&["train.json", "other.json"], "train", Some("train.json")),
        (&["metadata.jsonl", "a.png"], "train", Some("metadata.jsonl")),
        (&["train/metadata.jsonl", "test/metadata.jsonl"], "train", Some("train/metadata.jsonl")),
        (&["train/metadata.jsonl", "test/metadata.jsonl"], "heldout", Some("test/metadata.jsonl")),
        (&["train.jsonl", "test.jsonl", "validation.jsonl"], "heldout", Some("validation.jsonl")),
        (&["train.jsonl", "test.jsonl", "validation.jsonl"], "test", Some("test.jsonl")),
        (&["captions_train2014.json", "captions_val2014.json"], "train", Some("captions_train2014.json")),
        (&["metadata.jsonl", "heldout.jsonl", "dataset_infos.json"], "train", Some("metadata.jsonl")),
        (&["llava.json"], "heldout", None),
        (&["a.json", "b.json"], "train", None),
        (&["heldout.jsonl"], "train", None),
        (&["test.json"], "train", None),
        (&["test/metadata.jsonl"], "train", None),
        (&["train.json", "train.jsonl"], "train", None),
        (&["train.jsonl"], "heldout", None),
    ] {
        let folder = folder(names);
        let found = find_dataset_file(folder.path(), split);
        assert_eq!(
            found.as_ref().ok(),
            wanted.map(|name| folder.path().join(name)).as_ref(),
            "{names:?}: {found:?}"
        );
    }
}

#[test]
fn what_is_kept_for_evaluation_is_never_trained_on() {
    for name in [
        "heldout.jsonl",
        "test.jsonl",
        "validation.json",
        "val.jsonl",
        "my_eval-3.jsonl",
        "captions_val2014.json",
        "dev.json",
    ] {
        let folder = folder(&[name]);
        let error = find_dataset_file(folder.path(), "train").unwrap_err().to_string();
        assert!(
            error
                .contains(&format!("has no train.jsonl, only samples that are kept for evaluation ({name})")),
            "{error}"
        );
    }
    // Words that only look like it.
    for name in ["latest.jsonl", "devices.json", "evaluations_train.json", "valley.jsonl"] {
        assert!(find_dataset_file(folder(&[name]).path(), "train").is_ok(), "{name}");
    }
}

#[test]
fn what_cannot_be_meant_is_said() {
    for (names, wanted) in [
        (&["train.json", "train.jsonl"][..], "has both train.jsonl and train.json"),
        (
            &["metadata.csv", "a.png"],
            "metadata.csv is a table, which is not read; write it as metadata.jsonl",
        ),
        (&["train/metadata.csv"], "train/metadata.csv is a table"),
        (&["a.json", "b.json"], "has no train.jsonl (it has a.json, b.json)"),
        (&["a.png"], "has no train.jsonl; give"),
    ] {
        let error = find_dataset_file(folder(names).path(), "train").unwrap_err().to_string();
        assert!(error.contains(wanted), "{names:?}: {error}");
    }
}

#[test]
fn pictures_may_lie_elsewhere() {
    let set = Set::lines(&[r#"{"image": "c.png", "text": "x"}"#]);
    let load = |images: Option<PathBuf>| {
        let options = ReadOptions { tokenizer: Tokenizer::bytes(), layout: LAYOUT, images, skip: false };
        Dataset::load(set.folder.path(), "train", &options)
    };
    assert!(load(None).unwrap_err().to_string().contains("c.png: no such file"));
    let data = load(Some(set.path("sub"))).unwrap();
    assert_eq!(data.samples[0].images[0].picture.path(), Some(set.path("sub/c.png").as_path()));
    // An absolute name stays what it is.
    std::fs::write(
        set.path("train.jsonl"),
        format!(r#"{{"image": "{}", "text": "x"}}"#, set.path("a.png").display()),
    )
    .unwrap();
    assert_eq!(
        load(Some(set.path("sub"))).unwrap().samples[0].images[0].picture.path(),
        Some(set.path("a.png").as_path())
    );
}
