//! Parquet tables, as the Hugging Face Hub serves data sets: texts and turns in columns, pictures in columns of bytes.
//!
//! Opening one reads its footer; reading its records reads the columns of texts. Pictures are read from their cell when
//! they are wanted: of their columns no more is read than it takes to know which of them there are.

mod columns;
mod leaves;
mod schema;

use self::columns::{Column, Role, columns};
use self::leaves::{Leaf, Source as Entries, assemble};
use self::schema::{Kind, Node};
use super::super::error::{DataError, Place};
use super::super::forms::Record;
use super::super::guard::guarded;
use super::super::picture::{Origin, PictureRef, Source};
use super::super::table::{Cell, Table};
use super::held::{Held, HeldRecord};
use super::picture_file;
use super::text::json;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// Rows that are put together at a time.
const ROWS_AT_A_TIME: usize = 256;
/// Rows of pictures that are in memory at a time, where a column of them has to be read.
const PICTURES_AT_A_TIME: usize = 8;

/// Reads a table row by row; an error of one row does not end it, so that all can be listed.
pub(super) struct ParquetReader {
    file: Arc<Path>,
    images: Option<Arc<Path>>,
    table: Arc<Table>,
    columns: Vec<Column>,
    group: usize,
    /// Leaves of the row group, once it is begun.
    leaves: Option<Vec<Option<Entries>>>,
    /// Rows of the row group that were put together.
    row: usize,
    /// Rows of the row groups before.
    before: usize,
    ready: VecDeque<Result<Record, DataError>>,
}

/// A picture that a cell holds or names.
struct Picture {
    element: u32,
    has_bytes: bool,
    path: Option<String>,
}

impl ParquetReader {
    /// Opens a table.
    ///
    /// # Errors
    /// When the file cannot be read, is not a Parquet file, or has columns that are not known.
    pub fn open(file: &Arc<Path>, images: Option<&Arc<Path>>) -> Result<Self, DataError> {
        let table = Table::open(file, |metadata| {
            let bytes = |column: &Column| match column.role {
                Role::Pictures { bytes, .. } => bytes,
                _ => None,
            };
            columns(metadata).unwrap_or_default().iter().filter_map(bytes).collect()
        })?;
        let wrong = |problem: String| DataError::contents(file, format!("cannot be used: {problem}"));
        let columns = guarded(|| columns(table.metadata())).map_err(wrong)?;
        Ok(ParquetReader {
            file: Arc::clone(file),
            images: images.cloned(),
            table: Arc::new(table),
            columns,
            group: 0,
            leaves: None,
            row: 0,
            before: 0,
            ready: VecDeque::new(),
        })
    }

    /// Puts the next rows together; `false` after the last.
    fn advance(&mut self) -> Result<bool, String> {
        let Some(group) = self.table.metadata().row_groups().get(self.group) else { return Ok(false) };
        let rows = usize::try_from(group.num_rows()).map_err(|error| error.to_string())?;
        let mut leaves = match self.leaves.take() {
            Some(leaves) => leaves,
            None => self.begin()?,
        };
        let count = ROWS_AT_A_TIME.min(rows - self.row);
        for leaf in leaves.iter_mut().flatten() {
            if let Entries::Read(leaf) = leaf {
                leaf.fill(count)?;
            }
        }
        for _ in 0..count {
            let record = self.next_row(&mut leaves)?;
            self.ready.push_back(record);
            self.row += 1;
        }
        if self.row < rows {
            self.leaves = Some(leaves);
        } else {
            (self.group, self.row, self.before) = (self.group + 1, 0, self.before + rows);
        }
        Ok(true)
    }

    /// Opens the columns of a row group.
    fn begin(&self) -> Result<Vec<Option<Entries>>, String> {
        let group = self.table.metadata().row_group(self.group);
        let mut leaves: Vec<Option<Entries>> = Vec::new();
        leaves.resize_with(group.num_columns(), || None);
        for column in &self.columns {
            for leaf in column.node.leaves.clone() {
                let entries = match column.role {
                    Role::Pictures { bytes, path } if bytes == Some(leaf) => {
                        self.picture_leaf(column, leaf, path)?
                    }
                    _ => self.read_leaf(leaf, None)?,
                };
                if let Some(slot) = leaves.get_mut(leaf) {
                    *slot = Some(entries);
                }
            }
        }
        Ok(leaves)
    }

    fn read_leaf(&self, leaf: usize, levels_only: Option<usize>) -> Result<Entries, String> {
        Ok(Entries::Read(Box::new(self.open_leaf(leaf, levels_only)?)))
    }

    fn open_leaf(&self, leaf: usize, levels_only: Option<usize>) -> Result<Leaf, String> {
        let column = self.table.metadata().row_group(self.group).column(leaf).column_descr();
        let (full, repeats) = (column.max_def_level(), column.max_rep_level() > 0);
        Ok(Leaf::new(self.table.leaf(self.group, leaf)?, full, repeats, levels_only))
    }

    /// Tells from the statistics where a row group has pictures, if they can tell. Otherwise the column has to be read.
    fn picture_leaf(&self, column: &Column, leaf: usize, path: Option<usize>) -> Result<Entries, String> {
        let group = self.table.metadata().row_group(self.group);
        let chunk = group.column(leaf);
        let values = u64::try_from(chunk.num_values()).map_err(|error| error.to_string())?;
        let nulls = match chunk.column_descr().max_def_level() {
            0 => Some(0),
            _ => chunk.statistics().and_then(|statistics| statistics.null_count_opt()),
        };
        // The length of a list is told by another leaf of it, or not at all.
        let list = chunk.column_descr().max_rep_level() > 0;
        match (nulls, path) {
            (Some(0), path) if path.is_some() || !list => return Ok(Entries::Known(true)),
            (Some(nulls), path) if nulls == values && (path.is_some() || !list) => {
                return Ok(Entries::Known(false));
            }
            (Some(nulls), Some(path)) => {
                let rows = usize::try_from(group.num_rows()).map_err(|error| error.to_string())?;
                let mut paths = self.open_leaf(path, Some(ROWS_AT_A_TIME))?;
                paths.fill(rows)?;
                if paths.count_from(struct_level(&column.node)).checked_add(nulls) == Some(values) {
                    return Ok(Entries::Known(true));
                }
            }
            _ => {}
        }
        self.read_leaf(leaf, Some(PICTURES_AT_A_TIME))
    }

    /// Puts one row together. The outer error is one of the file, after which no further row can be read.
    fn next_row(&self, leaves: &mut [Option<Entries>]) -> Result<Result<Record, DataError>, String> {
        let number = u32::try_from(self.before + self.row + 1).map_err(|error| error.to_string())?;
        let place = Place::Row(number);
        let mut problem = None;
        let (mut object, mut images, mut draw) = (Map::new(), Vec::new(), Vec::new());
        for column in &self.columns {
            let mut wrong = None;
            let value = assemble(&column.node, leaves, &mut wrong)?;
            let told = match column.role {
                Role::Key => Ok(value).map(|value| insert(&mut object, column, value)),
                Role::Turns => turns(value).map(|value| insert(&mut object, column, value)),
                Role::Pictures { bytes, .. } => pictures(value).map(|pictures| {
                    let held = pictures.into_iter().map(|picture| self.held(column, bytes, picture, &place));
                    if column.is_draw() {
                        draw.extend(held)
                    } else {
                        images.push((&column.name, held.collect::<Vec<_>>()))
                    }
                }),
            };
            let told = match wrong {
                Some(wrong) => Err(wrong),
                None => told,
            };
            if let Err(error) = told {
                problem.get_or_insert_with(|| format!("column '{}' {error}", column.name));
            }
        }
        images.retain(|(_, held)| !held.is_empty());
        let record = match problem {
            Some(problem) => Err(problem),
            None => self.record(object, images, draw, &place),
        };
        Ok(record.map_err(|problem| DataError::at(&self.file, place, problem)))
    }

    fn record(
        &self,
        object: Map<String, Value>,
        mut images: Vec<(&String, Vec<Held>)>,
        mut draw: Vec<Held>,
        place: &Place,
    ) -> Result<Record, String> {
        if let [(one, _), (two, _), ..] = images[..] {
            return Err(format!("columns '{one}' and '{two}' both hold pictures; keep one of them"));
        }
        if draw.len() > 1 {
            return Err(format!("column 'draw' holds {} pictures, expected one", draw.len()));
        }
        let images = images.pop().map(|(_, held)| held).unwrap_or_default();
        let (file, place) = (Arc::clone(&self.file), place.clone());
        let record = HeldRecord { object, images, draw: draw.pop(), file, place };
        record.read(self.images.as_deref(), Ok)
    }

    /// The picture of a cell: its bytes, or the file that its path names.
    fn held(&self, column: &Column, leaf: Option<usize>, picture: Picture, place: &Place) -> Held {
        let Picture { element, has_bytes, path } = picture;
        let number = match column.node.kind {
            Kind::List { .. } => format!("{}[{element}]", column.name),
            _ => column.name.clone(),
        };
        let mut names = vec![number];
        if let Some(path) = &path {
            let base = path.rsplit('/').next().unwrap_or_default();
            names = vec![path.clone(), base.to_owned()];
        }
        let picture = match (leaf.filter(|_| has_bytes), &path) {
            (None, Some(path)) => picture_file(&self.file, self.images.as_deref(), place, path),
            (leaf, _) => {
                let cell = Cell {
                    table: Arc::clone(&self.table),
                    group: self.group as u32,
                    leaf: leaf.unwrap_or_default() as u32,
                    row: self.row as u32,
                    element,
                    name: names[0].as_str().into(),
                };
                let origin = Origin { file: Arc::clone(&self.file), place: place.clone() };
                PictureRef::from_source(Source::Cell(cell), Some(origin))
            }
        };
        Held { names, picture }
    }
}

impl Iterator for ParquetReader {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(record);
            }
            match guarded(|| self.advance()) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(problem) => {
                    let group = self.group + 1;
                    self.group = usize::MAX;
                    // Rows that were put together before the damage are not lost.
                    let problem =
                        format!("cannot be read in row group {group} ({problem}); copy or download it again");
                    self.ready.push_back(Err(DataError::contents(&self.file, problem)));
                }
            }
        }
    }
}

fn insert(object: &mut Map<String, Value>, column: &Column, value: Value) {
    if !value.is_null() {
        object.insert(column.name.clone(), value);
    }
}

/// The level from which on the struct around a picture is not null.
fn struct_level(node: &Node) -> i16 {
    match &node.kind {
        Kind::List { element, .. } => struct_level(element),
        _ => node.def,
    }
}

/// Turns that are stored as text are JSON.
fn turns(value: Value) -> Result<Value, String> {
    match value {
        Value::String(text) => {
            json(&text).map_err(|problem| format!("is text, but not a JSON list of turns: {problem}"))
        }
        other => Ok(other),
    }
}

/// The pictures of a cell; a cell that holds neither bytes nor a path has none.
fn pictures(value: Value) -> Result<Vec<Picture>, String> {
    match value {
        Value::Array(items) => items
            .into_iter()
            .zip(0..)
            .map(|(item, element)| {
                picture(item, element).ok_or_else(|| {
                    format!("has neither bytes nor a path at [{element}] of its list; take it out")
                })
            })
            .collect(),
        other => Ok(picture(other, 0).into_iter().collect()),
    }
}

fn picture(value: Value, element: u32) -> Option<Picture> {
    match value {
        Value::Bool(true) => Some(Picture { element, has_bytes: true, path: None }),
        Value::Object(object) => {
            let path = object.get("path").and_then(Value::as_str).filter(|path| !path.is_empty());
            let has_bytes = object.contains_key("bytes");
            let path = path.map(str::to_owned);
            (has_bytes || path.is_some()).then_some(Picture { element, has_bytes, path })
        }
        _ => None,
    }
}
