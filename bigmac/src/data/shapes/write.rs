//! Writing a shapes set: pictures, `train.jsonl`, `heldout.jsonl`, and `dataset.json`, which comes last and says that
//! the set is complete.

use super::draw::draw_scene;
use super::scene::Scene;
use crate::data::error::DataError;
use crate::data::files::{DESCRIPTION, WRITING_MARK};
use crate::data::forms::IMAGE_MARK;
use crate::data::order::EpochOrder;
use bigmac_runtime::fs::read_text;
use bigmac_runtime::rng::{Philox, Purpose};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Raised whenever the same specification would give other bytes.
const VERSION: u32 = 1;
const SIDE: usize = 32;
const TRAIN: &str = "train";
const HELD_OUT: &str = "heldout";
/// Far beyond what is of use: a slip of the hand above it would ask for all memory at once.
const MOST: usize = 100_000_000;
/// What a set consists of; nothing else in its folder is ever touched.
const PARTS: [&str; 5] = ["images", HELD_OUT, "train.jsonl", "heldout.jsonl", DESCRIPTION];

/// What determines a shapes set, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapesSpec {
    /// Lines for training. Two lines share a picture: one has it captioned, one has it drawn.
    pub samples: usize,
    /// Descriptions for evaluation that training never shows; a caption and a drawing line for each.
    pub heldout: usize,
    /// Seed of order and jitter.
    pub seed: u64,
}

impl Default for ShapesSpec {
    /// 48,000 lines over 24,000 pictures, 400 held-out descriptions, seed 0.
    fn default() -> Self {
        ShapesSpec { samples: 48_000, heldout: 400, seed: 0 }
    }
}

impl ShapesSpec {
    /// Pictures that are written.
    pub fn pictures(&self) -> usize {
        self.samples.div_ceil(2) + self.heldout
    }
}

/// What [`write_shapes`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Wrote the set.
    Written,
    /// Wrote the set in place of one whose writing had been interrupted.
    Restarted,
    /// Found this very set complete, and left it as it is.
    Reused,
}

/// The contents of `dataset.json`.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    kind: String,
    version: u32,
    side: usize,
    samples: usize,
    heldout: usize,
    seed: u64,
}

impl Description {
    fn of(spec: &ShapesSpec) -> Self {
        let ShapesSpec { samples, heldout, seed } = *spec;
        Description { kind: "shapes".into(), version: VERSION, side: SIDE, samples, heldout, seed }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<[&'a str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    draw: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn caption(scene: &Scene, image: &'a str) -> Self {
        Line { text: Some(format!("{IMAGE_MARK}{scene}")), images: Some([image]), prompt: None, draw: None }
    }

    fn drawing(scene: &Scene, image: &'a str) -> Self {
        Line { text: None, images: None, prompt: Some(scene.to_string()), draw: Some(image) }
    }
}

/// Writes the set that `spec` determines into `folder`, unless it is there already. `progress` is told the number of
/// pictures written since it was told last, from any thread.
///
/// The folder must be missing, empty, or hold a shapes set; a finished set of another specification is replaced only
/// with `overwrite`. Two processes that write to one folder take turns: the second finds the set complete.
///
/// # Errors
/// When the folder holds something else, or cannot be written; for no samples, or more than a hundred million.
pub fn write_shapes(
    folder: &Path,
    spec: &ShapesSpec,
    overwrite: bool,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Outcome, DataError> {
    if spec.samples == 0 {
        return Err(DataError::Value("a shapes set of 0 samples; give at least 1 with --samples".into()));
    }
    if spec.samples.max(spec.heldout) > MOST {
        let most = spec.samples.max(spec.heldout);
        return Err(DataError::Value(format!("a shapes set of {most} samples; give at most {MOST}")));
    }
    if is_complete(folder, spec, overwrite)? {
        return Ok(Outcome::Reused);
    }
    fs::create_dir_all(folder).map_err(DataError::write(folder))?;
    let mark = folder.join(WRITING_MARK);
    refuse_foreign(folder)?;
    let interrupted = mark.exists();
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&mark)
        .map_err(DataError::write(&mark))?;
    // Held until the process ends or the set is written: a mark without a holder is one of an interrupted write.
    lock.lock().map_err(DataError::write(&mark))?;
    if is_complete(folder, spec, overwrite)? {
        return Ok(Outcome::Reused);
    }
    write_parts(folder, spec, progress)?;
    fs::remove_file(&mark).map_err(DataError::write(&mark))?;
    Ok(if interrupted { Outcome::Restarted } else { Outcome::Written })
}

/// Whether the finished set in `folder` is the one of `spec`; an error when it is another and stays.
fn is_complete(folder: &Path, spec: &ShapesSpec, overwrite: bool) -> Result<bool, DataError> {
    let path = folder.join(DESCRIPTION);
    let text = match read_text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(DataError::read(&path)(error)),
    };
    let found: Option<Description> = serde_json::from_str(&text).ok();
    if found.as_ref() == Some(&Description::of(spec)) {
        return Ok(true);
    }
    if overwrite {
        return Ok(false);
    }
    let holds = match found {
        Some(Description { version, samples, heldout, seed, .. }) => format!(
            "a shapes set of other settings (version {version}, --samples {samples}, --heldout {heldout}, --seed {seed})"
        ),
        None => format!("a {DESCRIPTION} that does not describe a shapes set"),
    };
    Err(occupied(folder, &holds))
}

/// A folder without a mark or description of ours must be empty: what is in it is someone else's.
fn refuse_foreign(folder: &Path) -> Result<(), DataError> {
    let Some(entry) = fs::read_dir(folder).map_err(DataError::read(folder))?.next() else { return Ok(()) };
    // Asked after the folder was listed: what is in it may be the mark that another process has just put there.
    if folder.join(WRITING_MARK).exists() || folder.join(DESCRIPTION).exists() {
        return Ok(());
    }
    let name = entry.map_err(DataError::read(folder))?.file_name();
    let holds = format!("files that are not a shapes set ({}, ...)", name.to_string_lossy());
    Err(occupied(folder, &holds))
}

fn occupied(folder: &Path, holds: &str) -> DataError {
    let advice = "choose another --out; --overwrite replaces a shapes set, and nothing else";
    DataError::contents(folder, format!("holds {holds}; {advice}"))
}

fn write_parts(folder: &Path, spec: &ShapesSpec, progress: &(dyn Fn(usize) + Sync)) -> Result<(), DataError> {
    for part in PARTS.iter().rev() {
        let path = folder.join(part);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DataError::write(&path)(error));
            }
            _ => {}
        }
    }
    let (held_out, training): (Vec<Scene>, Vec<Scene>) =
        Scene::all().into_iter().partition(Scene::is_held_out);
    for (split, pictures, lines, scenes, images) in [
        (TRAIN, spec.samples.div_ceil(2), spec.samples, &training, "images"),
        (HELD_OUT, spec.heldout, 2 * spec.heldout, &held_out, HELD_OUT),
    ] {
        write_split(
            folder,
            split,
            images,
            spec.seed,
            &choose(scenes, spec.seed, split, pictures),
            lines,
            progress,
        )?;
    }
    let text = serde_json::to_string_pretty(&Description::of(spec)).map_err(std::io::Error::other);
    let path = folder.join(DESCRIPTION);
    text.and_then(|text| persist(&path, |file| file.write_all(text.as_bytes())))
        .map_err(DataError::write(&path))
}

/// Rounds over all scenes, each in an order of its own: every description comes up equally often, give or take one.
fn choose<'a>(scenes: &'a [Scene], seed: u64, split: &str, pictures: usize) -> Vec<&'a Scene> {
    let order = EpochOrder::new(seed, Purpose::new(&format!("shapes {split}")), scenes.len());
    (0..pictures as u64).map(|place| &scenes[order.at(place)]).collect()
}

fn write_split(
    folder: &Path,
    split: &str,
    images: &str,
    seed: u64,
    scenes: &[&Scene],
    lines: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<(), DataError> {
    let images_folder = folder.join(images);
    fs::create_dir_all(&images_folder).map_err(DataError::write(&images_folder))?;
    let name = |number: usize| format!("{images}/{:06}.png", number + 1);
    let jitter = Purpose::new(&format!("shapes jitter {split}"));
    scenes.par_iter().enumerate().try_for_each(|(i, scene)| {
        let path = folder.join(name(i));
        let picture = draw_scene(scene, SIDE, &mut Philox::new(seed, jitter, 0, i as u32));
        let mut bytes = Vec::with_capacity(512);
        picture
            .write_with_encoder(PngEncoder::new_with_quality(
                &mut bytes,
                CompressionType::Fast,
                FilterType::Sub,
            ))
            .map_err(std::io::Error::other)
            .and_then(|()| fs::write(&path, &bytes))
            .map_err(DataError::write(&path))?;
        progress(1);
        Ok::<(), DataError>(())
    })?;
    let path = folder.join(format!("{split}.jsonl"));
    persist(&path, |file| {
        for line in 0..lines {
            let (scene, image) = (scenes[line / 2], name(line / 2));
            let line =
                if line % 2 == 0 { Line::caption(scene, &image) } else { Line::drawing(scene, &image) };
            serde_json::to_writer(&mut *file, &line)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
    .map_err(DataError::write(&path))
}

/// Writes a file aside, syncs it and renames it.
fn persist(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let aside = path.with_extension("partial");
    let mut file = BufWriter::new(File::create(&aside)?);
    write(&mut file)?;
    file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shapes::Detector;
    use crate::data::{Dataset, DatasetFiles, Layout, PictureLimits, ReadOptions, Tokenizer, load_square};
    use std::collections::{BTreeMap, HashSet};
    use std::path::PathBuf;

    const SPEC: ShapesSpec = ShapesSpec { samples: 61, heldout: 7, seed: 3 };

    fn write(folder: &Path, spec: &ShapesSpec) -> Result<Outcome, DataError> {
        write_shapes(folder, spec, false, &|_| {})
    }

    fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(
                    contents(&path)
                        .into_iter()
                        .map(|(p, b)| (Path::new(path.file_name().unwrap()).join(p), b)),
                );
            } else {
                files.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
            }
        }
        files
    }

    #[test]
    fn a_seed_gives_the_same_bytes_and_another_seed_others() {
        let (a, b, c) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(write(a.path(), &SPEC).unwrap(), Outcome::Written);
        assert_eq!(write(b.path(), &SPEC).unwrap(), Outcome::Written);
        assert_eq!(write(c.path(), &ShapesSpec { seed: 4, ..SPEC }).unwrap(), Outcome::Written);
        assert_eq!(contents(a.path()), contents(b.path()));
        assert_ne!(contents(a.path()), contents(c.path()));
        // 31 pictures for 61 lines, 7 held out, two lists and the description; no mark, nothing half written.
        assert_eq!(contents(a.path()).len(), 31 + 7 + 3);
    }

    #[test]
    fn lines_read_back_as_what_is_in_their_pictures() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &SPEC).unwrap();
        let detector = Detector::new(SIDE);
        for (split, lines, descriptions) in [("train", 61, 31), ("heldout", 14, 7)] {
            let mut seen = HashSet::new();
            let path = folder.path().join(format!("{split}.jsonl"));
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), lines);
            let mut drawn = 0;
            for (record, line) in DatasetFiles::find(&path, split).unwrap().records(None).zip(text.lines()) {
                let record = record.unwrap();
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = value["text"].as_str().or(value["prompt"].as_str()).unwrap();
                let scene: Scene = text.trim_start_matches(IMAGE_MARK).parse().unwrap();
                let picture = record.draw.as_ref().or(record.images.first()).unwrap();
                assert!(
                    detector
                        .detect(&load_square(picture, SIDE, &PictureLimits::default()).unwrap())
                        .unwrap()
                        .shows(&scene),
                    "{line}"
                );
                assert_eq!(scene.is_held_out(), split == "heldout");
                drawn += usize::from(record.draw.is_some());
                seen.insert(scene);
            }
            assert_eq!((drawn, seen.len()), (lines / 2, descriptions));
        }
        let layout = Layout {
            image_size: 32,
            tokens_per_tile: 16,
            max_tiles: 1,
            draw_size: 32,
            tokens_per_microbatch: 96,
            limits: PictureLimits::default(),
        };
        let options = ReadOptions { tokenizer: Tokenizer::bytes(), layout, images: None, skip: false };
        for (split, len) in [("train", 61), ("heldout", 14)] {
            assert_eq!(Dataset::load(folder.path(), split, &options).unwrap().len(), len);
        }
    }

    #[test]
    fn every_training_description_comes_equally_often() {
        let training: Vec<Scene> = Scene::all().into_iter().filter(|s| !s.is_held_out()).collect();
        let mut counts: BTreeMap<&Scene, usize> = BTreeMap::new();
        for scene in choose(&training, 9, TRAIN, 24_000) {
            *counts.entry(scene).or_default() += 1;
        }
        let whole = 24_000 / training.len();
        assert_eq!(counts.len(), training.len());
        assert!(counts.values().all(|&count| count == whole || count == whole + 1));
    }

    #[test]
    fn a_finished_set_is_reused_and_another_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &SPEC).unwrap();
        let before = contents(folder.path());
        assert_eq!(write(folder.path(), &SPEC).unwrap(), Outcome::Reused);
        let other = ShapesSpec { samples: 4, ..SPEC };
        let error = write(folder.path(), &other).unwrap_err().to_string();
        assert!(error.contains("--samples 61") && error.contains("--overwrite"), "{error}");
        assert_eq!(contents(folder.path()), before);
        assert_eq!(write_shapes(folder.path(), &other, true, &|_| {}).unwrap(), Outcome::Written);
        assert_eq!(contents(folder.path()).len(), 2 + 7 + 3);
    }

    #[test]
    fn an_interrupted_write_is_noticed_and_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &SPEC).unwrap();
        let whole = contents(folder.path());
        // What a process killed in the middle leaves: the mark, some pictures, no description.
        fs::write(folder.path().join(WRITING_MARK), "").unwrap();
        fs::remove_file(folder.path().join(DESCRIPTION)).unwrap();
        fs::remove_file(folder.path().join("images/000005.png")).unwrap();
        fs::write(folder.path().join("images/000006.png"), "half").unwrap();
        let error = crate::data::find_dataset_file(folder.path(), "train").unwrap_err();
        assert!(error.to_string().contains("was interrupted or still goes on"), "{error}");
        assert_eq!(write(folder.path(), &SPEC).unwrap(), Outcome::Restarted);
        assert_eq!(contents(folder.path()), whole);
    }

    #[test]
    fn a_folder_of_other_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "").unwrap();
        let error = write_shapes(folder.path(), &SPEC, true, &|_| {}).unwrap_err().to_string();
        assert!(error.contains("thesis.tex"), "{error}");
        assert_eq!(contents(folder.path()).len(), 1);
    }

    #[test]
    fn processes_that_write_at_once_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..3).map(|_| scope.spawn(|| write(folder.path(), &SPEC).unwrap())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|o| **o == Outcome::Reused).count(), 2, "{outcomes:?}");
        assert_eq!(contents(folder.path()).len(), 31 + 7 + 3);
    }
}
