//! Rows of a row group put together from the leaves of its columns.

use super::schema::{Kind, Node, Value as LeafValue};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use serde_json::{Map, Value};

/// Where the entries of a leaf come from.
pub(super) enum Source {
    /// From the file.
    Read(Box<Leaf>),
    /// None are read: wherever what is around the leaf is not null, it is present (`true`) or null (`false`).
    Known(bool),
}

/// Entries of a leaf that were read and are not yet used.
pub(super) struct Leaf {
    reader: ColumnReader,
    /// Whether values are dropped, and only where they are is of interest: then, how many rows of them may be in memory.
    levels_only: Option<usize>,
    full: i16,
    repeats: bool,
    defs: Vec<i16>,
    reps: Vec<i16>,
    values: std::vec::IntoIter<Entry>,
    at: usize,
}

enum Entry {
    Bytes(ByteArray),
    Value(Value),
}

/// Why a row cannot be put together: what is wrong with the file.
type Damage = String;

impl Leaf {
    /// Entries of `reader`, whose leaf has these levels where it is not null.
    pub fn new(reader: ColumnReader, full: i16, repeats: bool, levels_only: Option<usize>) -> Self {
        let values = Vec::new().into_iter();
        Leaf { reader, levels_only, full, repeats, defs: Vec::new(), reps: Vec::new(), values, at: 0 }
    }

    /// Reads the entries of `rows` more rows; those of the rows before must all have been used.
    ///
    /// # Errors
    /// When the column ends before that, or is damaged.
    pub fn fill(&mut self, rows: usize) -> Result<(), Damage> {
        if self.at != self.defs.len() {
            return Err(disagree());
        }
        self.defs.clear();
        self.reps.clear();
        self.at = 0;
        let mut values = Vec::new();
        let mut read = 0;
        while read < rows {
            let step = self.levels_only.unwrap_or(usize::MAX).min(rows - read);
            let keep = self.levels_only.is_none().then_some(&mut values);
            let (defs, reps) = (&mut self.defs, &mut self.reps);
            let got = match &mut self.reader {
                ColumnReader::ByteArrayColumnReader(r) => entries(r, step, defs, reps, keep, Entry::Bytes),
                ColumnReader::BoolColumnReader(r) => entries(r, step, defs, reps, keep, number),
                ColumnReader::Int32ColumnReader(r) => entries(r, step, defs, reps, keep, number),
                ColumnReader::Int64ColumnReader(r) => entries(r, step, defs, reps, keep, number),
                ColumnReader::FloatColumnReader(r) => entries(r, step, defs, reps, keep, number),
                ColumnReader::DoubleColumnReader(r) => entries(r, step, defs, reps, keep, number),
                _ => Err("a column has values that are not read".into()),
            }?;
            if got == 0 {
                return Err("a column ends before its last row".into());
            }
            read += got;
        }
        // The reader writes no levels where all of them are the same.
        let levels =
            if self.full == 0 && !self.repeats { read } else { self.defs.len().max(self.reps.len()) };
        self.defs.resize(levels, self.full);
        self.reps.resize(levels, 0);
        self.values = values.into_iter();
        Ok(())
    }

    /// Levels of the next entry: how far it repeats, and how much of it is there.
    fn peek(&self) -> Option<(i16, i16)> {
        Some((*self.reps.get(self.at)?, *self.defs.get(self.at)?))
    }

    fn take(&mut self) -> Result<Option<Entry>, Damage> {
        let (_, def) = self.peek().ok_or_else(disagree)?;
        self.at += 1;
        if def < self.full {
            return Ok(None);
        }
        if self.levels_only.is_some() {
            return Ok(Some(Entry::Value(Value::Bool(true))));
        }
        self.values.next().map(Some).ok_or_else(disagree)
    }

    /// How many of the entries read have at least the level `def`.
    pub fn count_from(&mut self, def: i16) -> u64 {
        self.at = self.defs.len();
        self.defs.iter().filter(|&&level| level >= def).count() as u64
    }
}

fn number<T: Into<Value>>(value: T) -> Entry {
    Entry::Value(value.into())
}

fn entries<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    defs: &mut Vec<i16>,
    reps: &mut Vec<i16>,
    keep: Option<&mut Vec<Entry>>,
    entry: impl Fn(T::T) -> Entry,
) -> Result<usize, Damage> {
    let mut values = Vec::new();
    let (read, _, _) =
        reader.read_records(rows, Some(defs), Some(reps), &mut values).map_err(|error| error.to_string())?;
    if let Some(keep) = keep {
        keep.extend(values.into_iter().map(entry));
    }
    Ok(read)
}

fn disagree() -> Damage {
    "the columns of a row group disagree on its rows".into()
}

/// Puts one row's value of `node` together from `leaves`, all those of the file; null parts of structs are left out. Text
/// that is not text is told in `wrong`, and does not keep the next row from being read.
///
/// # Errors
/// When the leaves below the node disagree.
pub(super) fn assemble(
    node: &Node,
    leaves: &mut [Option<Source>],
    wrong: &mut Option<String>,
) -> Result<Value, Damage> {
    let levels = levels(node, leaves)?;
    match &node.kind {
        Kind::Leaf(kind) => match leaves.get_mut(node.leaf()).and_then(Option::as_mut) {
            Some(Source::Known(present)) => Ok(if *present { Value::Bool(true) } else { Value::Null }),
            Some(Source::Read(leaf)) => Ok(match leaf.take()? {
                None => Value::Null,
                Some(Entry::Value(value)) => value,
                Some(Entry::Bytes(bytes)) => text(bytes.data(), *kind, wrong),
            }),
            None => Ok(Value::Null),
        },
        Kind::Struct(fields) => {
            if levels.is_some_and(|(_, def)| def < node.def) {
                return skip(node, leaves);
            }
            let mut object = Map::new();
            for (name, part) in fields {
                let value = assemble(part, leaves, wrong)?;
                if !value.is_null() {
                    object.insert(name.clone(), value);
                }
            }
            Ok(Value::Object(object))
        }
        Kind::List { rep, def, element } => {
            let Some((_, level)) = levels else {
                return Err("a list has nothing that tells its length".into());
            };
            if level < *def {
                let null = skip(node, leaves)?;
                return Ok(if level < node.def { null } else { Value::Array(Vec::new()) });
            }
            let mut items = vec![assemble(element, leaves, wrong)?];
            while another(node, leaves, *rep)? {
                items.push(assemble(element, leaves, wrong)?);
            }
            Ok(Value::Array(items))
        }
    }
}

fn text(bytes: &[u8], kind: LeafValue, wrong: &mut Option<String>) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => {
            let said = if kind == LeafValue::Text { "text" } else { "bytes" };
            wrong.get_or_insert_with(|| format!("holds {said} that is not UTF-8"));
            Value::Null
        }
    }
}

/// Leaves below `node` that are read.
fn read_below<'a>(node: &Node, leaves: &'a mut [Option<Source>]) -> impl Iterator<Item = &'a mut Box<Leaf>> {
    let below = leaves.get_mut(node.leaves.clone()).unwrap_or_default();
    below.iter_mut().filter_map(|leaf| match leaf {
        Some(Source::Read(leaf)) => Some(leaf),
        _ => None,
    })
}

/// Levels of the next entry below a node; `None` where nothing below it is read.
fn levels(node: &Node, leaves: &mut [Option<Source>]) -> Result<Option<(i16, i16)>, Damage> {
    match read_below(node, leaves).next() {
        Some(leaf) => leaf.peek().map(Some).ok_or_else(disagree),
        None => Ok(None),
    }
}

/// Whether the next entries are another element of the list `node`, on which all leaves below must agree.
fn another(node: &Node, leaves: &mut [Option<Source>], rep: i16) -> Result<bool, Damage> {
    let mut answers = read_below(node, leaves).map(|leaf| leaf.peek().is_some_and(|(level, _)| level >= rep));
    let first = answers.next().unwrap_or(false);
    if answers.any(|other| other != first) { Err(disagree()) } else { Ok(first) }
}

/// Steps over the one entry that a null or an empty list has in every leaf.
fn skip(node: &Node, leaves: &mut [Option<Source>]) -> Result<Value, Damage> {
    for leaf in read_below(node, leaves) {
        if leaf.take()?.is_some() {
            return Err(disagree());
        }
    }
    Ok(Value::Null)
}
