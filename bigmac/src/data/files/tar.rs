//! WebDataset shards: tar archives in which the files of one sample lie side by side and share a name up to its first
//! dot (<https://github.com/webdataset/webdataset>).
//!
//! Opening one lists its members; pictures are read from their place in it when they are wanted.

use super::super::error::{DataError, Place};
use super::super::forms::{Record, kind};
use super::super::picture::{Origin, PictureRef, Source};
use super::held::{Held, HeldRecord};
use super::text::{json, without_bom};
use super::window::Window;
use bigmac_runtime::open::{open_file, zeros};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use tar::{Archive, EntryType};

/// A tar archive consists of blocks of this many bytes.
const BLOCK: u64 = 512;
const PICTURES: [&str; 5] = ["jpg", "jpeg", "png", "webp", "gif"];
const MEMBERS: &str = "a sample may have KEY.jpg, KEY.jpeg, KEY.png, KEY.webp or KEY.gif (several as KEY.0.jpg, KEY.1.jpg), \
                       KEY.draw.png, KEY.txt, KEY.prompt.txt and KEY.json";

/// Reads a shard sample by sample; an error of one sample does not end it, so that all can be listed.
pub(super) struct TarReader {
    file: Arc<Path>,
    images: Option<Arc<Path>>,
    shard: RefCell<Window>,
    samples: std::vec::IntoIter<Sample>,
    done: u32,
    /// What ended the listing of the shard, if it was not its end.
    broken: Option<DataError>,
}

struct Sample {
    /// The members' names up to the first dot, folder included.
    key: Arc<str>,
    members: Vec<Member>,
    /// Whether other samples lie between its members.
    scattered: bool,
}

struct Member {
    /// What follows the key and the dot, as it is written.
    part: String,
    offset: u64,
    len: u64,
}

impl TarReader {
    /// Opens a shard and lists its members.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(file: &Arc<Path>, images: Option<&Arc<Path>>) -> Result<Self, DataError> {
        let mut shard = open_file(file).and_then(Window::new).map_err(DataError::read(file))?;
        let mut samples = Samples::default();
        let broken = list(&mut shard, &mut samples).err().map(|problem| DataError::contents(file, problem));
        let (shard, samples) = (RefCell::new(shard), samples.found.into_iter());
        Ok(TarReader { file: Arc::clone(file), images: images.cloned(), shard, samples, done: 0, broken })
    }

    fn record(&self, sample: &Sample, place: &Place) -> Result<Record, String> {
        if sample.scattered {
            return Err(
                "other samples lie between its files; write shards in the order of names (`tar --sort=name`)"
                    .into(),
            );
        }
        let parts = Parts::of(sample)?;
        let text = |member: &Member| self.text(&sample.key, member);
        let mut object = match parts.json {
            Some(member) => parse_object(&text(member)?)
                .map_err(|problem| format!("{}: {problem}", member.name(sample)))?,
            None => Map::new(),
        };
        let learned = parts.text.map(text).transpose()?;
        if let Some(learned) = &learned
            && is_download_report(&object)
        {
            match object.get("caption") {
                Some(Value::String(caption)) if caption != learned => {
                    return Err("'caption' of its .json differs from its .txt; keep one of them".into());
                }
                _ => object.clear(),
            }
        }
        for (key, part, value) in
            [("text", "txt", learned), ("prompt", "prompt.txt", parts.prompt.map(text).transpose()?)]
        {
            let Some(value) = value else { continue };
            if object.get(key).is_some_and(|v| !v.is_null()) {
                return Err(format!(
                    "'{key}' of its .json and its .{part} both give the {key}; keep one of them"
                ));
            }
            object.insert(key.into(), Value::String(value));
        }
        if object.is_empty() && parts.draw.is_none() {
            return Err(format!("nothing to learn: the sample has pictures only; {MEMBERS}"));
        }
        let held = |member: &Member| self.held(sample, member, place);
        let images = parts.images.iter().map(|(_, member)| held(member)).collect();
        let draw = parts.draw.map(held);
        let record = HeldRecord { object, images, draw, file: Arc::clone(&self.file), place: place.clone() };
        record.read(self.images.as_deref(), |taken| parts.in_order(sample, taken))
    }

    /// A text member, without a byte order mark.
    fn text(&self, key: &str, member: &Member) -> Result<String, String> {
        let name = format!("{key}.{}", member.part);
        let wrong = |problem: String| format!("'{name}' {problem}");
        let len = usize::try_from(member.len).map_err(|_| wrong("is too long".into()))?;
        let mut bytes = zeros(len).map_err(|error| wrong(format!("cannot be read ({error})")))?;
        let mut shard = self.shard.borrow_mut();
        shard
            .seek(SeekFrom::Start(member.offset))
            .and_then(|_| shard.read_exact(&mut bytes))
            .map_err(|error| wrong(format!("cannot be read ({error})")))?;
        let text = std::str::from_utf8(without_bom(&bytes));
        text.map(str::to_owned).map_err(|_| wrong("is not UTF-8 text; save it as UTF-8".into()))
    }

    /// A picture member with the names that a record may give it: with its folder, without, or what follows the key.
    fn held(&self, sample: &Sample, member: &Member, place: &Place) -> Held {
        let full = member.name(sample);
        let base = full.rsplit('/').next().unwrap_or_default().to_owned();
        let source = Source::Within {
            file: Arc::clone(&self.file),
            offset: member.offset,
            len: member.len,
            name: full.as_str().into(),
        };
        let origin = Origin { file: Arc::clone(&self.file), place: place.clone() };
        let picture = PictureRef::from_source(source, Some(origin));
        Held { names: vec![full, base, member.part.clone()], picture }
    }
}

impl Iterator for TarReader {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(sample) = self.samples.next() else { return self.broken.take().map(Err) };
        self.done += 1;
        let place = Place::Sample(self.done, Arc::clone(&sample.key));
        let record = self.record(&sample, &place);
        Some(record.map_err(|problem| DataError::at(&self.file, place, problem)))
    }
}

impl Member {
    fn name(&self, sample: &Sample) -> String {
        format!("{}.{}", sample.key, self.part)
    }
}

/// The members of a sample by what they are for.
#[derive(Default)]
struct Parts<'a> {
    text: Option<&'a Member>,
    prompt: Option<&'a Member>,
    json: Option<&'a Member>,
    draw: Option<&'a Member>,
    /// Each with what stands between key and ending.
    images: Vec<(String, &'a Member)>,
}

impl<'a> Parts<'a> {
    fn of(sample: &'a Sample) -> Result<Self, String> {
        let mut parts = Parts::default();
        for member in &sample.members {
            let part = member.part.to_ascii_lowercase();
            let (label, ending) = part.rsplit_once('.').unwrap_or(("", &part));
            let slot = match (label, ending) {
                ("", "txt") => &mut parts.text,
                ("prompt", "txt") => &mut parts.prompt,
                ("", "json") => &mut parts.json,
                ("draw", _) if PICTURES.contains(&ending) => &mut parts.draw,
                (_, _) if PICTURES.contains(&ending) => {
                    parts.images.push((label.to_owned(), member));
                    continue;
                }
                _ => return Err(format!("'{}' is not read; {MEMBERS}", member.name(sample))),
            };
            if let Some(other) = slot.replace(member) {
                let (one, two) = (other.name(sample), member.name(sample));
                return Err(format!("'{one}' and '{two}' are both there; keep one of them"));
            }
        }
        Ok(parts)
    }

    /// The pictures among `taken`, which no record names, by their numbers.
    fn in_order(&self, sample: &Sample, taken: Vec<Held>) -> Result<Vec<Held>, String> {
        let mut numbered: Vec<(u64, Held)> = Vec::with_capacity(taken.len());
        let alone = taken.len() == 1;
        for held in taken {
            let name = held.names.first().cloned().unwrap_or_default();
            let label =
                self.images.iter().find(|(_, member)| member.name(sample) == name).map(|(label, _)| label);
            let number = match label.map(String::as_str) {
                Some("") if alone => 0,
                Some("") => {
                    return Err(format!(
                        "'{name}' is one of several pictures and has no number; call them KEY.0.jpg, KEY.1.jpg and so on, or \
                         name them in KEY.json"
                    ));
                }
                Some(label) if label.bytes().all(|b| b.is_ascii_digit()) => {
                    label.parse().map_err(|_| format!("the number of '{name}' is too large"))?
                }
                _ => {
                    return Err(format!(
                        "'{name}' is named neither by a number nor in KEY.json, so its use is not known; {MEMBERS}"
                    ));
                }
            };
            if numbered.iter().any(|(other, _)| *other == number) {
                return Err(format!("'{name}' has the number of another picture of the sample"));
            }
            numbered.push((number, held));
        }
        numbered.sort_by_key(|(number, _)| *number);
        Ok(numbered.into_iter().map(|(_, held)| held).collect())
    }
}

/// Samples as they are found.
#[derive(Default)]
struct Samples {
    found: Vec<Sample>,
    by_key: HashMap<Arc<str>, usize>,
}

impl Samples {
    fn add(&mut self, key: &str, member: Member) -> Result<(), String> {
        let last = self.found.len().wrapping_sub(1);
        let at = match self.by_key.get(key) {
            Some(&at) => at,
            None => {
                let key: Arc<str> = key.into();
                self.by_key.insert(Arc::clone(&key), last.wrapping_add(1));
                self.found.push(Sample { key, members: Vec::new(), scattered: false });
                self.found.len() - 1
            }
        };
        let sample = &mut self.found[at];
        sample.scattered |= at != last && !sample.members.is_empty();
        if sample.members.iter().any(|other| other.part == member.part) {
            return Err(format!("holds '{}' twice; write the shard again", member.name(sample)));
        }
        sample.members.push(member);
        Ok(())
    }
}

/// Lists the members of a shard.
fn list(shard: &mut Window, samples: &mut Samples) -> Result<(), String> {
    let len = shard.len();
    let cut = || "is cut short: copy or download it again".to_owned();
    let damaged = |error: io::Error| {
        if error.to_string().contains("entire block") || error.kind() == io::ErrorKind::UnexpectedEof {
            return cut();
        }
        format!(
            "is not a tar archive, or is damaged or compressed ({error}); copy or download it again, or unpack it"
        )
    };
    let mut archive = Archive::new(shard);
    // Shards that were put behind one another with `cat` have such blocks between them.
    archive.set_ignore_zeros(true);
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let kind = entry.header().entry_type();
        let name = entry.path_bytes().into_owned();
        let name = String::from_utf8(name).map_err(|error| {
            let name = String::from_utf8_lossy(error.as_bytes()).into_owned();
            format!("holds '{name}', whose name is not UTF-8 text; write the shard again")
        })?;
        // Sparse files are stored with holes: their size is not that of what lies in the shard.
        let mut sparse = kind.is_gnu_sparse();
        if let Some(extensions) = entry.pax_extensions().map_err(damaged)? {
            for extension in extensions {
                sparse |= extension.map_err(damaged)?.key_bytes().starts_with(b"GNU.sparse.");
            }
        }
        if sparse {
            return Err(format!("holds '{name}' as a sparse file; write the shard again without --sparse"));
        }
        end = offset.checked_add(size).ok_or_else(cut)?;
        if end > len {
            return Err(cut());
        }
        let name = name.trim_start_matches("./");
        if !is_member(kind, name)? {
            continue;
        }
        let base = name.rfind('/').map_or(0, |at| at + 1);
        match name[base..].find('.') {
            Some(dot) if dot > 0 => {
                let (key, part) = (&name[..base + dot], name[base + dot + 1..].to_owned());
                samples.add(key, Member { part, offset, len: size })?;
            }
            _ => return Err(format!("holds '{name}', which is not a file of a sample; {MEMBERS}")),
        }
    }
    // The archive ends with at least one block of zeros; without it, whole samples may be missing.
    if end.next_multiple_of(BLOCK) + BLOCK > len {
        return Err(cut());
    }
    Ok(())
}

/// Whether a member of the archive is a file of a sample; folders, and what macOS and WebDataset note for themselves,
/// are not.
fn is_member(kind: EntryType, name: &str) -> Result<bool, String> {
    // The label of a GNU volume, and the listing of a folder in an incremental archive.
    const LABEL: u8 = b'V';
    const LISTING: u8 = b'D';
    if kind.is_dir() || kind.is_pax_global_extensions() || [LABEL, LISTING].contains(&kind.as_byte()) {
        return Ok(false);
    }
    let base = name.rsplit('/').next().unwrap_or_default();
    let first = name.split('/').next().unwrap_or_default();
    let note = |part: &str| part.len() > 4 && part.starts_with("__") && part.ends_with("__");
    if base.is_empty() || base.starts_with("._") || base == ".DS_Store" || first == "__MACOSX" || note(first)
    {
        return Ok(false);
    }
    if kind.is_hard_link() || kind.is_symlink() {
        let problem =
            "is a link to another file; write the shard again with `tar --dereference --hard-dereference`";
        return Err(format!("holds '{name}', which {problem}"));
    }
    // What is written in one piece is a file as well (POSIX, "contiguous").
    if kind.is_file() || kind.is_contiguous() {
        return Ok(true);
    }
    Err(format!("holds '{name}', which is not a file; write the shard again without it"))
}

/// Whether a .json holds what img2dataset notes of a download; the caption lies beside it as .txt.
fn is_download_report(object: &Map<String, Value>) -> bool {
    ["key", "status", "url"].iter().all(|key| object.contains_key(*key))
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    match json(text)? {
        Value::Object(object) => Ok(object),
        other => {
            Err(format!("{}, expected an object such as {{\"text\": ..., \"images\": [...]}}", kind(&other)))
        }
    }
}
